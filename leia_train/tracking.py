"""From a run's metrics to a tracker of the user's choice, besides metrics.jsonl.

TensorBoard is the default where it is installed: it writes files and sends nothing anywhere. Others are used only when
they are asked for.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from leia_beam.errors import MissingResource

PROJECT = "leia"
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def choose_tracker(asked: str) -> str | None:
    """The tracker to use; None for none.

    Raises: MissingResource where the one that was asked for is not installed.
    """
    if asked == "none":
        return None
    name = "tensorboard" if asked == "auto" else asked
    if importlib.util.find_spec(_PACKAGES[name]) is not None:
        return name
    if asked == "auto":
        return None
    raise MissingResource(f"--tracker {asked}: {_PACKAGES[name]} is not installed: pip install {_PACKAGES[name]}")


class Tracking:
    """A tracker of accelerate, or none."""

    def __init__(self, name: str | None, output: Path, options: Mapping[str, Any], report: Callable[[str], None]):
        self._tracker: Any = None
        if name is None:
            return
        made = _make(name, output.resolve())
        _start(name, made)
        made.store_init_configuration({key: value for key, value in options.items() if _plain(value)})
        self._tracker = made
        report(f"metrics go to {name} too")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Note the numbers of a step."""
        if self._tracker is not None:
            numbers = {key: value for key, value in values.items() if isinstance(value, (int, float)) and key != "step"}
            self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """Write what is left."""
        if self._tracker is not None:
            self._tracker.finish()


def _make(name: str, output: Path) -> Any:
    """A tracker that is not started. A run that goes on stays one run: its name and id are those of its folder."""
    import accelerate.tracking as trackers

    if name == "tensorboard":
        return trackers.TensorBoardTracker("tensorboard", logging_dir=output)
    if name == "trackio":
        return trackers.TrackioTracker(PROJECT, name=output.name, resume="allow")
    number = hashlib.sha256(str(output).encode()).hexdigest()[:16]
    return trackers.WandBTracker(PROJECT, name=output.name, id=number, resume="allow", dir=str(output))


def _start(name: str, made: Any) -> None:
    """Begin a tracker's run.

    Raises: MissingResource where W&B has no account to send it to.
    """
    if name != "wandb":
        made.start()
        return
    import wandb

    try:
        made.start()
    except wandb.Error as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingResource(f"--tracker wandb: {line}; WANDB_MODE=offline keeps the run in files") from error


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool))
