"""From values to the round numbers at an axis's ticks, linear or logarithmic, and to their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LOG_FROM = 20.0
"""Positive values of which the largest is so many times the median are drawn on a logarithmic axis."""


def needs_log(values: Sequence[float]) -> bool:
    """Whether a linear axis would show little but the largest value."""
    ordered = sorted(values)
    return ordered[0] > 0 and ordered[-1] > _LOG_FROM * ordered[len(ordered) // 2]


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round values from at most `low` to at least `high`, about `wanted` steps apart.

    >>> ticks(0.13, 0.92)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(3.13, 3.13)
    [2.5, 3.0, 3.5, 4.0]
    """
    if low == high:
        around = 0.5 * 10.0 ** math.floor(math.log10(abs(low))) if low else 0.5
        return ticks(low - around, high + around, 2)
    step = _round_step((high - low) / wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [_rounded(number * step, step) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around positive values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + every, every)]


def _round_step(least: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _rounded(value: float, step: float) -> float:
    digits = max(0, 2 - math.floor(math.log10(step)))
    return round(value, digits) + 0.0


def tick_label(value: float) -> str:
    """A value in few letters.

    >>> [tick_label(value) for value in (0, 0.25, 5e-06, 1200, 250000, 3e9)]
    ['0', '0.25', '5e-6', '1,200', '250k', '3B']
    """
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    for least, divisor, letter in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / divisor:,.4g}{letter}"
    return f"{value:,.6g}"
