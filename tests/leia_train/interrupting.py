"""A Ctrl-C or a kill that comes at a certain step of a run, and what is compared afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leia_train import updates
from leia_train.metrics import read_metrics


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Runs within it are ended in the place of the update after `step` updates."""
    update = updates.apply_update

    def interrupt(run, rate):
        if run.step == step:
            raise KeyboardInterrupt
        update(run, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "apply_update", interrupt)
        yield


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it."""


def kill_at(monkeypatch, step):
    """Die in the place of the update after `step` updates."""
    update = updates.apply_update

    def die(run, rate):
        if run.step == step:
            raise Killed
        update(run, rate)

    monkeypatch.setattr(updates, "apply_update", die)


def weights(run):
    """The bytes of the final model's file."""
    return (run / "checkpoint-final/model.safetensors").read_bytes()


def steps(run):
    """The metrics without times."""
    timed = ("seconds", "waited_s")
    return [{key: value for key, value in record.items() if key not in timed} for record in read_metrics(run)]


_WAITS = """
import sys

if {"leia_train", "train"} <= set(sys.orig_argv) and any(OF in word for word in sys.orig_argv):
    import signal
    import time
    from leia_train.metrics import MetricsLog

    write, written = MetricsLog.write, []

    def write_and_wait(self, record):
        write(self, record)
        written.append(record)
        while len(written) == STEPS and not signal.getsignal(signal.SIGTERM).__self__.requested():
            time.sleep(0.01)

    MetricsLog.write = write_and_wait
"""


def held(environment: dict[str, str], folder: Path, *, steps: int, of: str = "") -> dict[str, str]:
    """An environment in which a training waits after so many steps until it is told to stop: so it is never done before.

    `of`: a word in the command of those that wait, where not all do.
    """
    (folder / "held").mkdir()
    (folder / "held/sitecustomize.py").write_text(_WAITS.replace("STEPS", str(steps)).replace("OF", repr(of)))
    return {**environment, "PYTHONPATH": os.pathsep.join([str(folder / "held"), environment["PYTHONPATH"]])}
