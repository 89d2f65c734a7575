"""Whether a run fits on a GPU, what would make it fit, and how long it takes."""

import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leia_beam.errors import UsageError
from leia_train.cli import main
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.estimates import cheapest_fit, fits, needed_bytes, training_seconds
from leia_train.gpus import GPUS, Gpu, gpu_named, parse_gpus
from leia_train.memory import memory_bytes

SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
H200 = next(gpu for gpu in GPUS if gpu.name == "H200")


@pytest.fixture(scope="module")
def llama_7b():
    """The sizes of Llama 2 with 7 billion weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES))


def make_config(*, batch=2048, nproc=1, **model):
    """A run in bfloat16."""
    return TrainConfig(
        data=DataConfig(shards=("shards",)),
        model=ModelConfig(model="model", dtype="bfloat16", **model),
        optimization=OptimizationConfig(batch=batch, micro_batch=4),
        run=RunConfig(output="run", nproc=nproc),
    )


@pytest.mark.parametrize("memory_gb", [24, 48, 64, 80, 96, 141, 180, 1000])
@pytest.mark.parametrize("nproc", [1, 8])
def test_the_cheapest_fit_fits_and_with_fewer_changes_nothing_does(llama_7b, memory_gb, nproc):
    """Each change is left out in turn."""
    gpu = Gpu(name="X", tflops=1.0, memory_gb=memory_gb)
    config = make_config(nproc=nproc)
    found = cheapest_fit(config, llama_7b, gpu)
    as_it_is = needed_bytes(config, llama_7b, gpu)
    assert (not found.flags) == fits(as_it_is, gpu)
    assert found.size_bytes <= as_it_is
    if not fits(found.size_bytes, gpu):
        assert len(found.flags) == 4 + (nproc > 1)
        return
    values = {
        "--share-optimizer": ("run", {"share_optimizer": True}),
        "--shard-model": ("run", {"shard_model": True}),
        "--micro-batch 1": ("optimization", {"micro_batch": 1}),
        "--activation-checkpointing selective": ("model", {"activation_checkpointing": "selective"}),
        "--activation-checkpointing full": ("model", {"activation_checkpointing": "full"}),
        "--activation-offload": ("model", {"activation_offload": True}),
        "--weights bfloat16": ("model", {"weights": "bfloat16"}),
    }
    for left_out in ("", *found.flags):
        if left_out == "--activation-checkpointing full" and "--activation-offload" in found.flags:
            continue  # which needs it
        changed = config
        for flag in found.flags:
            if flag != left_out:
                section, options = values[flag]
                changed = replace(changed, **{section: replace(getattr(changed, section), **options)})
        assert fits(needed_bytes(changed, llama_7b, gpu), gpu) == (left_out == "")


def test_the_time_of_seven_billion_weights_is_that_which_was_measured(llama_7b):
    """6,957 tokens/s on one H200 with recomputed activations and steps of 8 rows: within a fifth."""
    config = make_config(batch=8, activation_checkpointing="full")
    seconds = training_seconds(config, llama_7b, H200, steps=10, processes=1, mean_segment=600)
    assert 10 * 8 * 2048 / seconds == pytest.approx(6957, rel=0.2)
    halved = training_seconds(config, llama_7b, H200, steps=10, processes=2, mean_segment=600)
    assert seconds / 2 < halved < seconds  # the update is not shared
    compiled = make_config(batch=8, compile=True)
    assert training_seconds(compiled, llama_7b, H200, steps=10, processes=1, mean_segment=600) < seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8xH100", (8, "H100")),
        ("h200", (None, "H200")),
        ("2 x RTX 4090", (2, "RTX 4090")),
        ("1xrtx4090", (1, "RTX 4090")),
    ],
)
def test_gpus_are_given_as_a_number_and_a_name(text, expected):
    """In any case."""
    count, gpu = parse_gpus(text)
    assert (count, gpu.name) == expected
    assert gpu_named(f"NVIDIA {gpu.name} 80GB") == gpu


@pytest.mark.parametrize("text", ["H10", "0xH100", "", "8x", "xH100"])
def test_what_is_no_gpu_is_told_with_those_that_are(text):
    """Exit 2."""
    with pytest.raises(UsageError, match=rf"--gpus {text}: (no GPU at all; give a number|'.*' is none of A100, )"):
        parse_gpus(text)


def test_a_plan_for_other_gpus_says_what_fits_and_how_long_it_takes(arguments, tmp_path, capsys):
    """Without such GPUs; the number of processes is theirs."""
    AutoConfig.for_model("llama", **SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path / "model")
    given = ["plan", *arguments("--model", tmp_path / "model", "--dtype", "bfloat16", "--gpus", "8xH100")[1:]]
    given += ["--batch", "16", "--max-length", "2048"]
    assert main(given) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "a process on H100 (weights 25." in lines["memory"]
    assert re.search(
        r"does not fit \(70\.0 GiB of H100 can be had\); with --shard-model it takes about \d", lines["warning"]
    )
    assert re.search(r"about [\d.]+ (s|min|h) on 8 x H100, [\d,]+ tokens/s, at 34% of the peak", lines["time"])
    assert lines["processes"].split()[1:3] == ["8,", "2"]
    assert "attention" not in lines  # which depends on what is installed there
    assert main([*given, "--nproc", "4", "--gpus", "H200"]) == 0
    said = capsys.readouterr().out
    assert "on 4 x H200" in said and main([*given, "--gpus", "8xH1000"]) == 2


def test_a_model_in_parts_fits_where_a_whole_one_does_not(llama_7b):
    """Eight GPUs of 80 GB hold 7 billion weights in float32 in parts, 16 bytes of each by eight, with what is gathered."""
    gpu = Gpu(name="X", tflops=989.0, memory_gb=80)
    whole = make_config(nproc=8, activation_checkpointing="full")
    parts = replace(whole, run=replace(whole.run, shard_model=True))
    assert not fits(needed_bytes(whole, llama_7b, gpu), gpu)
    assert fits(needed_bytes(parts, llama_7b, gpu), gpu)
    found, before = (memory_bytes(config, llama_7b, gpu.memory_bytes) for config in (parts, whole))
    weights = sum(weight.numel() for weight in llama_7b.parameters())
    assert sum(found[name] for name in ("weights", "gradients", "optimizer")) == pytest.approx(2 * weights, rel=1e-6)
    assert found["activations"] == before["activations"] and "gathered" not in before
    embeddings, layer = 2 * 32_000 * 4096, (weights - 2 * 32_000 * 4096) / 32
    assert found["gathered"] == pytest.approx(12 * embeddings + 10 * layer, rel=1e-3)
    assert cheapest_fit(whole, llama_7b, replace(gpu, memory_gb=48)).flags == ("--shard-model",)
    alone = replace(parts, run=replace(parts.run, nproc=1))
    assert "gathered" not in memory_bytes(alone, llama_7b, gpu.memory_bytes)
