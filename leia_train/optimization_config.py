"""From options to how the weights move; the defaults are the paper's (50 steps of 2,048 rows)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leia_train.option_fields import check, check_choice, option

SCHEDULES = ("cosine", "linear", "constant", "wsd")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizationConfig:
    """How the weights move."""

    steps: int = option("updates of the weights", default=50)
    batch: int = option("rows in an update, over all processes", default=2048)
    micro_batch: int = option("rows computed at once by a process; the loss does not depend on it", default=4)
    learning_rate: float = option("highest learning rate", default=5e-6)
    schedule: str = option(
        "learning rate after the warmup: to 0 as a cosine or linearly, constant, or constant and then to 0 (wsd)",
        default="cosine",
        choices=SCHEDULES,
    )
    decay_share: float = option("wsd: share of the steps in which it falls (0 to 1)", default=0.2)
    marker_learning_rate: float = option(
        "learning rate of the markers' embeddings; 0 for that of all weights", default=0.0
    )
    warmup: int = option("updates over which the learning rate rises", default=0)
    weight_decay: float = option("AdamW's weight decay, on matrices alone", default=0.1)
    beta1: float = option("AdamW's first beta", default=0.9)
    beta2: float = option("AdamW's second beta", default=0.95)
    epsilon: float = option("AdamW's epsilon", default=1e-6)
    clip: float = option("largest norm of the gradient; 0 for none", default=1.0)
    seed: int = option("seed of the order, the draws and random weights", default=42)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch"):
            check(getattr(self, name) >= 1, name.replace("_", "-"), getattr(self, name), "at least 1")
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            check(math.isfinite(value) and value > 0, name.replace("_", "-"), value, "above 0")
        for name in ("beta1", "beta2", "decay_share"):
            value = getattr(self, name)
            top = 1 if name == "decay_share" else math.nextafter(1, 0)
            check(0 <= value <= top, name.replace("_", "-"), value, "from 0 to 1" if top == 1 else "from 0 to below 1")
        check_choice("schedule", self.schedule, SCHEDULES)
        for name in ("weight_decay", "clip", "marker_learning_rate"):
            value = getattr(self, name)
            check(math.isfinite(value) and value >= 0, name.replace("_", "-"), value, "0 or above")
        check(0 <= self.warmup <= self.steps, "warmup", self.warmup, f"from 0 to --steps ({self.steps})")
        check(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to below 2^63")
