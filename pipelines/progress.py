"""From the commit records of a running stage to a line that says how far it is.

Records are counted, not metrics: a runner's metrics lag and count retried work twice. They are listed at most every ten
seconds, so an object store is not asked often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from leia_beam.commits import RECORDS_FOLDER
from leia_beam.units import AnyStage, Unit

INTERVAL_S = 10.0
_MIN_RATE_S = 1.0


class Progress:
    """While it is entered, says every `interval_s` seconds what is done of a stage's units."""

    def __init__(
        self, stage: AnyStage, units: Sequence[Unit], say: Callable[[str], None], interval_s: float = INTERVAL_S
    ):
        self._stage = stage
        # A bucket's size is an estimate, which decides how many processes there are: nothing to tell a user in MB.
        self._sizes = {f"{unit.number:05d}.json": unit.end - unit.start if unit.path else 0 for unit in units}
        self._say = say
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)
        self._done_before: set[str] = set()
        self._began = 0.0

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._done_before = self._done()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _done(self) -> set[str]:
        return self._sizes.keys() & set(self._stage.storage.list(f"{self._stage.folder}/{RECORDS_FOLDER}"))

    def _report(self) -> None:
        while not self._stop.wait(self._interval_s):
            done = self._done()
            line = progress_line(
                name=self._stage.plan.stage,
                sizes=self._sizes,
                done=done,
                done_before=self._done_before,
                elapsed_s=time.monotonic() - self._began,
            )
            self._say(line)


def progress_line(*, name: str, sizes: dict[str, int], done: set[str], done_before: set[str], elapsed_s: float) -> str:
    """Units and bytes of input done, the rate since the run began, and what that leaves to wait.

    >>> progress_line(name="articles", sizes={"0": 10**7, "1": 10**7}, done={"0"}, done_before=set(), elapsed_s=5)
    'articles   1 of 2 units, 10 of 20 MB, 2.0 MB/s, 5 s left'
    """
    total, read = sum(sizes.values()), sum(sizes[unit] for unit in done)
    counted = f"{name:<10} {len(done):,} of {len(sizes):,} units"
    if not total:
        return counted
    line = f"{counted}, {_megabytes(read, total)}"
    fresh = sum(sizes[unit] for unit in done - done_before)
    if not fresh or elapsed_s < _MIN_RATE_S:
        return line
    rate = fresh / elapsed_s
    return f"{line}, {rate / 1e6:,.1f} MB/s, {duration((total - read) / rate)} left"


def _megabytes(read: int, total: int) -> str:
    unit, divisor = ("GB", 1e9) if total >= 10e9 else ("MB", 1e6)
    digits = 1 if total < 10 * divisor else 0
    return f"{read / divisor:,.{digits}f} of {total / divisor:,.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """A duration as people say it.

    >>> duration(9), duration(75), duration(7300)
    ('9 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
