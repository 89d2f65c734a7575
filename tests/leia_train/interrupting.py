"""A Ctrl-C or a kill that comes at a certain step of a run, and what is compared afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
