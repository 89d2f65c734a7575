"""Processes that hold a model in DeepSpeed's parts train as one does, and go on from the checkpoints of every other way."""

import importlib.util
import json
import os
from dataclasses import replace

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from counting_runs import SMALL_BUFFERS, counted, said, write_launch
from safetensors.torch import load_file
from test_sharding import (  # noqa: F401, fixtures too
    FLAGS,
    HALF,
    RECIPES,
    config_of,
    experts,
    exported_from_parts,
    launched_by,
    run_all,
    same,
    tied,
)

from leia_beam.errors import MissingResource, UsageError
from leia_train import asked_parallelism
from leia_train.asked_parallelism import ZeroSettings, asked_zero
from leia_train.parts_memory import ZERO_DEFAULTS

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None and not os.environ.get("LEIA_DEEPSPEED_REQUIRED"),
    reason="deepspeed is not installed (pip install 'leia-lm[deepspeed]')",
)
TOLD = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
"""What accelerate's launcher would tell the processes."""
SMALL = {
    "stage": 3,
    "stage3_param_persistence_threshold": 0,
    "stage3_prefetch_bucket_size": 64,
    "reduce_bucket_size": 512,
}
"""No weight stays gathered, few are gathered ahead, and gradients are summed in several parts."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shards, tied, experts):  # noqa: F811
    """All runs of this module's tests, in two processes: the folder that they are in, and what was said."""
    folder = tmp_path_factory.mktemp("zero3")
    (folder / "small.json").write_text(json.dumps({"zero_optimization": SMALL, "gradient_clipping": "auto"}))

    def arguments(name, *more):
        flags = ["train", "--shards", shards, "--output", folder / name, "--model", "tiny-llama", "--device", "cpu"]
        flags += ["--tiny-hidden-size", 16, "--tiny-intermediate-size", 32, "--tiny-heads", 2, "--tiny-kv-heads", 1]
        flags += ["--max-length", 24, "--learning-rate", 1e-2, "--warmup", 1, "--validation-share", 0.3]
        return [*flags, "--tracker", "none", *FLAGS, *more]

    def half(of, name):
        return [str(folder / of), str(folder / name), HALF]

    zero = {**TOLD, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(folder / "small.json")}
    of_tied = ("--model", tied, "--steps", 4, "--save-every", 2, "--loss-chunk", 8)
    of_tied += ("--activation-checkpointing", "full", "--activation-offload")
    of_tied += ("--learning-rate", 1e-3, "--marker-learning-rate", 5e-3, "--no-marker-logits", "--clip", 0.5)
    of_experts = ("--model", experts, "--steps", 4, "--save-every", 2, "--learning-rate", 1e-3)
    of_experts += ("--activation-checkpointing", "full", "--activation-offload")
    rounded = (*of_tied, "--dtype", "bfloat16")
    middle = [str(folder / "rounded two"), str(folder / "rounded again"), "checkpoint-00000002"]
    listed = [
        {"processes": 1, "arguments": arguments("one")},
        {"processes": 2, "arguments": arguments("two"), "environment": zero, "at": [10, 1, "stop"]},
        {"processes": 2, "arguments": arguments("two"), "environment": TOLD},
        {"processes": 2, "arguments": arguments("to parts", "--shard-model"), "copy": half("two", "to parts")},
        {"processes": 2, "arguments": arguments("parts to"), "copy": half("to parts", "parts to"), "environment": zero},
        {"processes": 2, "arguments": arguments("one to"), "copy": half("one", "one to"), "environment": zero},
        {"processes": 1, "arguments": arguments("to one"), "copy": half("two", "to one")},
        {"processes": 2, "arguments": arguments("bad", "--save-every", 5), "environment": zero, "at": [8, 1, "poison"]},
        {"processes": 2, "arguments": arguments("bad"), "environment": zero},
        {"processes": 1, "arguments": arguments("tied one", *of_tied)},
        {"processes": 2, "arguments": arguments("tied two", *of_tied), "environment": zero},
        {"processes": 2, "arguments": arguments("tied kept", *of_tied), "environment": TOLD},
        {"processes": 1, "arguments": arguments("experts one", *of_experts)},
        {"processes": 2, "arguments": arguments("experts two", *of_experts), "environment": zero},
        {"processes": 1, "arguments": arguments("rounded one", *rounded)},
        {"processes": 2, "arguments": arguments("rounded two", *rounded), "environment": zero},
        {"processes": 2, "arguments": arguments("rounded again", *rounded), "copy": middle, "environment": zero},
    ]
    codes, said = run_all(folder, 2, listed)
    expected = ["0", "75", *["0"] * 5, "1", *["0"] * 9]
    assert codes[0] == expected, said[0][-6000:]
    assert codes[1] == [code if run["processes"] > 1 else "-" for code, run in zip(expected, listed, strict=True)]
    # DeepSpeed keeps the groups of a process's first run: another number of processes is other ones.
    three = {"processes": 3, "arguments": arguments("to three"), "copy": half("two", "to three"), "environment": zero}
    (folder / "three").mkdir()
    codes, of_three = run_all(folder / "three", 3, [three])
    assert codes == [["0"]] * 3, of_three[0][-6000:]
    return folder, said


@needs_deepspeed
@pytest.mark.parametrize(
    "name",
    ["two", "to parts", "parts to", "one to", "to one", "to three", "bad", "tied two", "tied kept", "experts two"],
)
def test_a_model_in_deepspeeds_parts_trains_as_a_whole_one(runs, name):
    """Twenty steps with a resume in between, to and from FSDP2 and one process, and after a bad step; tied embeddings,
    recomputation, clipping, the markers' own rate, small weights kept gathered or not; experts."""
    kind = name.partition(" ")[0]
    same(runs[0] / (f"{kind} one" if kind in ("tied", "experts") else "one"), runs[0] / name)


@needs_deepspeed
def test_bfloat16_in_deepspeeds_parts_is_that_of_one_process_up_to_rounding(runs, tied):  # noqa: F811
    """The linear layers compute and sum their gradients in it; weights and the final model are float32."""
    same(runs[0] / "rounded one", runs[0] / "rounded two", limit=1e-4, of_norms=2e-3, of_weights=4e-3)
    start = load_file(tied / "model.safetensors")
    one, two, again = (
        load_file(runs[0] / f"rounded {name}" / "checkpoint-final/model.safetensors")
        for name in ("one", "two", "again")
    )
    for name, was in start.items():
        rows = len(was)
        moved, other = one[name][:rows] - was.float(), two[name][:rows] - was.float()
        assert (moved - other).norm() < 0.03 * moved.norm(), name
        assert torch.equal(two[name], again[name]), name
    weights = load_file(runs[0] / "rounded two/checkpoint-final/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert "lm_head.weight" not in weights


@needs_deepspeed
def test_deepspeed_says_nothing_between_our_lines(runs):
    """And ours are said once; a bad step names the process that has the rows, and leaves the weights."""
    folder, said = runs
    assert "each of 2 processes holds a part of the weights (DeepSpeed ZeRO-3)" in said[0]
    assert "step 8, process 1, rows" in said[0] and "the weights were not changed" in said[0]
    assert "holds a part" not in said[1]
    for text in said:
        assert not [
            line for line in text.splitlines() if "[WARNING]" in line or "[INFO]" in line or "Traceback" in line
        ]
    for name in ("config.json", "generation_config.json", "tokenizer.json", "leia_markers.json"):
        one, two = (folder / run / "checkpoint-final" / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


@needs_deepspeed
def test_a_checkpoint_of_deepspeeds_parts_is_torchs_own_form(runs, tmp_path):
    """Read by torch's reader and by ours; no process has written all of it; it exports as any other."""
    exported_from_parts(runs[0] / "two" / HALF, tmp_path)


@needs_deepspeed
@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (3, ()),
        (2, ("--dtype", "bfloat16")),
        (2, ("--dtype", "bfloat16", "--activation-checkpointing", "full")),
        (2, ("--dtype", "bfloat16", "--tiny-layers", 1, "--tiny-hidden-size", 32, "--tiny-intermediate-size", 64)),
    ],
    ids=["float32", "bfloat16", "recomputed", "tiny"],
)
def test_a_plan_says_what_deepspeeds_engine_holds(tmp_path, shards, processes, flags):
    """Counted in each process: what is held to the last thousandth; buckets count whole, used or not. The peak within a twelfth,
    in the process where it is least: what waits for the others is held longer, but what the code keeps is in all of them.
    """
    file, told = write_launch(tmp_path, processes, SMALL_BUFFERS)
    parts = said(tmp_path, shards, processes, *flags, file=file)
    begin = parts["weights"] + parts["gradients"] + parts["buckets"]
    found = counted(tmp_path / "counted", shards, processes, *flags, told=told)
    for of_process in found:
        assert of_process["begin"] == pytest.approx(begin, rel=1e-3, abs=20_000)
        assert of_process["after"] == pytest.approx(begin + parts["optimizer"], rel=1e-3, abs=60_000)
    if "--tiny-layers" not in flags:  # where rows and Python's own tensors are nothing beside the weights
        peak = min(of_process["peak"] for of_process in found)
        assert peak == pytest.approx(sum(parts.values()), rel=1 / 12)


@needs_deepspeed
def test_the_sizes_that_a_plan_takes_for_deepspeeds_own_are_its_own():
    """Of the version that is installed."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    made = DeepSpeedZeroConfig(stage=3)
    for name, size in ZERO_DEFAULTS.items():
        assert getattr(made, name.removeprefix("stage3_")) == size, name


def test_accelerates_own_loader_takes_the_recipe_and_we_take_what_it_says(monkeypatch):
    """As `accelerate launch --config_file` does: eight processes, stage 3; a second time nothing is asked any more."""
    args, defaults = launched_by(RECIPES / "accelerate/zero3-8gpu.yaml", monkeypatch)
    assert isinstance(defaults, ClusterConfig) and args.use_deepspeed and args.num_processes == 8
    monkeypatch.setattr(asked_parallelism.importlib.util, "find_spec", lambda name: object())
    assert asked_zero(config_of()) == ZeroSettings()
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ and asked_zero(config_of()) is None


def test_how_much_is_exchanged_when_is_taken_from_deepspeeds_own_file(monkeypatch, tmp_path):
    """But for what is left to it."""
    given = {"stage": 3, "overlap_comm": False, "reduce_bucket_size": "auto", "offload_param": {"device": "none"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": given, "fp16": {"enabled": False}}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "ds.json"))
    monkeypatch.setattr(asked_parallelism.importlib.util, "find_spec", lambda name: object())
    assert asked_zero(config_of()) == ZeroSettings(tuning={"overlap_comm": False})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "zero_stage 2 is not supported here; give 3"),
        (
            {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"},
            "offload_param_device cpu is not supported here; give none",
        ),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, "offload_optimizer_device nvme is not"),
        ({"ACCELERATE_DEEPSPEED_CONFIG_FILE": "/not/there.json"}, "/not/there.json: no DeepSpeed configuration"),
    ],
)
def test_what_of_accelerates_configuration_is_not_done_is_refused(monkeypatch, change, message):
    """One line, and what to give instead."""
    for name, value in {**TOLD, **change}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        asked_zero(config_of())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"zero_optimization": {"stage": 3}, "fp16": {"enabled": True}}, "fp16 is not supported here; leave it out"),
        ({"zero_optimization": {"stage": 3}, "optimizer": {"type": "Adam"}}, "optimizer is not supported here"),
        (
            {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}},
            "zero_optimization.zero_hpz_partition_size is",
        ),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, "offload_param_device cpu is not"),
        ({"train_batch_size": 8}, "no DeepSpeed configuration with a zero_optimization"),
    ],
)
def test_what_of_deepspeeds_own_file_is_not_done_is_refused(monkeypatch, tmp_path, content, message):
    """Rather than dropped."""
    (tmp_path / "ds.json").write_text(json.dumps(content))
    for name, value in {**TOLD, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "ds.json")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        asked_zero(config_of())


def test_options_that_are_not_for_deepspeed_and_a_missing_package_are_told(monkeypatch):
    """One line each, before anything is read."""
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--shard-model with DeepSpeed: not supported here; it is FSDP2's"):
        asked_zero(config_of(shard_model=True))
    selective = config_of()
    selective = replace(selective, model=replace(selective.model, activation_checkpointing="selective"))
    with pytest.raises(UsageError, match=r"--activation-checkpointing selective with DeepSpeed: .* give full"):
        asked_zero(selective)
    monkeypatch.setattr(asked_parallelism.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingResource, match=r"pip install 'leia-lm\[deepspeed\]'\); FSDP2 \(--shard-model\) shards"):
        asked_zero(config_of())
