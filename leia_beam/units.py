"""The heart: from the descriptor of a unit of work to its files and its commit record.

The bytes of unit k depend on what it reads alone: the same for any runner, any number of workers, any retry. A unit
writes to the worker's own disk, takes the sums, publishes each file under its final name, and commits last. A fault
that would happen again (damaged input) ends in a record of status `failed`; only what may pass on retry raises.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa

from leia_beam.commits import DONE, FAILED, CommitRecord, most_frequent, read_done_record, write_record
from leia_beam.dumps import Dump, DumpReader, byte_ranges
from leia_beam.errors import DamagedInput, LeiaError, MissingResource, UsageError
from leia_beam.manifest import StageFile
from leia_beam.plans import StagePlan, current_versions
from leia_beam.ranges import Place, RangeReport
from leia_beam.storage import Storage, environment_errors, sha256_of
from leia_beam.stream_checks import StreamCheck, stream_check
from leia_beam.tables import TableWriter

MAX_SAMPLES = 5
MAX_TALLIED = 1000
"""How many names of each kind of tally a unit's record holds."""
SHOWN_REJECT_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A unit of work: the byte range [start, end) of an input file, or a bucket of titles (path '')."""

    number: int
    count: int
    path: str = ""
    name: str = ""
    size_bytes: int = 0
    start: int = 0
    end: int = 0
    dump: Dump | None = None
    """The dump that it is a range of, where it is one."""

    @property
    def input(self) -> dict[str, Any]:
        """What the commit record says of the input: no path of the launcher's machine."""
        return {"name": self.name, "size_bytes": self.size_bytes, "start": self.start, "end": self.end}


def dump_units(dumps: Sequence[Dump], range_bytes: int) -> list[Unit]:
    """The byte ranges of several dump files as units, numbered through."""
    ranges = [(dump, start, end) for dump in dumps for start, end in byte_ranges(dump, range_bytes)]
    return [
        Unit(
            number=number,
            count=len(ranges),
            path=dump.path,
            name=dump.name,
            size_bytes=dump.size_bytes,
            start=start,
            end=end,
            dump=dump,
        )
        for number, (dump, start, end) in enumerate(ranges)
    ]


def chains(units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
    """What is scheduled as one: each unit by itself, but all ranges of a file that is read from its start in order."""
    together: dict[object, list[Unit]] = {}
    for unit in units:
        is_sequential = unit.dump is not None and unit.dump.is_sequential
        together.setdefault(unit.path if is_sequential else unit.number, []).append(unit)
    return [tuple(chain) for chain in together.values()]


class AnyStage(Protocol):
    """A stage: a picklable value that holds its settings. What it does with a unit: see Stage and RangeStage."""

    @property
    def folder(self) -> str:
        """Where its files go."""

    @property
    def plan(self) -> StagePlan:
        """What it will do, with the fingerprint."""

    @property
    def storage(self) -> Storage:
        """How its files are written."""

    def units(self) -> list[Unit]:
        """All units, in order."""


class Stage(AnyStage, Protocol):
    """A stage whose units stand by themselves."""

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Read what the unit describes and write its rows."""


class RangeStage(AnyStage, Protocol):
    """A stage over dumps: its units are byte ranges, read by a reader that goes from range to range."""

    def open_reader(self, dump: Dump) -> DumpReader:
        """A reader of the stage's records."""

    def process_range(self, unit: Unit, reader: DumpReader, output: UnitOutput) -> None:
        """Read the range and write its rows."""


class UnitOutput:
    """Where the work of one unit puts its rows, rejects and counts. Files lie in `scratch` until they are published."""

    def __init__(self, unit: Unit, fingerprint: str, scratch: str):
        self.counters: Counter[str] = Counter()
        self.tallies: dict[str, Counter[str]] = {}
        self.warnings: list[str] = []
        self.reject_samples: list[dict[str, Any]] = []
        self.start: tuple[int, int] | None = None
        self.end: tuple[int, int] | None = None
        self.ends_input = False
        self.end_marker: bool | None = None
        """Whether the dump's end mark is the last thing that was seen; None as long as nothing was."""
        self.last_id: str | None = None
        """The last whole record, as a message names it: 'page id 12'."""
        self.stream_check: StreamCheck | None = None
        self.bad_blocks: list[tuple[int, int]] = []
        self.salvaged: str | None = None
        self.statistics: Mapping[str, Any] = {}
        """What the stage says of the unit's rows beside its counters."""
        self._unit = unit
        self._suffix = f"{unit.number:05d}-of-{unit.count:05d}-{fingerprint[:8]}"
        self._scratch = scratch
        self._files: list[tuple[str, str, Callable[[], int]]] = []
        self._writers: list[TableWriter] = []
        self._rejects: Any = None
        self._reject_count = 0

    def table(self, table: str, schema: pa.Schema) -> TableWriter:
        """The unit's file of a table."""
        name = f"{table}-{self._suffix}.parquet"
        writer = TableWriter(os.path.join(self._scratch, name), schema)
        self._writers.append(writer)
        self._files.append((table, f"data/{name}", lambda: writer.rows))
        return writer

    def file(self, table: str, folder: str, extension: str, rows: int) -> str:
        """The local path of another file of the unit, which the caller writes."""
        name = f"{table}-{self._suffix}.{extension}"
        self._files.append((table, f"{folder}/{name}", lambda: rows))
        return os.path.join(self._scratch, name)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] += number

    def count_any(self, name: str, number: int) -> None:
        """Add to a counter that is there only where there is something to count."""
        if number:
            self.count(name, number)

    def tally(self, tallies: Mapping[str, Mapping[str, int]]) -> None:
        """Add to what is counted by a name that the input chooses: kind → name → number."""
        for kind, names in tallies.items():
            self.tallies.setdefault(kind, Counter()).update(names)

    def reject(self, thing: str, reason: str, place: Place | None, identifier: str | None, raw: bytes) -> None:
        """Count a record that cannot be used, and write down which one."""
        self.count(f"{thing}/rejected/{reason}")
        entry = {
            "reason": reason,
            "file": self._unit.name,
            "byte": self._byte_of(place),
            "place": [place.block_bit, place.offset] if place else None,
            "id": identifier,
            "first_bytes": raw[:SHOWN_REJECT_BYTES].decode("utf-8", "backslashreplace"),
        }
        self._write_reject(entry)
        if len(self.reject_samples) < MAX_SAMPLES:
            self.reject_samples.append(entry)

    def _byte_of(self, place: Place | None) -> int | None:
        """The byte of the file: of the block for bzip2, none for a stream that is read from its start."""
        if place is None:
            return None
        dump = self._unit.dump
        if dump is not None and dump.is_sequential:
            return None
        return place.block_bit // 8 if place.block_bit else place.offset

    def _write_reject(self, entry: Mapping[str, Any]) -> None:
        if self._rejects is None:
            name = f"rejects-{self._suffix}.jsonl"
            self._rejects = open(os.path.join(self._scratch, name), "w", encoding="utf-8")  # noqa: SIM115 (closed in files)
            self._files.append(("rejects", f"rejects/{name}", lambda: self._reject_count))
        self._rejects.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._reject_count += 1

    def take_report(self, report: RangeReport) -> None:
        """Keep where the range's first record began and its last ended, and what proves that it is whole."""
        self.start = (report.start.block_bit, report.start.offset) if report.start else None
        self.end = (report.end.block_bit, report.end.offset) if report.end else None
        self.ends_input = report.ends_file
        self.warnings += report.warnings
        self.salvaged = report.salvaged
        if report.block_crcs or report.stream_ends:
            self.stream_check = stream_check(report.block_crcs, report.stream_ends)
        for bit, end_bit in report.bad_blocks:
            self.bad_blocks.append((bit // 8, end_bit // 8))
            reason = "block does not decode; the records that touch it are lost"
            self._write_reject(
                {
                    "reason": reason,
                    "file": self._unit.name,
                    "byte": bit // 8,
                    "place": None,
                    "id": None,
                    "first_bytes": "",
                }
            )

    def close(self) -> list[tuple[StageFile, str]]:
        """Finish all files: each with its sums and its local path, in the order in which they were begun."""
        for writer in self._writers:
            writer.close()
        if self._rejects is not None:
            self._rejects.close()
        finished = []
        for table, path, rows in self._files:
            local_path = os.path.join(self._scratch, os.path.basename(path))
            file = StageFile(
                path=path,
                table=table,
                unit=self._unit.number,
                rows=rows(),
                size_bytes=os.path.getsize(local_path),
                sha256=sha256_of(local_path),
            )
            finished.append((file, local_path))
        return finished


def run_unit(stage: AnyStage, unit: Unit, work: Callable[[Unit, UnitOutput], None]) -> CommitRecord:
    """Do a unit's work unless it is done already, and commit it."""
    storage, folder, fingerprint = stage.storage, stage.folder, stage.plan.fingerprint
    done = read_done_record(storage, folder, unit.number, fingerprint)
    if done is not None:
        return done
    with tempfile.TemporaryDirectory(prefix=f"leia-{stage.plan.stage}-{unit.number:05d}-") as scratch:
        output = UnitOutput(unit, fingerprint, scratch)
        try:
            _check_versions(stage.plan)
            with environment_errors(scratch):
                work(unit, output)
                finished = output.close()
        except (DamagedInput, UsageError) as error:
            record = _failed_record(stage.plan, unit, error, output.last_id)
            write_record(storage, folder, record)
            return record
        except MemoryError as error:
            raise MissingResource(
                f"{stage.plan.stage}, unit {unit.number} ({unit.name or 'a bucket of titles'}, bytes {unit.start:,} to "
                f"{unit.end:,}): out of memory; give fewer --workers, or a machine with more"
            ) from error
        for file, local_path in finished:
            storage.publish(local_path, f"{folder}/{file.path}")
        record = CommitRecord(
            stage=stage.plan.stage,
            fingerprint=fingerprint,
            unit=unit.number,
            unit_count=unit.count,
            status=DONE,
            input=unit.input,
            files=[file for file, _ in finished],
            counters=dict(sorted(output.counters.items())),
            tallies={kind: most_frequent(names, MAX_TALLIED) for kind, names in sorted(output.tallies.items())},
            statistics=output.statistics,
            start=output.start,
            end=output.end,
            ends_input=output.ends_input,
            end_marker=output.end_marker,
            last_id=output.last_id,
            stream_check=output.stream_check,
            bad_blocks=tuple(output.bad_blocks),
            salvaged=output.salvaged,
            warnings=output.warnings,
            reject_samples=output.reject_samples,
        )
        write_record(storage, folder, record)
        shutil.rmtree(scratch, ignore_errors=True)
    return record


def run_chain(stage: Stage | RangeStage, chain: Sequence[Unit]) -> list[CommitRecord]:
    """Do the work of some units in their order, ranges of a dump with one reader; each is committed as it is done."""
    dump = chain[0].dump
    if dump is None:
        return [run_unit(stage, unit, cast(Stage, stage).process) for unit in chain]
    ranges = cast(RangeStage, stage)
    with ranges.open_reader(dump) as reader:

        def work(unit: Unit, output: UnitOutput) -> None:
            ranges.process_range(unit, reader, output)

        return [run_unit(stage, unit, work) for unit in chain]


def _check_versions(plan: StagePlan) -> None:
    """A worker with other versions would write other bytes under the same names."""
    expected: Mapping[str, str] = plan.identity["versions"]
    found = current_versions(tuple(expected))
    for name, version in expected.items():
        if found[name] != version:
            raise UsageError(
                f"a worker has {name} {found[name]}, the launcher {version}; install the same versions on all workers"
            )


def _failed_record(plan: StagePlan, unit: Unit, error: LeiaError, last_id: str | None) -> CommitRecord:
    return CommitRecord(
        stage=plan.stage,
        fingerprint=plan.fingerprint,
        unit=unit.number,
        unit_count=unit.count,
        status=FAILED,
        input=unit.input,
        counters={},
        error=str(error),
        exit_code=error.exit_code,
        last_id=last_id,
    )
