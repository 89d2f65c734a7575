"""A model that is read in the type of its training is, bit for bit, the one that is read in float32 and cast."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leia_beam.errors import DamagedInput
from leia_beam.manifest import read_manifest
from leia_train import typed_model
from leia_train.lora import add_adapter, fingerprint
from leia_train.markers import add_markers
from leia_train.model import load_model
from leia_train.model_config import ModelConfig
from leia_train.shard_folders import read_build_tokenizer
from leia_train.typed_model import load_typed

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = {
    "llama": {**SMALL, "num_key_value_heads": 1},
    "gpt_neox": SMALL,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "gemma3_text": {**SMALL, "num_key_value_heads": 1, "head_dim": 16},
}
"""The last two have buffers and layers of their own: masks, Conv1D, a scale of the embeddings."""
MIXTRAL = {**SMALL, "num_key_value_heads": 1, "num_local_experts": 3, "num_experts_per_tok": 2}


@pytest.fixture(scope="module")
def build(shards):
    """The tokenizer of the shards."""
    return read_build_tokenizer(shards, read_manifest(shards))


def write_model(folder, tokenizer_folder, kind, sizes, dtype, *, tied=False, rows=330):
    """Random weights with real ids in their first rows, and the shards' tokenizer beside them."""
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, vocab_size=rows, tie_word_embeddings=tied, **sizes)
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder, max_shard_size="60KB")
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    return folder


def both(folder, build, kind="special", texts=()):
    """As it is read now, and as load_model reads and casts it."""
    tokenizer = add_markers(build, kind, texts)
    options = ModelConfig(model=str(folder), dtype="bfloat16", weights="bfloat16", lora=4)
    return (*(load(options, build, tokenizer, 24, 1) for load in (load_typed, load_model)), tokenizer, options)


def assert_same(one, other):
    """Weights and buffers, of the same types and bits; what is said; the configuration."""
    for kind in ("named_parameters", "named_buffers"):
        first, second = (dict(getattr(loaded.model, kind)()) for loaded in (one, other))
        assert list(first) == list(second)
        for name, tensor in first.items():
            assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name
    assert one.warnings == other.warnings and one.model.training == other.model.training
    assert one.model.config.to_dict() == other.model.config.to_dict()
    assert one.model.generation_config.to_dict() == other.model.generation_config.to_dict()


@pytest.mark.parametrize(
    ("kind", "tied", "dtype"),
    [
        ("llama", False, torch.bfloat16),
        ("llama", True, torch.float16),
        ("llama", False, torch.float32),
        ("gemma3_text", True, torch.float32),
        ("gpt2", True, torch.bfloat16),
        ("gpt_neox", False, torch.float16),
    ],
    ids=str,
)
def test_what_is_read_in_bfloat16_is_what_is_read_in_float32_and_cast(
    tmp_path, tokenizer_folder, build, kind, tied, dtype, monkeypatch
):
    """Of models whose files are in any type, with rows that the markers get; then the frozen weights' fingerprint too."""
    folder = write_model(tmp_path / "model", tokenizer_folder, kind, KINDS[kind], dtype, tied=tied)
    one, other, tokenizer, options = both(folder, build)
    assert_same(one, other)
    assert len(one.model.get_input_embeddings().weight) >= tokenizer.needed_rows
    assert {weight.dtype for weight in one.model.parameters()} == {torch.bfloat16}
    if kind in ("llama", "gemma3_text"):  # the others' files have other names
        monkeypatch.setattr(typed_model, "load_model", lambda *given: pytest.fail("it was read in float32"))
        assert load_typed(options, build, tokenizer, 24, 1).model is not one.model
    for loaded in (one, other):
        add_adapter(loaded.model, options, tokenizer.marker_ids, 1)
    assert fingerprint(one.model) == fingerprint(other.model)


@pytest.mark.parametrize(("kind", "texts"), [("reserved", ("Ā", "ā")), ("none", ()), ("text", ("(", ")"))])
def test_markers_of_every_kind_get_the_same_rows(tmp_path, tokenizer_folder, build, kind, texts):
    """Within the vocabulary, or none at all; the model has more rows than the tokenizer, which are in no mean."""
    folder = write_model(tmp_path / "model", tokenizer_folder, "llama", KINDS["llama"], torch.float32, rows=400)
    assert_same(*both(folder, build, kind, texts)[:2])


def test_a_checkpoint_of_our_own_keeps_its_markers_rows(arguments, tmp_path, build):
    """They are no means any more."""
    from leia_train.cli import main

    assert main(arguments("--quiet", "--steps", 2)) == 0
    for name in ("checkpoint-final", "checkpoint-00000001"):
        one, other, tokenizer, _ = both(tmp_path / "run" / name, build)
        assert_same(one, other)
        rows = one.model.get_input_embeddings().weight[list(tokenizer.marker_ids)]
        assert not torch.equal(rows[0], rows[1])


def test_experts_that_lie_otherwise_in_files_are_read_in_float32(tmp_path, tokenizer_folder, build):
    """As before, and cast."""
    folder = write_model(tmp_path / "model", tokenizer_folder, "mixtral", MIXTRAL, torch.bfloat16)
    assert_same(*both(folder, build)[:2])


def test_a_damaged_file_is_told(tmp_path, tokenizer_folder, build):
    """One line, with its name."""
    folder = write_model(tmp_path / "model", tokenizer_folder, "llama", KINDS["llama"], torch.bfloat16)
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DamagedInput, match=path.name):
        both(folder, build)


def test_a_models_own_types_of_numbers_are_noted_as_before(tmp_path, tokenizer_folder, build):
    """What config.json says of the type is that of the reading in float32, which a final model is written in."""
    folder = write_model(tmp_path / "model", tokenizer_folder, "llama", KINDS["llama"], torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    one, other, *_ = both(folder, build)
    assert one.model.config.dtype == other.model.config.dtype == torch.float32
