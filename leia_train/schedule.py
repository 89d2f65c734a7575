"""From a step to its learning rate: a linear warmup, then a cosine, a line, a constant, or a constant that falls at the end.

The cosine is transformers' (to zero at the last update's end). wsd is warmup, stable, decay: the last `decay_share` of the
updates fall linearly to zero.
"""

from __future__ import annotations

import math

from leia_train.optimization_config import OptimizationConfig


def learning_rate(config: OptimizationConfig, step: int, steps: int | None = None) -> float:
    """The learning rate of update `step`, counted from 0, of `steps`; the warmup's last update has the highest one.

    >>> config = OptimizationConfig(steps=4, learning_rate=1.0)
    >>> [round(learning_rate(config, step), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return config.learning_rate * _share(config, step, steps or config.steps)


def _share(config: OptimizationConfig, step: int, steps: int) -> float:
    """The part of the highest learning rate."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done, left = step - config.warmup, steps - step
    after_warmup = max(steps - config.warmup, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done / after_warmup))
    if config.schedule == "linear":
        return left / after_warmup
    falling = max(round(steps * config.decay_share), 1) if config.schedule == "wsd" and config.decay_share else 0
    return min(1.0, left / (falling + 1)) if falling else 1.0
