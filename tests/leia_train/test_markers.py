"""What stands around a name: new tokens, unused ones, text, nothing."""

import json
import shutil

import pytest
import torch
from shard_fixture import write_tokenizer
from tokenizers import AddedToken, Tokenizer

from leia_beam.errors import UsageError
from leia_train.checkpoints import MARKERS_NAME, save_checkpoint
from leia_train.config import DataConfig, ModelConfig
from leia_train.markers import add_markers
from leia_train.model import load_model
from leia_train.shard_folders import BuildTokenizer, open_shards, padding_id


@pytest.fixture(scope="module")
def build(shards):
    """The tokenizer of the shards."""
    return open_shards([str(shards)])[0].tokenizer


@pytest.fixture
def build_with_unused(build, tokenizer_folder, tmp_path):
    """The same with three unused tokens."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(f"<|reserved_special_token_{number}|>") for number in range(3)])
    values = {name: getattr(build, name) for name in BuildTokenizer.__slots__}
    values |= {"tokenizer_json": tokenizer.to_str().encode(), "vocabulary_size": build.vocabulary_size + 3}
    return BuildTokenizer(**values)


def test_special_markers_are_added_to_the_file(build):
    """Two ids after all others; the file has them."""
    made = add_markers(build, "special")
    size = build.vocabulary_size
    assert made.marker_ids == (size, size + 1) and made.markers == ((size,), (size + 1,))
    assert Tokenizer.from_buffer(made.tokenizer_json).token_to_id("</translate>") == size + 1


def test_reserved_markers_change_neither_the_file_nor_the_size(build_with_unused):
    """The first two unused tokens, or the two that are named; their rows begin as the mean of the others."""
    size = build_with_unused.vocabulary_size
    made = add_markers(build_with_unused, "reserved")
    assert made.marker_ids == (size - 3, size - 2)
    assert made.tokenizer_json == build_with_unused.tokenizer_json
    named = add_markers(build_with_unused, "reserved", ("<|reserved_special_token_2|>", "<|reserved_special_token_0|>"))
    assert named.marker_ids == (size - 1, size - 3)
    model = load_model(ModelConfig(model="tiny-llama"), build_with_unused, made, 32, 1).model
    rows = model.get_input_embeddings().weight.detach()
    assert len(rows) == size
    others = [row for row in range(size) if row not in made.marker_ids]
    torch.testing.assert_close(rows[size - 3], rows[others].mean(dim=0))


def test_reserved_markers_of_a_checkpoint_are_left_as_they_are(build_with_unused, tmp_path):
    """Training again from it does not forget what they learnt; a model that is not ours gets the mean."""
    made = add_markers(build_with_unused, "reserved")
    model = load_model(ModelConfig(model="tiny-llama"), build_with_unused, made, 32, 1).model
    with torch.no_grad():
        model.get_input_embeddings().weight[made.marker_ids[0]] += 1
    folder = save_checkpoint(tmp_path, "checkpoint-final", model, made, None)
    noted = json.loads((folder / MARKERS_NAME).read_text())
    assert noted == {"kind": "reserved", "marker_ids": list(made.marker_ids), "markers": [[i] for i in made.marker_ids]}
    options = ModelConfig(model=str(folder))
    from leia_beam.tokenizer_identity import find_tokenizer, identify

    values = {name: getattr(build_with_unused, name) for name in BuildTokenizer.__slots__}
    identity = identify(find_tokenizer(str(folder)))
    same = BuildTokenizer(**{**values, "fingerprint": identity.fingerprint})
    again = load_model(options, same, made, 32, 1).model
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    for name in ("leia_markers.json", "_COMPLETE"):
        (folder / name).unlink()
    fresh = load_model(options, same, made, 32, 1).model
    assert not torch.equal(fresh.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_text_markers_are_ordinary_tokens(build):
    """Any number of them, also of what looks like a special token; no row is added or changed."""
    made = add_markers(build, "text", (" (", "</s>"))
    tokenizer = Tokenizer.from_buffer(build.tokenizer_json)
    assert made.marker_ids is None and made.tokenizer_json == build.tokenizer_json
    assert tokenizer.decode(list(made.markers[0])) == " ("
    assert tokenizer.decode(list(made.markers[1])) == "</s>" and build.eos_id not in made.markers[1]


@pytest.mark.parametrize(
    ("kind", "texts", "message"),
    [
        ("reserved", (), "has no two tokens that are called unused or reserved"),
        ("reserved", ("<s>", "<nothing>"), "--marker-text <nothing>: not a token"),
        ("reserved", ("<s>", "<s>"), "must be two different tokens"),
    ],
)
def test_markers_that_cannot_be_are_refused(build, kind, texts, message):
    """With what to do."""
    with pytest.raises(UsageError, match=message):
        add_markers(build, kind, texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"markers": "text"}, r"--marker-text \[\]: must be two texts"),
        ({"markers": "reserved", "marker_text": ("a",)}, r"--marker-text \['a'\]: must be two tokens, or none"),
        ({"marker_text": ("a", "b")}, "must be given with --markers text or reserved alone"),
    ],
)
def test_marker_texts_go_with_their_kind(options, message):
    """Checked before anything is read."""
    with pytest.raises(UsageError, match=message):
        DataConfig(shards=("-",), **options)


def test_the_padding_id_is_the_tokenizers_own_or_eos(build, tmp_path):
    """From its configuration; as text or as an added token's description."""
    assert padding_id(build) == build.eos_id
    values = {name: getattr(build, name) for name in BuildTokenizer.__slots__}
    for token in ("<s>", {"content": "<s>"}):
        config = json.dumps({"pad_token": token}).encode()
        assert padding_id(BuildTokenizer(**{**values, "config_json": config})) == 0
    folder = write_tokenizer(tmp_path / "none", eos=False)
    shutil.rmtree(folder)
    assert padding_id(BuildTokenizer(**{**values, "config_json": None, "eos_id": None})) is None
