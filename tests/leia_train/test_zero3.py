"""Processes that hold a model in DeepSpeed's parts train as one does, and go on from the checkpoints of every other way."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file
from test_sharding import FLAGS, HALF, run_all, same, tied  # noqa: F401, a fixture too

from leia_train.metrics import read_metrics

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (pip install 'leia-lm[deepspeed]')"
)
TOLD = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
"""What accelerate's launcher would tell the processes."""
SMALL = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 64, "reduce_bucket_size": 512}
"""No weight stays gathered, few are gathered ahead, and gradients are summed in several parts."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shards, tied):  # noqa: F811
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
    of_tied = ("--model", tied, "--steps", 4, "--save-every", 2, "--gradient-checkpointing", "--loss-chunk", 8)
    of_tied += ("--learning-rate", 1e-3, "--marker-learning-rate", 5e-3, "--no-marker-logits", "--clip", 0.5)
    rounded = (*of_tied, "--dtype", "bfloat16")
    listed = [
        {"processes": 1, "arguments": arguments("one")},
        {"processes": 2, "arguments": arguments("two"), "environment": zero, "at": [10, 1, "stop"]},
        {"processes": 2, "arguments": arguments("two"), "environment": TOLD},
        {"processes": 2, "arguments": arguments("zero to parts", "--shard-model"), "copy": half("two", "zero to parts")},
        {"processes": 2, "arguments": arguments("parts to zero"), "copy": half("zero to parts", "parts to zero"), "environment": zero},
        {"processes": 2, "arguments": arguments("one to zero"), "copy": half("one", "one to zero"), "environment": zero},
        {"processes": 1, "arguments": arguments("zero to one"), "copy": half("two", "zero to one")},
        {"processes": 1, "arguments": arguments("tied one", *of_tied)},
        {"processes": 2, "arguments": arguments("tied two", *of_tied), "environment": zero},
        {"processes": 1, "arguments": arguments("rounded one", *rounded)},
        {"processes": 2, "arguments": arguments("rounded two", *rounded), "environment": zero},
    ]
    codes, said = run_all(folder, 2, listed)
    expected = ["0", "75", *["0"] * (len(listed) - 2)]
    assert codes[0] == expected, said[0][-6000:]
    return folder, said


@needs_deepspeed
@pytest.mark.parametrize("name", ["two", "zero to parts", "parts to zero", "one to zero", "zero to one", "tied two"])
def test_a_model_in_deepspeeds_parts_trains_as_a_whole_one(runs, name):
    """Twenty steps with a resume in between, to and from FSDP2 and one process; tied embeddings, checkpointing, clipping."""
    folder = runs[0]
    same(folder / ("tied one" if name.startswith("tied") else "one"), folder / name)
