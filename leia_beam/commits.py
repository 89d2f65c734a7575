"""From a finished unit of work to the one small file that says so, and from those to a stage's counters.

A final name is no commit: a unit is done only if its record is there, is of this build, says `done`, and its files
have the recorded sizes. The record is written last. A unit that found damaged input has a record too, of status
`failed`, so that the other units go on and the launcher tells of it at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from leia_beam.manifest import StageFile
from leia_beam.sealed_json import seal, unseal
from leia_beam.storage import Storage
from leia_beam.stream_checks import StreamCheck

DONE, FAILED = "done", "failed"
READERS = 16
"""Threads that read records from an object store."""
RECORDS_FOLDER = "_done"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitRecord:
    """What one unit did. `start` and `end` are the places of its first and last record, or None where it owns none."""

    stage: str
    fingerprint: str
    unit: int
    unit_count: int
    status: str
    input: Mapping[str, Any]
    files: Sequence[StageFile] = ()
    counters: Mapping[str, int]
    tallies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What is counted by a name that the input chooses (templates dropped): kind → name → number, the most frequent."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """What the stage says of the unit's rows beside its counters."""
    start: tuple[int, int] | None = None
    end: tuple[int, int] | None = None
    ends_input: bool = False
    """The unit read to the end of its input file."""
    end_marker: bool | None = None
    """Whether the last that the unit saw is what closes the dump, `</mediawiki>` or `]`; None if it saw nothing."""
    last_id: str | None = None
    """The last whole record, as a message names it."""
    stream_check: StreamCheck | None = None
    bad_blocks: Sequence[tuple[int, int]] = ()
    """[first byte, last byte) of blocks that were skipped since they do not decode."""
    salvaged: str | None = None
    """Why the input ends early, where that was let pass."""
    warnings: Sequence[str] = ()
    reject_samples: Sequence[Mapping[str, Any]] = ()
    error: str | None = None
    exit_code: int = 0


def record_path(folder: str, unit: int) -> str:
    """Where the commit record of a unit stands."""
    return f"{folder}/{RECORDS_FOLDER}/{unit:05d}.json"


def write_record(storage: Storage, folder: str, record: CommitRecord) -> None:
    """Commit a unit."""
    storage.write(record_path(folder, record.unit), seal(asdict(record)))


def read_record(storage: Storage, folder: str, unit: int, fingerprint: str) -> CommitRecord | None:
    """The record of a unit of this build, or None if there is none (or one of another build, or a damaged one)."""
    content = storage.read(record_path(folder, unit))
    if content is None:
        return None
    try:
        loaded = unseal(content)
        files = [StageFile(**entry) for entry in loaded.pop("files")]
        start, end, check = loaded.pop("start"), loaded.pop("end"), loaded.pop("stream_check")
        bad_blocks = tuple((first, last) for first, last in loaded.pop("bad_blocks"))
        record = CommitRecord(
            **loaded,
            files=files,
            start=tuple(start) if start else None,
            end=tuple(end) if end else None,
            stream_check=StreamCheck(**check) if check else None,
            bad_blocks=bad_blocks,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if record.fingerprint == fingerprint and record.unit == unit else None


def read_done_record(storage: Storage, folder: str, unit: int, fingerprint: str) -> CommitRecord | None:
    """The record of a unit that is done: of this build, not failed, its files there with the recorded sizes."""
    record = read_record(storage, folder, unit, fingerprint)
    if record is None or record.status != DONE:
        return None
    whole = all(storage.size(f"{folder}/{file.path}") == file.size_bytes for file in record.files)
    return record if whole else None


def read_stage_records(storage: Storage, folder: str, unit_count: int, fingerprint: str) -> list[CommitRecord | None]:
    """The record of each unit of a stage: done, with its files whole, or failed; None where there is neither.

    The sizes of all files come from one list, and a remote folder's records are read by many threads: one after another
    the thousands of a full dump would take minutes.
    """
    sizes = storage.sizes(folder)

    def read(unit: int) -> CommitRecord | None:
        if f"{RECORDS_FOLDER}/{unit:05d}.json" not in sizes:
            return None
        record = read_record(storage, folder, unit, fingerprint)
        if record is None or record.status != DONE:
            return record
        return record if all(sizes.get(file.path) == file.size_bytes for file in record.files) else None

    if storage.copies_folder(folder) is None:
        return [read(unit) for unit in range(unit_count)]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, range(unit_count)))


def sum_counters(records: Iterable[CommitRecord]) -> dict[str, int]:
    """The counters of all units, sorted by name."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.counters)
    return dict(sorted(total.items()))


def top_tallies(records: Iterable[CommitRecord], limit: int) -> dict[str, dict[str, int]]:
    """Of each kind the names that all units together counted most, with their numbers; equal ones by name.

    A unit keeps only its own most frequent names, so a number is a lower bound for a name that is rare in some units.
    """
    totals: dict[str, Counter[str]] = {}
    for record in records:
        for kind, names in record.tallies.items():
            totals.setdefault(kind, Counter()).update(names)
    return {kind: most_frequent(total, limit) for kind, total in sorted(totals.items())}


def most_frequent(names: Mapping[str, int], limit: int) -> dict[str, int]:
    """The names with the highest numbers, in that order; equal ones by name.

    >>> most_frequent({"a": 1, "c": 2, "b": 2}, 2)
    {'b': 2, 'c': 2}
    """
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))[:limit])


def conservation_errors(counters: Mapping[str, int]) -> list[str]:
    """For each thing that is counted as read: where read is not emitted + filtered + rejected.

    >>> conservation_errors({"pages/read": 3, "pages/emitted/article": 1, "pages/filtered/namespace": 1})
    ['pages: 3 read, but 1 emitted + 1 filtered + 0 rejected']
    """
    errors = []
    for name, read in counters.items():
        thing, _, last = name.rpartition("/")
        if last != "read":
            continue
        parts = {
            outcome: sum(
                count
                for key, count in counters.items()
                if key == f"{thing}/{outcome}" or key.startswith(f"{thing}/{outcome}/")
            )
            for outcome in ("emitted", "filtered", "rejected")
        }
        if read != sum(parts.values()):
            outcomes = " + ".join(f"{count:,} {outcome}" for outcome, count in parts.items())
            errors.append(f"{thing}: {read:,} read, but {outcomes}")
    return errors
