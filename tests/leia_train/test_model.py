"""Models get rows for the markers, and tokenizers that are not the shards' are refused."""

import json
import shutil

import pytest
import torch
from shard_fixture import write_tokenizer
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.tokenizer_identity import PROBES
from leia_train.checkpoints import COMPLETE_NAME, save_checkpoint
from leia_train.config import ModelConfig
from leia_train.markers import add_markers
from leia_train.model import cast_weights, load_model
from leia_train.shard_folders import open_shards

MAX_LENGTH = 32


@pytest.fixture(scope="module")
def build(shards):
    """The tokenizer of the shards."""
    return open_shards([str(shards)])[0].tokenizer


def load(build, model="tiny-llama", markers="special", seed=1, **options):
    """A model as a run begins with it, and its tokenizer."""
    tokenizer = add_markers(build, markers)
    return load_model(ModelConfig(model=str(model), **options), build, tokenizer, MAX_LENGTH, seed), tokenizer


def rows_of(model):
    """Input and output embeddings."""
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


def save_llama(folder, vocabulary_size, tokenizer_folder, **options):
    """A Llama of some vocabulary in a folder, with a tokenizer beside it."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        **{"max_position_embeddings": MAX_LENGTH, **options},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    if tokenizer_folder is not None:
        shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    return folder


def test_the_rows_of_the_markers_are_the_mean_of_the_real_ones(build):
    """Input and output; float32; and the weights without markers are the same ones."""
    loaded, tokenizer = load(build)
    plain, _ = load(build, markers="none")
    size = build.vocabulary_size
    assert tokenizer.marker_ids == (size, size + 1)
    for rows, plain_rows in zip(rows_of(loaded.model), rows_of(plain.model)):
        assert rows.shape[0] == size + 2 and plain_rows.shape[0] == size
        assert torch.equal(rows[:size], plain_rows)
        for marker_id in tokenizer.marker_ids:
            torch.testing.assert_close(rows[marker_id], plain_rows.mean(dim=0))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_is_not_resized_and_its_padding_does_not_count(build, tmp_path, tokenizer_folder, tied):
    """The markers take padding rows; the mean is that of the tokenizer's ids alone; tied weights stay tied."""
    size = build.vocabulary_size
    folder = save_llama(tmp_path / "padded", size + 20, tokenizer_folder, tie_word_embeddings=tied)
    before = rows_of(AutoModelForCausalLM.from_pretrained(folder))
    loaded, tokenizer = load(build, folder)
    after = rows_of(loaded.model)
    assert (after[0].data_ptr() == after[1].data_ptr()) == tied
    for old, new in zip(before, after):
        assert new.shape == old.shape
        kept = [row for row in range(size + 20) if row not in tokenizer.marker_ids]
        assert torch.equal(new[kept], old[kept])
        torch.testing.assert_close(new[list(tokenizer.marker_ids)], old[:size].mean(dim=0).expand(2, -1))


def test_a_saved_checkpoint_loads_with_the_auto_classes(build, tmp_path):
    """The same weights; plain text has the build's ids; a marker is one token; training again leaves its row alone."""
    loaded, tokenizer = load(build)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[tokenizer.marker_ids[0]] += 1
    folder = save_checkpoint(tmp_path, "checkpoint-final", loaded.model, tokenizer, None)
    model, auto = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    plain = Tokenizer.from_buffer(build.tokenizer_json)
    assert [auto(text)["input_ids"] for text in PROBES] == [plain.encode(text).ids for text in PROBES]
    assert auto("<translate>", add_special_tokens=False)["input_ids"] == [tokenizer.marker_ids[0]]
    assert (auto.bos_token_id, auto.eos_token_id) == (0, build.eos_id)
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (0, build.eos_id)
    again, _ = load(build, folder)
    assert torch.equal(rows_of(again.model)[0], rows_of(loaded.model)[0])


def test_loaded_weights_lie_where_new_ones_would(build, tmp_path):
    """At multiples of 64 bytes, whatever the file's layout; tied ones stay one."""
    loaded, tokenizer = load(build)
    loaded.model.model.odd = torch.nn.Parameter(torch.ones(3))
    folder = save_checkpoint(tmp_path, "checkpoint-final", loaded.model, tokenizer, None)
    again, _ = load(build, folder)
    assert {weight.data_ptr() % 64 for weight in again.model.parameters()} == {0}
    mapped = AutoModelForCausalLM.from_pretrained(folder)
    assert {weight.data_ptr() % 64 for weight in mapped.parameters()} != {0}, "else this test shows nothing"


def test_a_damaged_checkpoint_of_ours_is_refused_as_a_model(build, tmp_path):
    """One flipped bit in its weights."""
    loaded, tokenizer = load(build)
    folder = save_checkpoint(tmp_path, "checkpoint-final", loaded.model, tokenizer, None)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedInput, match=r"model.safetensors: SHA-256 mismatch"):
        load(build, folder)
    (folder / COMPLETE_NAME).unlink()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedInput, match="damaged weights"):
        load(build, folder)


def test_a_model_with_another_tokenizer_is_refused(build, tmp_path):
    """Its vocabulary would read the shards' ids as other tokens."""
    other = write_tokenizer(tmp_path / "other", vocabulary_size=300)
    folder = save_llama(tmp_path / "model", 400, other)
    with pytest.raises(UsageError, match="is not the one that made the shards"):
        load(build, folder)


def test_a_tokenizer_that_encodes_otherwise_is_a_warning(build, tmp_path, tokenizer_folder):
    """The same vocabulary with another pre-tokenizer."""
    folder = save_llama(tmp_path / "model", 400, tokenizer_folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["pre_tokenizer"]["add_prefix_space"] = True
    (folder / "tokenizer.json").write_text(json.dumps(content))
    loaded, _ = load(build, folder)
    (warning,) = loaded.warnings
    ids = [Tokenizer.from_file(str(place / "tokenizer.json")).encode(PROBES[0], add_special_tokens=False).ids
           for place in (folder, tokenizer_folder)]  # fmt: skip
    assert ids[0] != ids[1]
    assert f"encodes otherwise: {PROBES[0]!r} is {ids[0]} with it, {ids[1]} in the shards" in warning


def test_a_model_without_a_tokenizer_is_a_warning(build, tmp_path):
    """It is said that nothing was compared."""
    loaded, _ = load(build, save_llama(tmp_path / "model", 400, None))
    assert "not checked" in loaded.warnings[0]


def test_a_loss_of_routers_that_a_model_asks_for_is_said_not_to_be_added(build, tmp_path, tokenizer_folder):
    """By the configuration alone; no published one of those that transformers knows asks for it by default."""
    folder = save_llama(tmp_path / "model", 400, tokenizer_folder)
    assert load(build, folder)[0].warnings == ()
    content = json.loads((folder / "config.json").read_text())
    for asked, said in ((False, 0), (True, 1)):
        (folder / "config.json").write_text(json.dumps({**content, "output_router_logits": asked}))
        found = load(build, folder)[0].warnings
        assert len(found) == said and all("(output_router_logits), which is not added" in line for line in found)


def test_models_that_do_not_fit_are_refused(build, tmp_path, tokenizer_folder):
    """Too few embeddings, too few positions, no folder, no model in it, pickled weights only."""
    small = save_llama(tmp_path / "small", 100, tokenizer_folder)
    with pytest.raises(UsageError, match="100 embeddings, the shards' tokenizer has"):
        load(build, small)
    short = save_llama(tmp_path / "short", 400, tokenizer_folder, max_position_embeddings=16)
    with pytest.raises(UsageError, match=r"--max-length 32: .* has 16 positions"):
        load(build, short)
    with pytest.raises(UsageError, match="no such folder"):
        load(build, tmp_path / "missing")
    with pytest.raises(UsageError, match=r"no config.json"):
        load(build, tokenizer_folder)
    pickled = save_llama(tmp_path / "pickled", 400, tokenizer_folder)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UsageError, match="safetensors"):
        load(build, pickled)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_weights_in_bfloat16_leave_the_rotary_frequencies_as_they_are(family):
    """Those of whoever loads the model later are float32: a rounded one is another position."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}
    config = AutoConfig.for_model(family, **sizes, num_attention_heads=2, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cast_weights(model, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert any("inv_freq" in name for name in before)
    for name, buffer in model.named_buffers():
        assert buffer.dtype == before[name].dtype and torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("content", ["[]", '"x"', "null", "{}", "{", "\xff"])
def test_a_configuration_that_is_none_is_one_line(content, build, tokenizer_folder, tmp_path):
    """Valid JSON or not."""
    folder = save_llama(tmp_path / "model", 400, tokenizer_folder)
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"^--model \S+model: ") as raised:
        load(build, folder)
    assert "\n" not in str(raised.value)
