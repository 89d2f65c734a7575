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
from typing import Any, Protocol

import pyarrow as pa

from leia_beam.commits import DONE, FAILED, CommitRecord, read_done_record, write_record
from leia_beam.dumps import Dump, byte_ranges
from leia_beam.errors import DamagedInput, LeiaError, UsageError
from leia_beam.manifest import StageFile
from leia_beam.plans import StagePlan, current_versions
from leia_beam.ranges import Place, RangeReport
from leia_beam.storage import Storage, environment_errors, sha256_of
from leia_beam.tables import TableWriter

MAX_SAMPLES = 5
SHOWN_REJECT_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A unit of work: the byte range [start, end) of an input file, or a bucket of titles (path '')."""

    number: int
    count: int
    path: str = ""
    name: str = ""
    format: str = ""
    size_bytes: int = 0
    start: int = 0
    end: int = 0

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
            format=dump.format,
            size_bytes=dump.size_bytes,
            start=start,
            end=end,
        )
        for number, (dump, start, end) in enumerate(ranges)
    ]


def unit_dump(unit: Unit) -> Dump:
    """The dump that a unit is a range of."""
    return Dump(path=unit.path, format=unit.format, size_bytes=unit.size_bytes)


class Stage(Protocol):
    """A stage: a picklable value that holds its settings and does the work of one unit."""

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

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Read what the unit describes and write its rows."""


class UnitOutput:
    """Where the work of one unit puts its rows, rejects and counts. Files lie in `scratch` until they are published."""

    def __init__(self, unit: Unit, fingerprint: str, scratch: str):
        self.counters: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.reject_samples: list[dict[str, Any]] = []
        self.start: tuple[int, int] | None = None
        self.end: tuple[int, int] | None = None
        self.ends_input = False
        self.end_marker = False
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

    def reject(self, thing: str, reason: str, place: Place | None, identifier: str | None, raw: bytes) -> None:
        """Count a record that cannot be used, and write down which one."""
        self.count(f"{thing}/rejected/{reason}")
        entry = {
            "reason": reason,
            "file": self._unit.name,
            "place": [place.block_bit, place.offset] if place else None,
            "compressed_byte": place.block_bit // 8 if place else None,
            "id": identifier,
            "first_bytes": raw[:SHOWN_REJECT_BYTES].decode("utf-8", "backslashreplace"),
        }
        if self._rejects is None:
            name = f"rejects-{self._suffix}.jsonl"
            self._rejects = open(os.path.join(self._scratch, name), "w", encoding="utf-8")  # noqa: SIM115 (closed in files)
            self._files.append(("rejects", f"rejects/{name}", lambda: self._reject_count))
        self._rejects.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._reject_count += 1
        if len(self.reject_samples) < MAX_SAMPLES:
            self.reject_samples.append(entry)

    def take_places(self, report: RangeReport) -> None:
        """Keep where the range's first record began and its last ended."""
        self.start = (report.start.block_bit, report.start.offset) if report.start else None
        self.end = (report.end.block_bit, report.end.offset) if report.end else None
        self.ends_input = report.ends_file
        self.warnings += report.warnings

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


def run_unit(stage: Stage, unit: Unit, work: Callable[[Unit, UnitOutput], None] | None = None) -> CommitRecord:
    """Do a unit's work unless it is done already, and commit it. `work` is by default the stage's own `process`."""
    storage, folder, fingerprint = stage.storage, stage.folder, stage.plan.fingerprint
    done = read_done_record(storage, folder, unit.number, fingerprint)
    if done is not None:
        return done
    with tempfile.TemporaryDirectory(prefix=f"leia-{stage.plan.stage}-{unit.number:05d}-") as scratch:
        output = UnitOutput(unit, fingerprint, scratch)
        try:
            _check_versions(stage.plan)
            with environment_errors(scratch):
                (work or stage.process)(unit, output)
                finished = output.close()
        except (DamagedInput, UsageError) as error:
            record = _failed_record(stage.plan, unit, error)
            write_record(storage, folder, record)
            return record
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
            start=output.start,
            end=output.end,
            ends_input=output.ends_input,
            end_marker=output.end_marker,
            warnings=output.warnings,
            reject_samples=output.reject_samples,
        )
        write_record(storage, folder, record)
        shutil.rmtree(scratch, ignore_errors=True)
    return record


def _check_versions(plan: StagePlan) -> None:
    """A worker with other versions would write other bytes under the same names."""
    expected: Mapping[str, str] = plan.identity["versions"]
    found = current_versions(tuple(expected))
    for name, version in expected.items():
        if found[name] != version:
            raise UsageError(
                f"a worker has {name} {found[name]}, the launcher {version}; install the same versions on all workers"
            )


def _failed_record(plan: StagePlan, unit: Unit, error: LeiaError) -> CommitRecord:
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
    )
