"""A plan reads accelerate's configuration files as its launcher does, and says what contradicts them."""

import os
import re
from pathlib import Path

import pytest
import yaml
from test_sharding import RECIPES, config_of, launched_by

from leia_beam.errors import UsageError
from leia_train.accelerate_files import read_launch
from leia_train.asked_parallelism import Sharding, ZeroSettings, asked_sharding, asked_zero
from leia_train.cli import main
from leia_train.planned_processes import planned_processes

FILES = {name: str(RECIPES / f"accelerate/{name}.yaml") for name in ("zero3-8gpu", "fsdp2-8gpu", "fsdp2-2x8gpu")}
ZERO, TWO_MACHINES = FILES["zero3-8gpu"], FILES["fsdp2-2x8gpu"]


def changed(tmp_path, name, **values):
    """A recipe's file with other values; those of its own settings by their names too."""
    content = yaml.safe_load(Path(FILES[name]).read_text())
    for key, value in values.items():
        inner = next((part for part in content.values() if isinstance(part, dict) and key in part), content)
        inner = content["fsdp_config"] if key.startswith("fsdp_") else inner
        inner[key] = value
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "changed.yaml")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, {}) for name in FILES),
        ("fsdp2-8gpu", {"fsdp_reshard_after_forward": False, "fsdp_transformer_layer_cls_to_wrap": "LlamaMLP"}),
    ],
)
def test_what_a_file_asks_for_is_what_accelerates_launcher_tells_the_processes(tmp_path, monkeypatch, name, values):
    """The number of processes and machines, and how they hold the model; the environment is as it was afterwards."""
    path = changed(tmp_path, name, **values)
    before = dict(os.environ)
    launch = read_launch(path)
    with launch.environment():
        found = asked_zero(config_of(), planned=True) or asked_sharding(config_of())
    assert dict(os.environ) == before
    args, _ = launched_by(path, monkeypatch)
    assert (launch.processes, launch.machines) == (args.num_processes, args.num_machines)
    assert found == (asked_zero(config_of(), planned=True) or asked_sharding(config_of()))
    assert isinstance(found, ZeroSettings if name.startswith("zero3") else Sharding)


def test_a_plan_is_for_the_files_processes_or_for_more_gpus():
    """As many on each machine; what the launcher must then be told is said."""
    found = planned_processes(config_of(), "H100", TWO_MACHINES)
    assert (found.config.run.nproc, found.machines, found.on_each_machine, found.gpu.name) == (16, 2, 8, "H100")
    assert found.config.run.shard_model and found.parts == Sharding() and not found.note
    more = planned_processes(config_of(), "32xH100", TWO_MACHINES)
    assert more.config.run.nproc == 32 and "for 32 give accelerate launch --num_processes 32, and" in more.note
    zero = planned_processes(config_of(), "8xH100", ZERO)
    assert zero.parts == ZeroSettings() and not zero.config.run.shard_model and zero.machines == 1
    alone = planned_processes(config_of(shard_model=True), "4xH100", "")
    assert alone.config.run.nproc == 4 and alone.parts == Sharding()
    assert planned_processes(config_of(), "", "").parts is None


@pytest.mark.parametrize(
    ("gpus", "file", "options", "message"),
    [
        ("4xH100", ZERO, {}, r"--gpus 4xH100: .*zero3-8gpu.yaml starts 8 processes, one on each GPU; give 8 GPUs"),
        ("H100", ZERO, {"shard_model": True}, "--shard-model with DeepSpeed: not supported here; it is FSDP2's"),
        ("", TWO_MACHINES, {"nproc": 8}, "--nproc 8: .* starts 16 processes; give --nproc 16, or write 8 there"),
        ("17xH100", TWO_MACHINES, {}, "17 processes on num_machines 2: must be a multiple"),
        ("9xH100", ZERO, {}, "--batch 2048: must be a multiple of the 9 processes"),
        ("", "/not/there.yaml", {}, "--accelerate-config /not/there.yaml: not a configuration file of accelerate"),
        ("", str(RECIPES / "llama-7b-8gpu.yaml"), {}, "not a configuration file of accelerate"),
    ],
)
def test_what_contradicts_the_file_is_one_line(gpus, file, options, message):
    """Exit 2, as the run would end."""
    with pytest.raises(UsageError, match=message):
        planned_processes(config_of(**options), gpus, file)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("zero3-8gpu", {"zero_stage": 2}, "zero_stage 2 is not supported here; give 3"),
        ("zero3-8gpu", {"offload_param_device": "cpu"}, "offload_param_device cpu is not supported here; give none"),
        ("fsdp2-8gpu", {"fsdp_version": 1}, "fsdp_version 1 is not supported here; give 2"),
        ("fsdp2-8gpu", {"fsdp_offload_params": True}, "fsdp_offload_params true is not supported here"),
        ("fsdp2-8gpu", {"distributed_type": "MEGATRON_LM"}, "distributed_type MEGATRON_LM is not supported here"),
        ("fsdp2-8gpu", {"num_processes": -1}, "has no num_processes; write it there, or give the number of GPUs"),
        ("fsdp2-8gpu", {"num_processes": 0}, "num_processes 0: must be at least 1"),
        ("fsdp2-8gpu", {"num_machines": 0}, "num_machines 0: must be at least 1"),
    ],
)
def test_what_a_run_refuses_of_a_file_a_plan_refuses_too(tmp_path, name, values, message):
    """Offloading among it, which this trainer does not do."""
    with pytest.raises(UsageError, match=re.escape(message)):
        planned_processes(config_of(), "H100", changed(tmp_path, name, **values))


def test_a_plan_of_deepspeed_says_what_it_holds_and_what_fsdp2_would(arguments, tmp_path, capsys, tokenizer_folder):
    """On eight GPUs: weights twice, buckets; the first switch with which it fits; reading by all of them."""
    import shutil

    from transformers import AutoConfig

    sizes = {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32}
    config = AutoConfig.for_model("llama", **sizes, num_attention_heads=32, architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path / "model")
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "model")
    given = ["plan", *arguments("--model", tmp_path / "model", "--dtype", "bfloat16", "--batch", 32)[1:]]
    given += ["--max-length", "2048", "--micro-batch", "4", "--accelerate-config", ZERO, "--gpus"]
    assert main([*given, "H100"]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line for line in printed}
    assert "each of 8 processes holds a part of the weights (DeepSpeed ZeRO-3)" in lines["parts"]
    assert "(weights 6.3 GiB, gradients 3.1 GiB, optimizer 6.3 GiB, buckets 2.8 GiB, gathered 4." in lines["memory"]
    assert "copies" not in lines["memory"]
    assert "does not fit" in lines["warning"] and "with --micro-batch 1 it takes about" in lines["warning"]
    others = [line for line in printed if line.startswith("other way")]
    assert any("--shard-model --micro-batch 1 in DeepSpeed's place (FSDP2) takes about" in line for line in others)
    assert re.search(
        r"start +about \d+\.\d MiB of main memory a process, while .* for 8 on one machine", lines["start"]
    )
    assert lines["processes"].split()[1] == "8,"
    assert main([*given, "L4"]) == 0
    (warning,) = (line for line in capsys.readouterr().out.splitlines() if "does not fit" in line)
    assert (
        "a deepspeed_config_file with reduce_bucket_size 50000000 and stage3_max_live_parameters 100000000" in warning
    )
    assert "--shard-model" not in warning and "selective" not in warning
