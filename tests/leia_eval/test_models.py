"""A checkpoint is loaded whole and as it is, or refused with a line that says why."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from eval_fixtures import save_tiny_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_eval import checkpoints, encoders, models


@pytest.fixture
def checkpoint(model_dir, tmp_path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def load(folder: Path):
    """All steps of loading."""
    checkpoints.identify_model(folder)
    return models.load_model(encoders.load_encoder(folder), dtype="float32", device="cpu", batch_size=2)


def test_what_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    """No folder, no configuration, no tokenizer, no weights: each is named."""
    with pytest.raises(UsageError, match="is not a folder"):
        checkpoints.identify_model(tmp_path / "none")
    for name, message in (
        ("model.safetensors", "holds no weights; looked for model.safetensors"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("config.json", "has no config.json"),
    ):
        (checkpoint / name).unlink()
        with pytest.raises(UsageError, match=message):
            checkpoints.identify_model(checkpoint)


def test_what_leia_train_makes_a_model_of_is_refused_with_what_to_give(checkpoint, tmp_path):
    """Weights in parts, and a run's folder with a final model and without one."""
    (checkpoint / "distributed").mkdir()
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=rf"weights in parts; leia-train export {checkpoint} makes a whole one$"):
        checkpoints.identify_model(checkpoint)
    run = tmp_path / "run"
    run.mkdir()
    (run / "_run.json").write_text("{}")
    with pytest.raises(
        UsageError, match=rf"a training run's folder, .* leia-train export {run} makes one of its newest"
    ):
        checkpoints.identify_model(run)
    (run / "checkpoint-final").mkdir()
    with pytest.raises(UsageError, match=rf"not a model; give {run}/checkpoint-final$"):
        checkpoints.identify_model(run)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_broken_description_is_refused(checkpoint, name):
    """A configuration or tokenizer that is no JSON."""
    (checkpoint / name).write_text("{")
    with pytest.raises(UsageError, match="cannot read the configuration or tokenizer"):
        load(checkpoint)


def test_a_model_of_another_kind_is_refused(checkpoint):
    """T5 answers no causal requests."""
    (checkpoint / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UsageError, match="'t5', which is no causal language model"):
        load(checkpoint)


def test_remote_code_is_never_run(checkpoint):
    """A configuration that wants its own code is refused, and the code is not imported."""
    (checkpoint / "evil.py").write_text(f"open({str(checkpoint / 'ran')!r}, 'w')\n")
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    with pytest.raises(
        UsageError, match=r"wants to run its own code \(evil.Evil; files: evil.py\), which this program"
    ):
        load(checkpoint)
    assert not (checkpoint / "ran").exists()


def test_a_weight_file_cut_short_is_damaged(checkpoint):
    """A truncated safetensors file is found before anything is loaded."""
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedInput, match=r"weight file .*model.safetensors is damaged"):
        checkpoints.identify_model(checkpoint)


def test_a_missing_weight_is_no_random_weight(checkpoint):
    """transformers would fill it with random numbers: refused, with its name."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(DamagedInput, match=r"lack model.layers.1.mlp.up_proj.weight and 0 more"):
        load(checkpoint)


def test_weights_of_another_shape_are_damaged(checkpoint):
    """A configuration that does not fit its weights."""
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    with pytest.raises(DamagedInput):
        load(checkpoint)


def test_sharded_weights_are_found_by_their_index(checkpoint):
    """Two files with an index load as one did; a file that the index names and the folder lacks is damage."""
    whole = load(checkpoint).model.state_dict()
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, checkpoint / file, {"format": "pt"})
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert checkpoints.identify_model(checkpoint).weight_files == tuple(sorted(parts))
    sharded = load(checkpoint).model.state_dict()
    assert all(torch.equal(whole[key], sharded[key]) for key in whole)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DamagedInput, match=r"names model-00002-of-00002.safetensors, which is not in the folder"):
        checkpoints.identify_model(checkpoint)


def test_tied_embeddings_are_not_missing(tmp_path):
    """A checkpoint that stores one matrix for input and output loads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = save_tiny_model(tmp_path / "tied", seed=0)
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load(folder)


def test_the_fingerprint_follows_the_weights_and_not_the_place(checkpoint, model_dir):
    """A copy has the fingerprint of its origin; one changed bit has another."""
    assert checkpoints.identify_model(checkpoint).weights_sha256 == checkpoints.identify_model(model_dir).weights_sha256
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert checkpoints.identify_model(checkpoint).weights_sha256 != checkpoints.identify_model(model_dir).weights_sha256


def test_what_else_decides_a_text_is_in_the_fingerprint(checkpoint):
    """A penalty in generation_config.json, or another end token, is another model to the cache; a library's version not."""
    before = checkpoints.identify_model(checkpoint)
    path = checkpoint / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "transformers_version": "0.0"}))
    assert checkpoints.identify_model(checkpoint) == before
    path.write_text(json.dumps({**config, "repetition_penalty": 1.5}))
    other = checkpoints.identify_model(checkpoint).settings_sha256
    path.write_text(json.dumps(config))
    tokenizer = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "eos_token": "<s>"}))
    assert len({before.settings_sha256, other, checkpoints.identify_model(checkpoint).settings_sha256}) == 3


def greedy(folder: Path, ids: list[int], n: int) -> list[int]:
    """The likeliest next token, n times, by whole forward passes in double precision."""
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    for _ in range(n):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-n:]


def test_texts_are_greedy_whatever_stands_beside_them_in_a_batch(model_dir):
    """Contexts of several lengths, padded together: each goes on as alone, by an independent loop."""
    encoder = encoders.load_encoder(model_dir)
    model = models.load_model(encoder, dtype="float32", device="cpu", batch_size=4)
    contexts = [
        encoder.encode_prompt(text) for text in ("kasa", "Question: 東京 kata tana?\nAnswer:", "ta", "sasasasa ki")
    ]
    assert len(set(map(len, contexts))) > 2
    written = model.generate(contexts, (), 12)
    for context, answer in zip(contexts, written, strict=True):
        ids = greedy(model_dir, context, 12)
        ended = 1 in ids
        assert answer.ended == ended
        assert answer.text == encoder.tokenizer.decode(ids[: ids.index(1)] if ended else ids)


def test_a_text_ends_at_a_stop_string_or_at_eos_and_else_is_cut(model_dir):
    """The stop string is taken from the text itself; EOS is made the likeliest token; neither: not ended."""
    encoder = encoders.load_encoder(model_dir)
    model = models.load_model(encoder, dtype="float32", device="cpu", batch_size=1)
    (whole,) = model.generate([encoder.encode_prompt("kasa")], (), 12)
    stop = whole.text[3:5]
    (cut,) = model.generate([encoder.encode_prompt("kasa")], ("never", stop), 12)
    assert (cut.text, cut.ended) == (whole.text[: whole.text.index(stop)], True)
    assert not whole.ended
    ids = encoder.encode_prompt("kasa")
    with torch.no_grad():  # the output layer answers EOS to what it sees after this prompt, and is silent else
        seen = model.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        model.model.lm_head.weight[:] = 0.0
        model.model.lm_head.weight[1] = seen
    (ended,) = model.generate([ids], (), 5)
    assert (ended.text, ended.ended) == ("", True)


def test_the_reference_profile_begins_no_text_with_bos(model_dir):
    """Prompts to be continued too; the standard profile begins as tokenizer.json does."""
    standard, reference = (encoders.load_encoder(model_dir, profile) for profile in ("standard", "reference"))
    assert standard.encode_prompt("kasa") == [0, *reference.encode_prompt("kasa")]
    assert 0 not in reference.encode_prompt("kasa")


def test_token_ids_are_those_of_tokenizer_json(model_dir):
    """The loaded tokenizer encodes as the tokenizers library does, document start included."""
    encoder = encoders.load_encoder(model_dir)
    raw = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    for text in ("Question: a  two\nAnswer:", "東京 は  日本", " x</s>y", "kasa\u3000tana"):
        assert encoder.tok_encode(text) == raw.encode(text).ids
    assert encoder.max_length == 512


def test_devices_that_are_not_there(monkeypatch):
    """A name that is none is usage; a device that this machine lacks is its environment."""
    with pytest.raises(UsageError, match="--device qpu is no device"):
        models.check_device("qpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MissingResource, match="--device cuda:1: this machine has 1 CUDA devices"):
        models.check_device("cuda:1")
    assert models.check_device("cuda").type == "cuda"


def test_token_ids_of_mistrals_tokenizer_are_not_changed(tmp_path):
    """AutoTokenizer of transformers 5 gives a Llama with this tokenizer.json other ids where a text holds `</s>`."""
    source = Path(__file__).parents[3] / "shared/data/tokenizers/mistral-7b-v0.1"
    if not source.is_dir():
        pytest.skip(f"needs the real tokenizer at {source}")
    shutil.copytree(source, tmp_path / "m")
    (tmp_path / "m/config.json").write_text('{"model_type": "llama", "vocab_size": 32000}')
    raw = Tokenizer.from_file(str(source / "tokenizer.json"))
    encoder = encoders.load_encoder(tmp_path / "m")
    for text in (" x</s>y", "Question: 東京  は?\nAnswer:"):
        assert encoder.tok_encode(text) == raw.encode(text).ids
