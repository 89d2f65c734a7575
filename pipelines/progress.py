"""From the commit records of a running stage to a line that says how far it is, on any runner and after any resume.

Records are counted, not metrics: Flink and FnApiRunner run all units of a slot as one bundle, so that their metrics lag to
the end, and a retry counts twice. Records are listed at most every ten seconds and each is read once, so an object store
is not asked often.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from types import TracebackType

from leia_beam.commits import DONE, RECORDS_FOLDER, read_record
from leia_beam.errors import LeiaError
from leia_beam.units import AnyStage, Unit

INTERVAL_S = 10.0
_MIN_RATE_S = 1.0
_COUNTED = {"sitelinks": "items", "langlinks": "links", "articles": "articles", "train": "articles"}
"""Of which tables the rows are told, and what they are called."""


class Progress:
    """While it is entered, says every `interval_s` seconds what is done of a stage's units."""

    def __init__(
        self, stage: AnyStage, units: Sequence[Unit], say: Callable[[str], None], interval_s: float = INTERVAL_S
    ):
        self._stage = stage
        # A bucket's size is an estimate, which decides how many processes there are: nothing to tell a user in MB.
        self._sizes = {unit.number: unit.end - unit.start if unit.path else 0 for unit in units}
        self._fingerprint = stage.plan.fingerprint
        self._done: set[int] = set()
        self._rows: Counter[str] = Counter()
        self._say = say
        self._interval_s = interval_s
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
            line = progress_line(
                name=self._stage.plan.stage,
                sizes=self._sizes,
                done=self._done,
                done_before=self._done_before,
                rows=self._rows,
                elapsed_s=time.monotonic() - self._began,
            )
            self._say(line)


def progress_line(
    *,
    name: str,
    sizes: Mapping[int, int],
    done: Set[int],
    done_before: Set[int],
    rows: Mapping[str, int],
    elapsed_s: float,
) -> str:
    """Units and bytes of input done, rows written, the rate since the run began, and what that leaves to wait.

    >>> sizes = {0: 10**7, 1: 10**7}
    >>> progress_line(name="articles", sizes=sizes, done={0}, done_before=set(), rows={"articles": 900}, elapsed_s=5)
    'articles   1 of 2 units, 10 of 20 MB, 900 articles, 2.0 MB/s, 5 s left'
    """
    total, read = sum(sizes.values()), sum(sizes[unit] for unit in done)
    line = f"{name:<10} {len(done):,} of {len(sizes):,} units"
    if total:
        line += f", {_megabytes(read, total)}"
    line += "".join(f", {count:,} {what}" for what, count in rows.items() if count)
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
