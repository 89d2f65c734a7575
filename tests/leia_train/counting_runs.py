"""From a run's options to the bytes that its processes counted, and those that a plan says."""

import json
import subprocess
import sys
from pathlib import Path

from test_sharding import environment

from leia_beam.configuration import parse
from leia_train.command_line import make_config, make_parser
from leia_train.markers import add_markers
from leia_train.memory import memory_bytes
from leia_train.opening import open_data
from leia_train.planned_processes import planned_processes
from leia_train.planning import planned_model

SMALL = ("--tiny-hidden-size", 256, "--tiny-intermediate-size", 1024, "--tiny-heads", 4, "--tiny-kv-heads", 4)
"""Eight layers are 8.6 million weights, beside which 24 tokens are next to nothing."""


SMALL_BUFFERS = {
    "stage": 3,
    "reduce_bucket_size": 1_000_000,
    "stage3_prefetch_bucket_size": 100_000,
    "stage3_max_live_parameters": 2_000_000,
    "stage3_max_reuse_distance": 2_000_000,
    "stage3_param_persistence_threshold": 1000,
    "sub_group_size": 1_000_000,
}
"""What DeepSpeed is told of so small a model, so that its own buffers are not all that there is."""


def write_launch(folder, processes, zero):
    """accelerate's configuration file for DeepSpeed, and what its launcher would tell the processes."""
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
    content = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "DEEPSPEED", "num_machines": 1}
    content |= {"num_processes": processes, "deepspeed_config": {"deepspeed_config_file": str(folder / "ds.json")}}
    (folder / "launch.json").write_text(json.dumps({**content, "mixed_precision": "no", "use_cpu": False}))
    told = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(folder / "ds.json")}
    return folder / "launch.json", told


def flags_of(shards, output, *more):
    """`train …` of six steps on rows of 24 tokens."""
    flags = ["--shards", shards, "--output", output, "--model", "tiny-llama", "--device", "cpu", "--tracker", "none"]
    flags += [*SMALL, "--tiny-layers", 8, "--max-length", 24, "--batch", 6, "--micro-batch", 1, "--steps", 6]
    return [str(flag) for flag in (*flags, "--save-every", 0, "--validation-share", 0, "--learning-rate", 1e-3, *more)]


def counted(folder, shards, processes, *more, told=None):
    """What each process counted, in the order of the processes."""
    folder.mkdir()
    launched = {"WORLD_SIZE": str(processes), "LEIA_TRAIN_RENDEZVOUS": str(folder / "rendezvous")}
    names = [folder / f"counted-{rank}.json" for rank in range(processes)]
    started = []
    for rank, name in enumerate(names):
        of_rank = {**environment(rank), "LOCAL_RANK": str(rank), **(launched if processes > 1 else {}), **(told or {})}
        command = [sys.executable, str(Path(__file__).with_name("counted_run.py")), str(name), "train"]
        with (folder / f"said-{rank}").open("w") as said:
            started.append(
                subprocess.Popen(
                    [*command, *flags_of(shards, folder / "run", *more)], env=of_rank, stdout=said, stderr=said
                )
            )
    try:
        codes = [process.wait(timeout=1200) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0] * processes, (folder / "said-0").read_text()[-3000:]
    return [json.loads(name.read_text()) for name in names]


def said(folder, shards, processes, *more, file=""):
    """What a plan says that one of them takes, by what for."""
    options = parse(make_parser(), ["plan", *flags_of(shards, folder / "planned", *more, "--nproc", processes)])
    planned = planned_processes(make_config(options), "", str(file))
    build = open_data(planned.config.data).tokenizer
    model = planned_model(planned.config, build, add_markers(build, planned.config.data.markers))
    return memory_bytes(planned.config, model, 0, planned.parts)
