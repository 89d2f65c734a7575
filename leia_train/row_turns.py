"""From the shares of sources to which of them each row of the stream is of, and how many rows of each come before it.

Of any first n rows, a source with share w has w x n of them within less than one row: Tijdeman's rule for the chairman
assignment problem (Discrete Mathematics 32, 1980), whose bound is 1 - 1 / (2K - 2) for K sources. Shares are whole parts of
a period, so the turns repeat after it, every period is exact, and the place of any row is found without those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class RowTurns:
    """The turns of K sources with whole `parts` (their shares are these by their sum); one with 0 has no turn."""

    def __init__(self, parts: Sequence[int]):
        divisor = gcd(*parts)
        self._parts = [part // divisor for part in parts]
        self._period = sum(self._parts)
        self._turns = np.array(_turns(self._parts), np.int64)
        self._before = np.zeros((self._period + 1, len(parts)), np.int64)
        np.cumsum(self._turns[:, None] == np.arange(len(parts)), axis=0, out=self._before[1:])

    def counts(self, rows: int) -> Ints:
        """How many of the first `rows` rows are of each source (K,)."""
        periods, rest = divmod(rows, self._period)
        counts: Ints = periods * np.array(self._parts, np.int64) + self._before[rest]
        return counts

    def sources(self, first: int, count: int) -> Ints:
        """The sources of the rows [first, first + count)."""
        turns: Ints = self._turns[np.arange(first, first + count) % self._period]
        return turns

    def rows_until(self, source: int, count: int) -> int:
        """The fewest rows of the stream among which are `count` of a source that has turns."""
        periods, rest = divmod(count, self._parts[source])
        if not rest and periods:
            periods, rest = periods - 1, self._parts[source]
        return periods * self._period + int(self._before[:, source].searchsorted(rest))


def _turns(parts: Sequence[int]) -> list[int]:
    """The turns of one period: whoever must come soonest among those that are due."""
    period, bound = sum(parts), max(2 * sum(part > 0 for part in parts) - 2, 1)
    taken = [0] * len(parts)
    turns = []
    for row in range(1, period + 1):
        behind = [row * part - period * count for part, count in zip(parts, taken, strict=True)]  # rows x period
        due = [source for source, lag in enumerate(behind) if parts[source] and lag * bound >= period]
        soonest = min(due, key=lambda source: (((bound - 1) * period - bound * behind[source]) / parts[source], source))
        taken[soonest] += 1
        turns.append(soonest)
    return turns
