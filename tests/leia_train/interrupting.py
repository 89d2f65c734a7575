"""A Ctrl-C that comes at a certain step of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leia_train import updates


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
