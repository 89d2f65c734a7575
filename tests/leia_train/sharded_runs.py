"""A program that is several processes of many runs, one after the other: `python sharded_runs.py RUNS.json`.

Each run is {"processes", "arguments", "rendezvous", "at", "copy", "environment"}: RANK says which process this is; those that
a run has no place for wait for the next. `at` is [step, process, "stop", "die" or "poison"]: the process is told to stop
during that step, is killed when it puts the checkpoint after that step in its place, or has NaN for its loss in that step.
`copy` is [from, to, checkpoint]: a run's folder that is copied first, with that checkpoint alone. Each run's end is a line
"exit code N".
"""

import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from accelerate.state import AcceleratorState, GradientState

from leia_train import sharded_checkpoints, updates
from leia_train.checkpoints import step_name
from leia_train.cli import main

RANK = int(os.environ.get("RANK", "0"))


def stopping(at):
    """What makes this process stop, or die, at a step."""
    step, process, how = at
    if process != RANK:
        return ExitStack()
    if how == "stop":
        update = updates.apply_update

        def stop(run, rate):
            if run.step + 1 == step:
                os.kill(os.getpid(), signal.SIGTERM)
            update(run, rate)

        return patch.object(updates, "apply_update", stop)
    if how == "poison":
        loss = updates.micro_batch_loss

        def poisoned(run, rows, count):
            part = loss(run, rows, count)
            return part * float("nan") if run.step + 1 == step else part

        return patch.object(updates, "micro_batch_loss", poisoned)
    finish = sharded_checkpoints.finish_folder

    def die(temporary, final):
        if final.name == step_name(step):
            os.kill(os.getpid(), signal.SIGKILL)
        finish(temporary, final)

    return patch.object(sharded_checkpoints, "finish_folder", die)


def copy(source, target, checkpoint):
    """A run as it was when it had one checkpoint."""
    shutil.copytree(source, target)
    for path in Path(target).glob("checkpoint-*"):
        if path.name != checkpoint:
            shutil.rmtree(path)
    (Path(target) / "_status.json").unlink(missing_ok=True)


def forget_deepspeed():
    """What DeepSpeed keeps of the processes and the precision of the run before."""
    if "deepspeed" not in sys.modules:
        return
    from deepspeed.comm import comm
    from deepspeed.runtime import torch_autocast
    from deepspeed.utils import groups
    from torch.distributed import ProcessGroup

    comm.cdb = None
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
    for name, value in list(vars(groups).items()):
        if isinstance(value, ProcessGroup):
            setattr(groups, name, None)


def do_all(runs):
    """Each run that this process has a place in, one after the other."""
    for run in runs:
        if run["processes"] <= RANK:
            print("exit code -", flush=True)
            continue
        if RANK == 0 and "copy" in run:
            copy(*run["copy"])
        launched = {"WORLD_SIZE": str(run["processes"]), "RANK": str(RANK), "LOCAL_RANK": str(RANK)}
        launched["LEIA_TRAIN_RENDEZVOUS"] = run["rendezvous"]
        for name in launched:
            os.environ.pop(name, None)
        if run["processes"] > 1:
            os.environ.update({**launched, **run.get("environment", {})})
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        forget_deepspeed()
        with stopping(run.get("at", [0, -1, ""])):
            code = main(run["arguments"])
        print(f"exit code {code}", flush=True)


if __name__ == "__main__":
    do_all(json.loads(Path(sys.argv[1]).read_text()))
    os._exit(0)  # as a process of several ends (leia_train/__main__.py)
