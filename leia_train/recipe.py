"""From a recipe to the configuration of a run of training, for those who call from Python.

config = train_config("recipe.yaml", arm="plain", seed=2)
train(config, report=print, progress=print)
"""

from __future__ import annotations

from collections.abc import Sequence

from leia_beam.configuration import parse
from leia_train.command_line import make_config, make_parser
from leia_train.config import TrainConfig


def train_config(
    path: str, settings: Sequence[str] = (), *, arm: str | None = None, seed: int | None = None
) -> TrainConfig:
    """What `leia-train train -c PATH --set SETTING… --arm ARM --seed SEED` would do.

    Raises: UsageError for what is wrong in the recipe, with its line.
    """
    words = ["train", "-c", path, *(f"--set={setting}" for setting in settings)]
    words += [] if arm is None else ["--arm", arm]
    words += [] if seed is None else ["--seed", str(seed)]
    return make_config(parse(make_parser(), words))
