"""The evaluation loss counts every token once and divides by the bytes of the text."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer

from leia_beam.errors import UsageError
from leia_train.config import DataConfig, ModelConfig
from leia_train.evaluation import Text, evaluate, file_texts, inserted_texts, pack_windows, store_texts, windows_of
from leia_train.loss import TokenLoss
from leia_train.markers import add_markers
from leia_train.model import load_model
from leia_train.plan import TrainingPlan
from leia_train.shard_folders import open_shards
from leia_train.store import open_store


def plain(tokens, hidden=(), names=()):
    """A text with some of its tokens hidden, some of names."""
    marks = [np.isin(np.arange(len(tokens)), which) for which in (hidden, names)]
    return Text(tokens=np.array(tokens), hidden=marks[0], names=marks[1], size_bytes=len(tokens))


def test_windows_predict_each_token_once():
    """All tokens but the first are the label of exactly one window, for every length."""
    for size in range(12):
        for length in range(2, 14):
            windows = [window[0] for window in windows_of(plain(np.arange(size)), length)]
            assert [token for window in windows for token in window[1:]] == list(range(1, size))
            assert all(len(window) <= length for window in windows)


def test_rows_hold_whole_windows():
    """Rows are filled in order; one window may be a row; hidden tokens have no label."""
    windows = [
        window
        for text in (plain([1, 2, 3], hidden=[2]), plain([4, 5], names=[1]), plain([6, 7, 8, 9]))
        for window in windows_of(text, 9)
    ]
    rows = [[part.tolist() for part in row] for row in pack_windows(windows, 5)]
    assert rows == [
        [[1, 2, 3, 4, 5], [0, 1, 2, 0, 1], [-100, 2, -100, -100, 5], [False, False, False, False, True]],
        [[6, 7, 8, 9], [0, 1, 2, 3], [-100, 7, 8, 9], [False] * 4],
    ]


def test_bits_per_byte_equal_those_of_each_article_alone(tmp_path, shards):
    """Packed or not, the loss is that of the model over each whole article; bytes are those of the decoded text."""
    folders = open_shards([str(shards)])
    store = open_store(folders, tmp_path)
    tokenizer = add_markers(store.tokenizer, "special")
    config = ModelConfig(model="tiny-llama", tiny_hidden_size=16, tiny_heads=2, tiny_kv_heads=1)
    model = load_model(config, store.tokenizer, tokenizer, 512, 0).model
    documents = np.array([3, 11, 0])
    nats, size_bytes, tokens = 0.0, 0, 0
    decoder = Tokenizer.from_buffer(store.tokenizer.tokenizer_json)
    for document in documents:
        ids = store.documents.tokens[slice(*store.documents.token_offsets[document : document + 2])].tolist()
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats += loss.item() * (len(ids) - 1)
        tokens += len(ids) - 1
        size_bytes += len(decoder.decode(ids[1:]).encode())
    for share_rows in (True, False):
        texts = store_texts(store, documents)
        found = evaluate(TokenLoss(model), texts, 512, Accelerator(cpu=True), share_rows=share_rows)
        assert (found.documents, found.tokens, found.size_bytes) == (3, tokens, size_bytes)
        assert math.isclose(found.bits_per_byte, nats / math.log(2) / size_bytes, rel_tol=1e-5)
    assert evaluate(TokenLoss(model), [], 512, Accelerator(cpu=True), share_rows=True).size_bytes == 0
    told = iter([False, True])
    assert (
        evaluate(TokenLoss(model), texts, 40, Accelerator(cpu=True), share_rows=True, stopped=lambda: next(told))
        is None
    )


def test_names_have_a_figure_of_their_own(tmp_path, shards):
    """Over the validation articles with names in them: text by bytes, names by token; markers and EOS in neither."""
    store = open_store(open_shards([str(shards)]), tmp_path)
    tokenizer = add_markers(store.tokenizer, "special")
    data = DataConfig(shards=(str(shards),), probability=1.0, validation_share=0.4)
    plan = TrainingPlan(store, data, 0, tokenizer.markers)
    config = ModelConfig(model="tiny-llama", tiny_hidden_size=16, tiny_heads=2, tiny_kv_heads=1)
    model = load_model(config, store.tokenizer, tokenizer, 512, 0).model
    texts = inserted_texts(plan)
    found = evaluate(TokenLoss(model), texts, 512, Accelerator(cpu=True), share_rows=True)
    name_nats = text_nats = name_tokens = text_tokens = 0
    for text in texts:
        logits = model(input_ids=torch.from_numpy(text.tokens)[None]).logits[0].log_softmax(-1)
        for place in range(1, len(text.tokens)):
            nats = -logits[place - 1, text.tokens[place]].item()
            if text.names[place]:
                name_nats, name_tokens = name_nats + nats, name_tokens + 1
            elif not text.hidden[place]:
                text_nats, text_tokens = text_nats + nats, text_tokens + 1
    assert (found.name_tokens, found.tokens) == (name_tokens, text_tokens)
    assert name_tokens > 5
    assert math.isclose(found.nats_per_name_token, name_nats / name_tokens, rel_tol=1e-4)
    assert math.isclose(found.bits_per_byte, text_nats / math.log(2) / found.size_bytes, rel_tol=1e-4)
    plain_tokens = sum(len(text.tokens) - 1 for text in store_texts(store, plan.validation_documents))
    assert text_tokens == plain_tokens
    hidden = sum(int(text.hidden.sum()) for text in texts)
    markers = sum(int(np.isin(text.tokens, tokenizer.marker_ids).sum()) for text in texts)
    assert hidden == markers + len(texts)


def test_text_files_are_read_as_the_shards_are_encoded(tmp_path, shards):
    """A whole file or a line's text; the document start is put before it, and a written </s> is ordinary text."""
    build = open_shards([str(shards)])[0].tokenizer
    (tmp_path / "a.txt").write_text("東京</s>は", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": "bc"}\n', encoding="utf-8")
    (text,) = file_texts(str(tmp_path / "a.txt"), build)
    assert text.size_bytes == len("東京</s>は".encode())
    assert text.tokens[0] == 0 and build.eos_id not in text.tokens
    assert Tokenizer.from_buffer(build.tokenizer_json).decode(text.tokens[1:].tolist()) == "東京</s>は"
    assert [text.size_bytes for text in file_texts(str(tmp_path / "b.jsonl"), build)] == [1, 2]
    with pytest.raises(UsageError, match=r"--eval-text .*missing"):
        file_texts(str(tmp_path / "missing"), build)


def test_names_are_those_of_the_first_epochs_draws(tmp_path, shards):
    """So that the figure is the same one throughout a run, and for each strategy at the same places."""
    store = open_store(open_shards([str(shards)]), tmp_path)
    tokenizer = add_markers(store.tokenizer, "special")
    plan = TrainingPlan(store, DataConfig(shards=("-",), validation_share=0.6), 1, tokenizer.markers)
    entities = store.subset(plan.validation_documents)[1]
    drawn = [int(plan.epoch(number).inserted[entities].sum()) for number in (0, 1)]
    found = sum(int((text.tokens == tokenizer.marker_ids[0]).sum()) for text in inserted_texts(plan))
    assert found == drawn[0] != drawn[1]


def test_an_eos_of_the_shards_is_no_text(tmp_path, shards):
    """Neither its loss nor its bytes count, with names in the text or without, so that other shards compare."""
    plain_store = open_store(open_shards([str(shards)]), tmp_path)
    last = int(plain_store.documents.tokens[plain_store.documents.token_offsets[4] - 1])
    store = replace(plain_store, tokenizer=replace(plain_store.tokenizer, document_end_ids=(last,)))
    documents = np.array([3])
    (before,), (after,) = (store_texts(one, documents) for one in (plain_store, store))
    assert after.tokens.tolist() == before.tokens[:-1].tolist() and after.size_bytes < before.size_bytes
    plan = TrainingPlan(store, DataConfig(shards=("-",), validation_share=0.6), 1, ((400,), (401,)))
    for text in inserted_texts(plan):
        assert text.hidden[-1] and not text.hidden[-2]
