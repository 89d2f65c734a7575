"""From a run's metrics to a tracker of the user's choice, besides metrics.jsonl.

TensorBoard is the default where it is installed: it writes files and sends nothing anywhere. Others are used only when
they are asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from leia_beam.errors import MissingResource

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
        import accelerate.tracking as trackers

        made: Any
        if name == "tensorboard":
            made = trackers.TensorBoardTracker("tensorboard", logging_dir=output)
        elif name == "wandb":
            made = trackers.WandBTracker(output.resolve().name)
        else:
            made = trackers.TrackioTracker(output.resolve().name)
        made.start()
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


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool))
