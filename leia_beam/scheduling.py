"""From the seconds of a stage's units to the time at which workers have done them all, whichever way they are dealt out.

Two ways: units are dealt beforehand, as Beam's in-memory runner, the local processes and Flink do it, or pulled one by
one, as Dataflow and Prism do it. A worker that fails comes back after a while; what it was doing is done again, what it
had committed is not. On Flink a failure stops all workers, which then go on together.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

PULLED, DEALT = "pulled", "dealt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """`per_worker_hour` failures on average, each costing `restart_s` before the worker is back."""

    per_worker_hour: float = 0.0
    restart_s: float = 60.0
    stops_all: bool = False
    """Every worker loses what it is doing and starts again (Flink's restart of a stage)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a stage took: `wall_s`; `busy_s` of useful work over all workers; how often a worker failed."""

    wall_s: float
    busy_s: float
    workers: int
    failed: int = 0

    @property
    def efficiency(self) -> float:
        """Useful work of the time that was paid for."""
        paid_s = self.wall_s * self.workers
        return self.busy_s / paid_s if paid_s else 1.0


def run_stage(
    unit_s: Sequence[float],
    workers: int,
    *,
    dealing: str,
    start_s: float = 0.0,
    failures: Failures | None = None,
    seed: int = 0,
) -> Outcome:
    """The outcome of a stage whose units take `unit_s` seconds each, in this order.

    >>> run_stage([4, 1, 1, 1, 1], 2, dealing="pulled").wall_s, run_stage([4, 1, 1, 1, 1], 2, dealing="dealt").wall_s
    (4.0, 6.0)
    """
    if workers < 1:
        raise ValueError(f"at least one worker is needed, not {workers}")
    failures = failures or Failures()
    draw = random.Random(seed)
    if dealing == PULLED:
        wall_s, failed = _pulled(unit_s, workers, start_s, failures, draw)
    elif dealing == DEALT:
        wall_s, failed = _dealt(unit_s, workers, start_s, failures, draw)
    else:
        raise ValueError(f"units are {PULLED!r} or {DEALT!r}, not {dealing!r}")
    return Outcome(wall_s=float(wall_s), busy_s=float(sum(unit_s)), workers=workers, failed=failed)


def _pulled(
    unit_s: Sequence[float], workers: int, start_s: float, failures: Failures, draw: random.Random
) -> tuple[float, int]:
    free = [start_s] * min(workers, max(1, len(unit_s)))
    heapq.heapify(free)
    waiting = list(reversed(unit_s))
    end_s, failed = start_s if unit_s else 0.0, 0
    while waiting:
        needed = waiting.pop()
        begun = heapq.heappop(free)
        lost = _time_to_failure(needed, failures, draw)
        if lost is None:
            done = begun + needed
            end_s = max(end_s, done)
            heapq.heappush(free, done)
        else:
            failed += 1
            waiting.append(needed)
            heapq.heappush(free, begun + lost + failures.restart_s)
    return end_s, failed


def _dealt(
    unit_s: Sequence[float], workers: int, start_s: float, failures: Failures, draw: random.Random
) -> tuple[float, int]:
    """Worker k has the units k, k + N, k + 2N, …, one after another."""
    shares = [list(unit_s[worker::workers]) for worker in range(workers)]
    if failures.stops_all:
        return _dealt_stopping_all(shares, start_s, failures, draw)
    ends, failed = [0.0], 0
    for share in shares:
        clock = start_s
        for needed in share:
            while (lost := _time_to_failure(needed, failures, draw)) is not None:
                failed += 1
                clock += lost + failures.restart_s
            clock += needed
        if share:
            ends.append(clock)
    return max(ends), failed


def _dealt_stopping_all(
    shares: list[list[float]], start_s: float, failures: Failures, draw: random.Random
) -> tuple[float, int]:
    """Time between failures of any worker that has work; at one, all begin again with the unit that they were doing."""
    clock, failed = start_s, 0
    active = [share for share in shares if share]
    while active:
        longest = max(sum(share) for share in active)
        rate = failures.per_worker_hour * len(active) / 3600
        until = draw.expovariate(rate) if rate else float("inf")
        if until >= longest:
            return clock + longest, failed
        failed += 1
        clock += until + failures.restart_s
        active = [rest for share in active if (rest := _left_after(share, until))]
    return clock, failed


def _left_after(share: list[float], elapsed_s: float) -> list[float]:
    """The units that were not done after `elapsed_s`, the one that was begun among them."""
    for number, needed in enumerate(share):
        if needed > elapsed_s:
            return share[number:]
        elapsed_s -= needed
    return []


def _time_to_failure(needed_s: float, failures: Failures, draw: random.Random) -> float | None:
    """When within a unit's time its worker fails, or None if it does not."""
    if not failures.per_worker_hour:
        return None
    at = draw.expovariate(failures.per_worker_hour / 3600)
    return at if at < needed_s else None
