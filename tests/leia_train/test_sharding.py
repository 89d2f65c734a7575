"""Processes that hold a model in parts train as one does, go on from each other's checkpoints, and export what one exports."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from accelerate.commands import launch
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from leia_beam.errors import DamagedInput, UsageError
from leia_train import sharded_checkpoints
from leia_train.asked_parallelism import Sharding, asked_sharding
from leia_train.checkpoints import newest_checkpoint, step_checkpoints
from leia_train.cli import main
from leia_train.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrainConfig
from leia_train.metrics import read_metrics
from leia_train.sharding import layers_of
from leia_train.tensor_files import TensorFiles, TensorWriter

pytestmark = pytest.mark.processes
HERE = Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "recipes"
FLAGS = ("--batch", 6, "--micro-batch", 2, "--steps", 20, "--save-every", 10, "--tiny-layers", 2)
LIMIT_S = 1800
"""Of many runs one after the other, on a loaded machine too."""
CODE = "exit code "
TOLD = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "false",
}
"""What accelerate's launcher would tell the processes: layers stay gathered until their backward pass."""
HALF = "checkpoint-00000010"


def environment(rank):
    """Ours, with one thread a process, so that sums are in one order."""
    return {
        **os.environ,
        "RANK": str(rank),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parents[1]),
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1",
    }


def run_all(folder, processes, runs):
    """The runs' exit codes and what was said, by process."""
    for number, run in enumerate(runs):
        run["rendezvous"] = str(folder / f"rendezvous-{number}")
        run["arguments"] = [str(argument) for argument in run["arguments"]]
    (folder / "runs.json").write_text(json.dumps(runs))
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"said-{rank}").open("w+")) for rank in range(processes)]
        started = [
            subprocess.Popen(
                [sys.executable, str(HERE / "sharded_runs.py"), str(folder / "runs.json")],
                env=environment(rank),
                stdout=files[rank],
                stderr=subprocess.STDOUT,
            )
            for rank in range(processes)
        ]
        end = time.monotonic() + LIMIT_S
        while any(process.poll() is None for process in started):
            time.sleep(0.1)
            if time.monotonic() > end or any(process.poll() for process in started):
                for process in started:  # the others would wait for one that failed
                    try:
                        process.wait(timeout=20)
                    except subprocess.TimeoutExpired:
                        process.kill()
    said = [(folder / f"said-{rank}").read_text() for rank in range(processes)]
    codes = [[line.removeprefix(CODE) for line in text.splitlines() if line.startswith(CODE)] for text in said]
    return codes, said


def vocabulary_of(tokenizer_folder):
    """How many ids a tokenizer has."""
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    return len(vocabulary) + sum(token["content"] not in vocabulary for token in content["added_tokens"])


def write_model(model, folder, tokenizer_folder):
    """A model's folder in Hugging Face's form, with the tokenizer of the shards."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_folder / name, folder / name)
    return folder


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def tied(tmp_path_factory, tokenizer_folder):
    """A model with one matrix for both embeddings and no rows for markers, in bfloat16."""
    torch.manual_seed(3)
    rows = vocabulary_of(tokenizer_folder)
    config = LlamaConfig(vocab_size=rows, num_hidden_layers=3, tie_word_embeddings=True, **SIZES)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    return write_model(model, tmp_path_factory.mktemp("tied") / "model", tokenizer_folder)


@pytest.fixture(scope="module")
def experts(tmp_path_factory, tokenizer_folder):
    """A mixture of five experts, which transformers has stacked in memory and apart in its files."""
    torch.manual_seed(4)
    config = Qwen3MoeConfig(
        vocab_size=vocabulary_of(tokenizer_folder),
        num_hidden_layers=2,
        num_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        head_dim=8,
        **SIZES,
    )
    return write_model(Qwen3MoeForCausalLM(config), tmp_path_factory.mktemp("experts") / "model", tokenizer_folder)


@pytest.fixture(scope="module")
def neox(tmp_path_factory, tokenizer_folder):
    """A model with LayerNorm and biases."""
    torch.manual_seed(5)
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    config = GPTNeoXConfig(vocab_size=vocabulary_of(tokenizer_folder), num_hidden_layers=2, **sizes)
    return write_model(GPTNeoXForCausalLM(config), tmp_path_factory.mktemp("neox") / "model", tokenizer_folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shards, tied, experts, neox):
    """All runs of this module's tests, in three processes: the folder that they are in, and what was said."""
    folder = tmp_path_factory.mktemp("sharded")

    def arguments(name, *more):
        flags = ["train", "--shards", shards, "--output", folder / name, "--model", "tiny-llama", "--device", "cpu"]
        flags += ["--tiny-hidden-size", 16, "--tiny-intermediate-size", 32, "--tiny-heads", 2, "--tiny-kv-heads", 1]
        flags += ["--max-length", 24, "--learning-rate", 1e-2, "--warmup", 1, "--validation-share", 0.3]
        return [*flags, "--tracker", "none", *FLAGS, *more]

    def half(of, name):
        return [str(folder / of), str(folder / name), HALF]

    parts = "--shard-model"
    of_tied = ("--model", tied, "--steps", 4, "--save-every", 2, "--loss-chunk", 8)
    of_tied += ("--activation-checkpointing", "full", "--activation-offload")
    of_tied += ("--learning-rate", 1e-3, "--marker-learning-rate", 5e-3, "--no-marker-logits")
    of_experts = ("--model", experts, "--steps", 4, "--save-every", 2, "--learning-rate", 1e-3)
    of_experts += ("--activation-checkpointing", "selective", "--activation-offload")
    rounded = (*of_tied, "--dtype", "bfloat16", "--weights", "bfloat16")
    of_neox = ("--model", neox, "--steps", 4, "--save-every", 2, "--learning-rate", 1e-3, "--dtype", "bfloat16")
    listed = [
        {"processes": 1, "arguments": arguments("one")},
        {"processes": 2, "arguments": arguments("two", parts), "at": [10, 1, "stop"]},
        {"processes": 2, "arguments": arguments("two", parts)},
        {"processes": 3, "arguments": arguments("two to three", parts), "copy": half("two", "two to three")},
        {"processes": 2, "arguments": arguments("one to two", parts), "copy": half("one", "one to two")},
        {"processes": 1, "arguments": arguments("two to one"), "copy": half("two", "two to one")},
        {"processes": 1, "arguments": arguments("tied one", *of_tied)},
        {"processes": 2, "arguments": arguments("tied two", parts, *of_tied)},
        {"processes": 1, "arguments": arguments("rounded one", *rounded)},
        {"processes": 2, "arguments": arguments("rounded two", parts, *rounded)},
        {"processes": 3, "arguments": arguments("rounded three", parts, *rounded)},
        {"processes": 1, "arguments": arguments("experts one", *of_experts)},
        {"processes": 2, "arguments": arguments("experts two", parts, *of_experts)},
        {"processes": 1, "arguments": arguments("half one", *of_tied, "--dtype", "bfloat16")},
        {"processes": 2, "arguments": arguments("half two", parts, *of_tied, "--dtype", "bfloat16")},
        {"processes": 1, "arguments": arguments("neox one", *of_neox)},
        {"processes": 2, "arguments": arguments("neox two", parts, *of_neox)},
        {"processes": 2, "arguments": arguments("accelerate two"), "environment": TOLD},
        {"processes": 2, "arguments": arguments("killed", parts, "--save-every", 5), "at": [15, 0, "die"]},
    ]
    codes, said = run_all(folder, 3, listed)
    expected = ["0", "75", *["0"] * 16]
    assert codes[0] == expected, said[0][-4000:]  # of the last one there is none
    assert codes[1][: len(expected)] == [code if run["processes"] > 1 else "-" for code, run in zip(expected, listed)]
    return folder, said, arguments


def same(one, other, limit=1e-6, of_norms=1e-6, of_weights=1e-6):
    """Losses, norms and weights within their limits, and exactly equal counts."""
    first, second = (read_metrics(folder) for folder in (one, other))
    assert len(first) == len(second) > 4
    for old, new in zip(first[:-1], second[:-1]):
        for key in ("step", "tokens", "label_tokens", "inserted_tokens", "epoch"):
            assert old[key] == new[key], key
        if limit == 1e-6 and None not in (old["moved_share"], new["moved_share"]):
            assert old["moved_share"] == new["moved_share"]
        for key, most in (("loss", limit), ("gradient_norm", of_norms)):
            assert abs(old[key] - new[key]) < most * max(old[key], 1), (key, old["step"])
    weights, others = (load_file(folder / "checkpoint-final/model.safetensors") for folder in (one, other))
    assert set(weights) == set(others)
    assert max((weights[name].float() - others[name].float()).abs().max().item() for name in weights) < of_weights
    found = [records[-1]["evaluation"] for records in (first, second)]
    assert found[0]["tokens"] == found[1]["tokens"]
    assert abs(found[0]["bits_per_byte"] - found[1]["bits_per_byte"]) < limit


@pytest.mark.parametrize(
    "name", ["two", "two to three", "one to two", "two to one", "tied two", "experts two", "accelerate two"]
)
def test_a_model_in_parts_trains_as_a_whole_one(runs, name):
    """Twenty steps with a resume in between, also by another number of processes, whole or in parts; tied embeddings, experts."""
    folder = runs[0]
    kind = name.partition(" ")[0]
    same(folder / (f"{kind} one" if kind in ("tied", "experts") else "one"), folder / name)


def test_experts_are_exported_as_transformers_saves_them(runs, tmp_path):
    """Apart; of a checkpoint in parts that is done in memory, of the whole model."""
    checkpoint = runs[0] / "experts two/checkpoint-00000002"
    assert main(["export", str(checkpoint), "--output", str(tmp_path / "out")]) == 0
    assert main(["export", str(runs[0] / "experts one/checkpoint-00000002"), "--output", str(tmp_path / "one")]) == 0
    one, out = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "out"))
    assert "model.layers.1.mlp.experts.4.up_proj.weight" in out and set(one) == set(out)
    assert max((one[name] - out[name]).abs().max().item() for name in one) < 1e-6


@pytest.mark.parametrize("kind", ["half", "neox"])
def test_bfloat16_arithmetic_in_parts_is_that_of_one_process_up_to_rounding(runs, kind):
    """Beside float32 weights, which the norms compute with; LayerNorm too. A weight moves by up to 1e-3 a step, the markers'
    by 5e-3, either way where its gradient is near zero."""
    folder = runs[0]
    same(folder / f"{kind} one", folder / f"{kind} two", limit=1e-4, of_norms=2e-3, of_weights=4e-3)
    weights = load_file(folder / f"{kind} two/checkpoint-final/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["rounded two", "rounded three"])
def test_bfloat16_weights_in_parts_train_as_whole_ones(runs, name):
    """Tied, with stochastic rounding: up to rounding, which the sums over processes change."""
    folder = runs[0]
    same(folder / "rounded one", folder / name, limit=2e-4, of_norms=1e-2, of_weights=4e-3)
    weights = load_file(folder / name / "checkpoint-final/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights


def test_what_is_said_is_said_once_and_counts_are_of_all_processes(runs):
    """By the first process; the file of the final model is that of one process but for its numbers."""
    folder, said, _ = runs
    assert "each of 2 processes holds a part of the weights (FSDP2)" in said[0]
    assert "holds a part" not in said[1] and "Traceback" not in said[2]
    for name in ("config.json", "generation_config.json", "tokenizer.json", "leia_markers.json"):
        one, two = (folder / run / "checkpoint-final" / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


def exported_from_parts(checkpoint, tmp_path):
    """What `export` makes of a checkpoint in parts: what torch's own reader reads; no process has written all of it."""
    paths = sorted((checkpoint / "distributed").iterdir())
    assert [path.name[:11] for path in paths] == ["shard-00001", "shard-00002"]
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) < 0.6 * sum(sizes)
    assert main(["export", str(checkpoint), "--output", str(tmp_path / "out")]) == 0
    exported = load_file(tmp_path / "out/model.safetensors")
    read = {f"model.{name}": torch.empty_like(tensor) for name, tensor in exported.items()}
    load(read, storage_reader=HuggingFaceStorageReader(str(checkpoint / "distributed")), no_dist=True)
    assert all(torch.equal(read[f"model.{name}"], tensor) for name, tensor in exported.items())
    return exported


def test_a_checkpoint_in_parts_is_torchs_own_form(runs, tmp_path):
    """Read by torch's reader, by ours, and as what `export` makes of it: the same numbers; no process has them all."""
    folder = runs[0]
    exported = exported_from_parts(folder / "two" / HALF, tmp_path)
    assert main(["export", str(folder / "one" / HALF), "--output", str(tmp_path / "one")]) == 0
    whole = load_file(tmp_path / "one/model.safetensors")
    assert set(whole) == set(exported)
    assert max((whole[name] - exported[name]).abs().max().item() for name in whole) < 1e-6
    assert (tmp_path / "one/config.json").read_bytes() == (tmp_path / "out/config.json").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32


def test_an_export_in_parts_says_what_rounding_takes(runs, tmp_path, capsys):
    """As that of a whole checkpoint; names and sizes of the files are the same too."""
    said = []
    for name in ("one", "two"):
        output = tmp_path / name
        flags = [runs[0] / name / HALF, "--output", output, "--dtype", "bfloat16"]
        assert main(["export", *map(str, flags)]) == 0
        said.append([line for line in capsys.readouterr().err.splitlines() if "cosine" in line])
        assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {torch.bfloat16}
    assert said[0] == said[1] and len(said[0]) == 1
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


def test_processes_that_are_killed_while_they_save_leave_nothing_half(runs, capsys):
    """The checkpoint before is the newest; one process goes on from it and removes what is half-written."""
    folder, _, arguments = runs
    run = folder / "killed"
    assert [found.step for found in step_checkpoints(run)] == [5, 10]
    (temporary,) = run.glob(".tmp-checkpoint-*")
    assert list((temporary / "distributed").iterdir()) and not (temporary / "_COMPLETE").exists()
    assert newest_checkpoint(run, print).step == 10
    assert main([str(argument) for argument in arguments("killed")]) == 0
    assert not list(run.glob(".tmp-*"))
    same(folder / "one", run)


def test_who_fails_while_others_gather_with_it_does_not_wait_for_them(monkeypatch):
    """Who fails otherwise tells the others, which fail too."""
    told = []
    monkeypatch.setattr(
        sharded_checkpoints, "fail_together", lambda accelerator, failure, otherwise: told.append(failure)
    )

    def fail():
        raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        sharded_checkpoints._together(None, lambda: sharded_checkpoints._gathered(fail))
    assert told == []
    sharded_checkpoints._together(None, fail)
    assert isinstance(told[0], OSError)
    assert sharded_checkpoints._together(None, lambda: sharded_checkpoints._gathered(lambda: 3)) == 3


def test_a_piece_that_is_missing_or_damaged_is_seen(runs, tmp_path, capsys):
    """Of a checkpoint by its sums; of files by what they say of themselves."""
    run = tmp_path / "run"
    shutil.copytree(runs[0] / "two" / HALF, run / HALF)
    piece = sorted((run / HALF / "distributed").iterdir())[1]
    content = piece.read_bytes()
    piece.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = []
    assert newest_checkpoint(run, said.append) is None and "SHA-256 mismatch" in said[0]
    piece.unlink()
    assert newest_checkpoint(run, said.append) is None and "missing" in said[1]
    for name in ("one", "other"):  # which do not say which part they have
        save_file({"weight": torch.zeros(3, 2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(DamagedInput, match=r"pieces of .* are missing"):
        TensorFiles(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("max_bytes", [1, 5_000, 10**9])
def test_a_model_is_written_tensor_by_tensor(tied, tmp_path, max_bytes):
    """In files of at most so much (or a tensor), with an index where they are several; transformers reads it."""
    model = AutoModelForCausalLM.from_pretrained(tied)
    tensors = {**dict(model.named_parameters()), "flags": torch.tensor([True, False, True])}
    writer = TensorWriter(tmp_path, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, max_bytes)
    with pytest.raises(ValueError, match="was due"):
        writer.put(writer.order[1], tensors[writer.order[1]])
    for name in writer.order:
        writer.put(name, tensors[name])
    writer.close()
    files = TensorFiles(tmp_path.glob("*.safetensors"))
    assert all(torch.equal(files.whole(name), tensor) for name, tensor in tensors.items())
    paths = sorted(tmp_path.glob("*.safetensors"))
    assert (len(paths) == 1) == (max_bytes == 10**9) == (not (tmp_path / "model.safetensors.index.json").exists())
    if max_bytes == 5_000:
        assert 1 < len(paths) < len(tensors)
    shutil.copyfile(tied / "config.json", tmp_path / "config.json")
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, tensors[name]) for name, value in again.named_parameters())


def launched_by(path, monkeypatch):
    """What `accelerate launch` with a configuration file tells each process; nothing else of accelerate's is there."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(name)
    args = launch.launch_command_parser().parse_args(["--config_file", str(path), "-m", "leia_train", "train"])
    args, defaults, _ = launch._validate_launch_command(args)
    told = prepare_multi_gpu_env(args) if args.use_fsdp else _told_by_deepspeed(args, defaults)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return args, defaults


def _told_by_deepspeed(args, defaults):
    """What accelerate's launcher adds before it tells the processes."""
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return prepare_deepspeed_cmd_env(args)[1]


def config_of(**options):
    """A run's configuration."""
    return TrainConfig(
        data=DataConfig(shards=("-",)),
        model=ModelConfig(model="tiny-llama"),
        optimization=OptimizationConfig(),
        run=RunConfig(output="-", **options),
    )


@pytest.mark.parametrize(("name", "machines", "processes"), [("fsdp2-8gpu", 1, 8), ("fsdp2-2x8gpu", 2, 16)])
def test_accelerates_own_loader_takes_the_recipe_and_we_take_what_it_says(monkeypatch, name, machines, processes):
    """As `accelerate launch --config_file` does: eight processes a machine, FSDP2; --shard-model alone asks for the same."""
    args, defaults = launched_by(RECIPES / f"accelerate/{name}.yaml", monkeypatch)
    assert isinstance(defaults, ClusterConfig) and args.use_fsdp
    assert (args.num_machines, args.num_processes) == (machines, processes)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true" and os.environ["FSDP_VERSION"] == "2"
    assert asked_sharding(config_of()) == Sharding()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert asked_sharding(config_of()) is None
    assert asked_sharding(config_of(shard_model=True)) == Sharding()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"FSDP_VERSION": "1", "FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"},
            "fsdp_version 1 is not supported here; give 2",
        ),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params true is not supported here; give false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "give false, and --activation-checkpointing full"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "SOME"}, "accelerate's FSDP configuration: "),
    ],
)
def test_what_of_accelerates_configuration_is_not_done_is_refused(monkeypatch, change, message):
    """One line, and what to give instead."""
    launched_by(RECIPES / "accelerate/fsdp2-8gpu.yaml", monkeypatch)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        asked_sharding(config_of())


def test_layers_and_resharding_are_taken_from_accelerates_configuration(monkeypatch):
    """Where a model does not name its layers; one that names none, or another, is refused."""
    launched_by(RECIPES / "accelerate/fsdp2-8gpu.yaml", monkeypatch)
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaMLP")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    found = asked_sharding(config_of())
    assert found == Sharding(layers=("LlamaMLP",), reshard=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=4, num_hidden_layers=3, num_attention_heads=1))
    assert [type(layer).__name__ for layer in layers_of(model, found)] == ["LlamaMLP"] * 3
    assert [type(layer).__name__ for layer in layers_of(model, Sharding())] == ["LlamaDecoderLayer"] * 3
    with pytest.raises(UsageError, match="its layers are not known \\(Other\\); name their class as fsdp_transformer"):
        layers_of(model, Sharding(layers=("Other",)))
