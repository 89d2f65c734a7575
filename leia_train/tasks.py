"""From a checkpoint to its scores on evaluation tasks while training, by `leia-eval run` in a process of its own.

A process of its own, so that this package needs no lm-eval unless tasks are asked for, and training keeps its threads, random
numbers and signal handlers. What the tasks need is checked before the first step. leia-eval keeps its answers in the run's
folder, so a scoring that was interrupted goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leia_beam.errors import DamagedInput, LeiaError, MissingResource, OtherBuild, UsageError
from leia_beam.termination import PARENT_VARIABLE
from leia_train.run_config import RunConfig

FOLDER_NAME = "tasks"
RESULTS_NAME = "results.json"
_LAUNCHER_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "LEIA_TRAIN_", "GROUP_", "ROLE_", "MASTER_")
_LAUNCHER_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_LOOK_S = 0.2
_ERRORS = {error.exit_code: error for error in (UsageError, DamagedInput, MissingResource, OtherBuild)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """A task's main metric over its n items; `chance` is what guessing gives."""

    metric: str
    score: float
    n: int
    chance: float | None


def check_tasks(settings: RunConfig) -> None:
    """Read the tasks and their data as a scoring would, without a model.

    Raises: MissingResource where leia-eval's packages are not installed; what leia-eval raises.
    """
    for module in ("leia_eval", "lm_eval"):
        if importlib.util.find_spec(module) is None:
            raise MissingResource(f"--eval-tasks: {module} is not installed: pip install 'leia-lm[eval]'")
    _run([*_prompt_flags(settings), "--dry-run"], None)


def score_tasks(
    settings: RunConfig, checkpoint: Path, output: Path, *, device: str, dtype: str, stopped: Callable[[], bool]
) -> dict[str, TaskScore] | None:
    """The scores by task, which are left in `output` with the answers; None where it was stopped.

    Raises: what leia-eval raises.
    """
    flags = [*_prompt_flags(settings), "--model", str(checkpoint), "--output", str(output), "--overwrite"]
    flags += ["--device", device, "--dtype", dtype, "--batch-size", str(settings.eval_tasks_batch)]
    if not _run(flags, stopped):
        return None
    return read_scores(output)


def read_scores(folder: Path) -> dict[str, TaskScore]:
    """What a finished scoring left.

    Raises: DamagedInput where its results are not as leia-eval writes them.
    """
    path = folder / RESULTS_NAME
    try:
        return {
            task["name"]: TaskScore(
                metric=task["metric"],
                score=float(task["scores"][task["metric"]]["value"]),
                n=int(task["n"]),
                chance=task["chance"],
            )
            for task in json.loads(path.read_bytes())["tasks"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedInput(f"{path}: not the results of leia-eval ({error!r})") from error


def _prompt_flags(settings: RunConfig) -> list[str]:
    flags = ["--tasks", ",".join(settings.eval_tasks), "--profile", settings.eval_tasks_profile]
    if settings.eval_tasks_data:
        flags += ["--data-dir", settings.eval_tasks_data]
    if settings.eval_tasks_shots >= 0:
        flags += ["--shots", str(settings.eval_tasks_shots)]
    if settings.eval_tasks_limit:
        flags += ["--limit", str(settings.eval_tasks_limit)]
    return flags


def _run(flags: list[str], stopped: Callable[[], bool] | None) -> bool:
    """Run `leia-eval run` to its end, True, or until it is told to stop, False.

    Raises: the error of its exit code, with its own last line.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "leia_eval", "run", *flags],
        env={**own_environment(os.environ), PARENT_VARIABLE: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a Ctrl-C reaches the training alone, which ends this one
    )
    try:
        said = _wait(process, stopped)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if said is None:
        return False
    if process.returncode:
        line = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise _ERRORS.get(process.returncode, LeiaError)(f"--eval-tasks: {line}")
    return True


def _wait(process: subprocess.Popen[str], stopped: Callable[[], bool] | None) -> str | None:
    """What the process said, at its end; None where it was told to stop."""
    while True:
        try:
            return process.communicate(timeout=_LOOK_S)[1]
        except subprocess.TimeoutExpired:
            if stopped is not None and stopped():
                process.terminate()
                return None


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what makes a process one of several."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _LAUNCHER_NAMES and not name.startswith(_LAUNCHER_PREFIXES)
    }
