"""From the commit records of a running stage to a line that says how far it is, on any runner and after any resume.

Records are counted, not metrics: Flink and FnApiRunner run all units of a slot as one bundle, so that their metrics lag to
the end, and a retry counts twice. Each record is read once, and those of an object store are listed at most every ten
seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from types import TracebackType

from leia_beam.commits import DONE, RECORDS_FOLDER, read_record
from leia_beam.console import Console, Measure, duration
from leia_beam.errors import LeiaError
from leia_beam.sources import is_remote
from leia_beam.units import AnyStage, Unit

INTERVAL_S, REMOTE_INTERVAL_S = 1.0, 10.0
_MIN_RATE_S = 1.0
_COUNTED = {"sitelinks": "items", "langlinks": "links", "articles": "articles", "train": "articles"}
"""Of which tables the rows are told, and what they are called."""


class Progress:
    """While it is entered, tells a console every `interval_s` seconds what is done of a stage's units."""

    def __init__(self, stage: AnyStage, units: Sequence[Unit], console: Console, interval_s: float | None = None):
        self._stage = stage
        # A bucket's size is an estimate, which decides how many processes there are: nothing to tell a user in MB.
        self._sizes = {unit.number: unit.end - unit.start if unit.path else 0 for unit in units}
        self._fingerprint = stage.plan.fingerprint
        self._done: set[int] = set()
        self._rows: Counter[str] = Counter()
        self._console = console
        usual_s = REMOTE_INTERVAL_S if is_remote(stage.folder) else INTERVAL_S
        self._interval_s = usual_s if interval_s is None else interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)
        self._done_before: frozenset[int] = frozenset()
        self._began = 0.0

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._look()
        self._done_before = frozenset(self._done)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._console.clear()
        if isinstance(error, KeyboardInterrupt):
            self._look()
            raise KeyboardInterrupt(
                f"{len(self._done):,} of {len(self._sizes):,} units of {self._stage.plan.stage} are done and kept; "
                "the same command goes on from there"
            ) from None

    def _look(self) -> None:
        """Read the records that are new."""
        storage, folder = self._stage.storage, self._stage.folder
        for name in storage.list(f"{folder}/{RECORDS_FOLDER}"):
            number = int(name.removesuffix(".json")) if name.removesuffix(".json").isdecimal() else -1
            if number not in self._sizes or number in self._done:
                continue
            record = read_record(storage, folder, number, self._fingerprint)
            if record is not None and record.status == DONE:
                self._done.add(number)
                self._rows.update({_COUNTED[file.table]: file.rows for file in record.files if file.table in _COUNTED})

    def _report(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._look()
            except LeiaError:  # a store that does not answer now: the workers will tell if it matters
                continue
            self._console.progress(
                measure_of(
                    name=self._stage.plan.stage,
                    sizes=self._sizes,
                    done=self._done,
                    done_before=self._done_before,
                    rows=self._rows,
                    elapsed_s=time.monotonic() - self._began,
                )
            )


def measure_of(
    *,
    name: str,
    sizes: Mapping[int, int],
    done: Set[int],
    done_before: Set[int],
    rows: Mapping[str, int],
    elapsed_s: float,
) -> Measure:
    """Units and bytes of input done, rows written, the rate since the run began, and what that leaves to wait.

    >>> sizes = {0: 10**7, 1: 10**7}
    >>> measure_of(name="articles", sizes=sizes, done={0}, done_before=set(), rows={"articles": 900}, elapsed_s=5).text
    '1 of 2 units, 10 of 20 MB, 900 articles, 2.0 MB/s, 5 s left'
    """
    total, read = sum(sizes.values()), sum(sizes[unit] for unit in done)
    text = f"{len(done):,} of {len(sizes):,} units"
    if total:
        text += f", {_megabytes(read, total)}"
    text += "".join(f", {count:,} {what}" for what, count in rows.items() if count)
    fresh = sum(sizes[unit] for unit in done - done_before)
    rate = left_s = None
    if fresh and elapsed_s >= _MIN_RATE_S:
        rate = fresh / elapsed_s
        left_s = (total - read) / rate
        text += f", {rate / 1e6:,.1f} MB/s, {duration(left_s)} left"
    if total:
        return Measure(stage=name, done=read, total=total, unit="bytes", text=text, rate=rate, left_s=left_s)
    return Measure(stage=name, done=len(done), total=len(sizes), unit="units", text=text)


def _megabytes(read: int, total: int) -> str:
    unit, divisor = ("GB", 1e9) if total >= 10e9 else ("MB", 1e6)
    digits = 1 if total < 10 * divisor else 0
    return f"{read / divisor:,.{digits}f} of {total / divisor:,.{digits}f} {unit}"
