"""Texts become a store by the builder's rules, once, and an encoding that was ended goes on where it stopped."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from interrupting import Killed
from shard_fixture import SENTENCES
from tokenizers import Tokenizer

from leia_beam.errors import DamagedInput
from leia_train import text_sources, text_store
from leia_train.config import DataConfig
from leia_train.mix_sources import read_source
from leia_train.plan import TrainingPlan
from leia_train.shard_folders import open_shards
from leia_train.store import find_store
from leia_train.store_columns import COLUMNS
from leia_train.text_sources import open_texts
from leia_train.text_store import find_text_store, open_text_store, text_store_fingerprint

TEXTS = [f"{anchor} is {name} {number}." for number, (anchor, name, _) in enumerate(SENTENCES * 8)]


@pytest.fixture
def tokenizer(shards):
    """That of the shards."""
    return open_shards([str(shards)])[0].tokenizer


@pytest.fixture
def texts(tmp_path):
    """Two files, the second of JSON lines with an empty text."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "1.txt").write_text("\n\n".join(TEXTS[:30]))
    rows = [*TEXTS[30:35], "  ", *TEXTS[35:]]
    (folder / "2.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return folder


def source_of(path, settings=""):
    """What a source's path gives."""
    return open_texts(read_source(f"english={path}:0.25{settings}"))


def documents_of(store):
    """The tokens of each document."""
    offsets = store.documents.token_offsets.tolist()
    return [store.documents.tokens[start:end].tolist() for start, end in pairwise(offsets)]


def file_bytes(folder):
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_tokens_are_the_builders_for_the_same_text(texts, tokenizer, tmp_path):
    """Document start and end as the manifest says; empty texts are no documents; no entity; a plan reads it."""
    plain = Tokenizer.from_buffer(tokenizer.tokenizer_json)
    store = open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    assert documents_of(store) == [[0, *plain.encode(text, add_special_tokens=False).ids] for text in TEXTS]
    assert store.wikis == ("english",) and store.page_ids.tolist() == list(range(len(TEXTS)))
    assert len(store.entity_ordinals) == 0 and store.documents.entity_offsets.tolist() == [0] * (len(TEXTS) + 1)
    ended = dataclasses.replace(tokenizer, document_start_ids=(), document_end_ids=(1,))
    other = open_text_store(source_of(texts), ended, tmp_path / "out")
    assert [tokens[-1] for tokens in documents_of(other)] == [1] * len(TEXTS) and documents_of(other)[0][0] != 0
    rows = TrainingPlan(store, DataConfig(shards=("-",), max_length=8, validation_share=0.1), 1, ((90,), (91,))).rows(
        0, 40
    )
    assert rows.inserted_count == 0 and (rows.input_ids == 0).sum() > 5


def test_no_added_token_comes_from_text(tokenizer, tmp_path):
    """Special or not: the letters of `</s>` and of `<think>` stay letters."""
    with_think = Tokenizer.from_buffer(tokenizer.tokenizer_json)
    with_think.add_tokens(["<think>"])
    (tmp_path / "a.txt").write_text("<s> </s> <think>")
    edited = dataclasses.replace(tokenizer, tokenizer_json=with_think.to_str().encode(), document_start_ids=())
    ids = documents_of(open_text_store(source_of(tmp_path / "a.txt"), edited, tmp_path / "out"))[0]
    assert with_think.decode(ids, skip_special_tokens=False) == "<s> </s> <think>"
    assert not set(ids) & {0, 1, with_think.token_to_id("<think>")}


def test_a_store_is_encoded_once_for_the_same_content(texts, tokenizer, tmp_path, monkeypatch):
    """Whatever the source is called, wherever its files are; by another tokenizer, or as other documents, again."""
    first = open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    runs = []
    monkeypatch.setattr(text_store._Encoding, "run", lambda self: runs.append(1))
    texts.rename(tmp_path / "elsewhere")
    moved = open_texts(read_source(f"other={tmp_path}/elsewhere:0.5"))
    assert documents_of(open_text_store(moved, tokenizer, tmp_path / "out")) == documents_of(first)
    found = find_text_store("other", moved.fingerprint, tokenizer, tmp_path / "out")
    assert found is not None and found.wikis == ("other",) and not runs
    ways = [source_of(tmp_path / "elsewhere", add) for add in ("", ",documents=line")]
    names = {text_store_fingerprint(way.fingerprint, tokenizer) for way in ways}
    others = dataclasses.replace(tokenizer, document_start_ids=(1,))
    assert len(names | {text_store_fingerprint(moved.fingerprint, others)}) == 3


@pytest.mark.parametrize("ended_after", [1, 2, 3, 5, 6])
def test_an_encoding_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    texts, tokenizer, tmp_path, monkeypatch, ended_after
):
    """After any note, with what was written behind it cut off; texts before it are not encoded again."""
    whole = open_text_store(source_of(texts), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(text_store, "_BATCH_CHARACTERS", 40)
    monkeypatch.setattr(text_store, "_NOTED_CHARACTERS", 150)
    encoded = []
    encode = text_store.TextEncoder.encode_batch
    monkeypatch.setattr(
        text_store.TextEncoder,
        "encode_batch",
        lambda self, some, cuts: encoded.extend(some) or encode(self, some, cuts),
    )
    keep = text_store._Encoding._keep
    kept = []

    def die(self, note, tokens, lengths):
        keep(self, note, tokens, lengths)
        kept.append(note.documents)
        if len(kept) == ended_after:
            tokens.write(b"half-writ")
            tokens.flush()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(text_store._Encoding, "_keep", die)
        with pytest.raises(Killed):
            open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    encoded.clear()
    store = open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    assert encoded == TEXTS[kept[-1] :]
    assert documents_of(store) == documents_of(whole)
    (folder,) = (tmp_path / "out").glob("store-????????")
    assert file_bytes(folder) == file_bytes(next((tmp_path / "whole").glob("store-????????")))
    assert {f"{name}.bin" for name in COLUMNS} < {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("damage", ["tokens", "note", "lengths"])
def test_what_an_ended_encoding_left_is_not_believed_when_it_changed(texts, tokenizer, tmp_path, monkeypatch, damage):
    """A flipped bit in tokens or lengths, or half a note: it begins again and gives the right store."""
    whole = open_text_store(source_of(texts), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(text_store, "_BATCH_CHARACTERS", 40)
    monkeypatch.setattr(text_store, "_NOTED_CHARACTERS", 150)
    with monkeypatch.context() as patch:
        patch.setattr(text_sources, "LONGEST_BYTES", 10**9)
        patch.setattr(text_store, "finish_store", lambda *arguments: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    (part,) = (tmp_path / "out").glob("*.part")
    path = part / {"tokens": "tokens.bin", "note": "_encoding.json", "lengths": "lengths.bin"}[damage]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content[:-9] if damage == "note" else content)
    assert documents_of(open_text_store(source_of(texts), tokenizer, tmp_path / "out")) == documents_of(whole)


def test_a_damaged_store_is_encoded_again(texts, tokenizer, tmp_path):
    """A flipped bit in a finished store."""
    store = open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    expected = documents_of(store)
    (folder,) = (tmp_path / "out").glob("store-????????")
    content = bytearray((folder / "tokens.bin").read_bytes())
    content[5] ^= 1
    (folder / "tokens.bin").write_bytes(content)
    assert find_store(folder, text_store_fingerprint(source_of(texts).fingerprint, tokenizer)) is None
    assert documents_of(open_text_store(source_of(texts), tokenizer, tmp_path / "out")) == expected


def test_a_file_without_a_document_is_refused(texts, tokenizer, tmp_path):
    """A file of blank lines among good ones: exit code 3, and no store."""
    (texts / "3.txt").write_text("\n \n\n")
    with pytest.raises(DamagedInput, match=r"--mix english: .*3\.txt holds no document"):
        open_text_store(source_of(texts), tokenizer, tmp_path / "out")
    assert not list((tmp_path / "out").glob("store-????????"))


def test_two_runs_that_want_the_same_store_encode_it_once(texts, tokenizer, tmp_path, monkeypatch):
    """The second waits for the first, then finds it."""
    runs = []
    run = text_store._Encoding.run
    monkeypatch.setattr(text_store._Encoding, "run", lambda self: runs.append(1) or run(self))
    with ThreadPoolExecutor(2) as pool:
        opened = [pool.submit(open_text_store, source_of(texts), tokenizer, tmp_path / "out") for _ in range(2)]
        stores = [each.result() for each in opened]
    assert runs == [1] and documents_of(stores[0]) == documents_of(stores[1])
