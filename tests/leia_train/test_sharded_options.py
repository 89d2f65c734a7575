"""A model in parts beside other options: compiled layers, tasks that are scored while it trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leia_train.cli import main
from leia_train.metrics import read_metrics

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
TASKS = ("--eval-tasks", "leia_sample_ja", "--eval-tasks-limit", 3, "--eval-tasks-every", 1)


def run(flags):
    """A command in a process of its own, which starts others."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "leia_train", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_layers_in_parts_and_tasks_beside_them(arguments, tmp_path):
    """The losses of one process that compiles nothing, and the same scores, by checkpoints in both forms."""
    flags = (*TASKS, "--eval-tasks-data", ROOT / "tests/data/sample/eval", "--steps", 2, "--save-every", 1)
    assert main(arguments(*flags, output=tmp_path / "one")) == 0
    said = run(arguments(*flags, "--nproc", 2, "--shard-model", "--compile", output=tmp_path / "two"))
    assert "each of 2 processes holds a part of the weights (FSDP2)" in said
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    losses = [[record["loss"] for record in records if "loss" in record] for records in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) == 2
    tasks = [{record["step"]: record["tasks"] for record in records if record.get("tasks")} for records in (one, two)]
    assert tasks[0] == tasks[1] and list(tasks[0]) == [1, 2]
    assert (tmp_path / "two/checkpoint-00000001/distributed").is_dir()
    assert not list((tmp_path / "two").glob(".tmp-*"))
