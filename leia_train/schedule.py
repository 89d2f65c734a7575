"""From a step to its learning rate: a linear warmup, then a cosine to zero (transformers' cosine schedule without one)."""

from __future__ import annotations

import math

from leia_train.config import OptimizationConfig


def learning_rate(config: OptimizationConfig, step: int) -> float:
    """The learning rate of update `step`, counted from 0; the warmup's last update has the highest one.

    >>> config = OptimizationConfig(steps=4, learning_rate=1.0)
    >>> [round(learning_rate(config, step), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
