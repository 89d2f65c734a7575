"""From the sizes of dumps, a number of workers and measured rates to what a build will take.

A stage's units are alike but for the last one, so its time follows from one unit's and from how units are dealt out
(scheduling). What is not shared among workers is named: a dump that can only be read from its start, and the one unit
that follows all redirects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leia_beam.scheduling import run_stage
from leia_beam.title_buckets import default_bucket_count

PROCESSES_A_MACHINE = 4
DISK_GB_OF_IMAGE = 20
MAX_MACHINES = 250
TITLES_A_PAGE_BYTE = 0.0007
"""18 M titles and redirects of 25 GB of English pages; less of other wikis."""
TABLE_BYTES_A_TITLE = 250
"""Tries, rows and the lookup of a title, as they lie on disk."""
WRITTEN_A_RANGE_BYTE = 4
"""What a unit may write for a byte that it reads, text that is not compressed much among it."""
PROCESS_BYTES = 600_000_000
"""A worker process: 370 to 450 MB were measured."""
WIKIDATA, PAGES = "wikidata", "pages"
SEQUENTIAL_FORMATS = ("gzip", "zstd")
REDIRECT_BYTES_A_TITLE = 130
"""Memory of the unit that follows redirects (benchmarks/bench_entities.py: 557 MiB for 4.5 M titles more)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerNeeds:
    """For a cluster of machines of `PROCESSES_A_MACHINE` vCPU, a process each: their number, kind and disk."""

    workers: int
    machine_type: str
    disk_gb: int


def needs_of(units: int, page_bytes: int, range_bytes: int) -> WorkerNeeds:
    """For so many units over the dumps, and a wiki whose dumps have so many compressed bytes.

    Each process does about four units, so that the last ones do not idle long. On disk are the image, the tables of all
    titles (fetched once a machine) and what each process writes before it is put into the store. Memory has to hold the
    unit that follows all redirects, beside the other processes.

    >>> needs_of(2_600, 25 * 10**9, 48 << 20)
    WorkerNeeds(workers=163, machine_type='e2-standard-4', disk_gb=31)
    """
    titles = page_bytes * TITLES_A_PAGE_BYTE
    memory = PROCESSES_A_MACHINE * PROCESS_BYTES + titles * REDIRECT_BYTES_A_TITLE
    disk = titles * TABLE_BYTES_A_TITLE + PROCESSES_A_MACHINE * WRITTEN_A_RANGE_BYTE * range_bytes
    return WorkerNeeds(
        workers=max(1, min(MAX_MACHINES, -(-units // (4 * PROCESSES_A_MACHINE)))),
        machine_type=f"e2-{'standard' if memory < 12e9 else 'highmem'}-{PROCESSES_A_MACHINE}",
        disk_gb=DISK_GB_OF_IMAGE + max(10, math.ceil(2 * disk / 1e9)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpSize:
    """A dump as far as a plan needs it; `kind` is wikidata or pages."""

    kind: str
    name: str
    format: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What was measured on one process: seconds and bytes for a byte of compressed input, or for a title.

    `reading_s`: by stage (sitelinks, articles, shards), a byte of the dump that it is of; `titles_s` and `entities_s`: a
    title; `redirects_s`: a title. `written`: bytes that a stage writes for a byte of its dump.
    """

    reading_s: Mapping[str, float]
    titles_s: float
    redirects_s: float
    entities_s: float
    titles_a_byte: float
    written: Mapping[str, float]
    start_s: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEstimate:
    """What a stage will take with the workers that were asked for; `limit` says what of it is not shared among more."""

    stage: str
    units: int
    unit_s: float
    wall_s: float
    written_bytes: int
    limit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildEstimate:
    """A whole build: its stages, memory of one worker process, memory of the one that follows redirects."""

    stages: Sequence[StageEstimate]
    titles: int
    worker_bytes: int
    redirects_bytes: int

    @property
    def wall_s(self) -> float:
        """All stages, one after another."""
        return sum(stage.wall_s for stage in self.stages)

    @property
    def written_bytes(self) -> int:
        """What the output folder will hold."""
        return sum(stage.written_bytes for stage in self.stages)


def estimate(
    dumps: Sequence[DumpSize], rates: Rates, *, workers: int, range_bytes: int, dealing: str, is_local: bool
) -> BuildEstimate:
    """What a build of these dumps will take. Of local processes each reads all titles, where clusters shuffle them."""

    def spread(stage: str, unit_s: Sequence[float], written: float, limit: str = "") -> StageEstimate:
        outcome = run_stage(unit_s, workers, dealing=dealing, start_s=rates.start_s)
        return StageEstimate(
            stage=stage,
            units=len(unit_s),
            unit_s=max(unit_s, default=0.0),
            wall_s=outcome.wall_s,
            written_bytes=int(written),
            limit=limit or _limit_of(len(unit_s), workers),
        )

    stages = []
    for stage, kind in (("sitelinks", WIKIDATA), ("articles", PAGES)):
        of_kind = [dump for dump in dumps if dump.kind == kind]
        if not of_kind:
            continue
        sequential = [dump for dump in of_kind if dump.format in SEQUENTIAL_FORMATS]
        units = [seconds * rates.reading_s[stage] for dump in of_kind for seconds in _unit_bytes(dump, range_bytes)]
        limit = f"{sequential[0].name} is read from its start by one worker" if sequential else ""
        stages.append(spread(stage, units, rates.written[stage] * _bytes_of(of_kind), limit))
    page_bytes = _bytes_of([dump for dump in dumps if dump.kind == PAGES])
    titles = int(page_bytes * rates.titles_a_byte)
    buckets = default_bucket_count(titles)
    for stage, title_s in (
        ("titles", rates.titles_s),
        ("redirects", rates.redirects_s),
        ("entities", rates.entities_s),
    ):
        count = 1 if stage == "redirects" else buckets
        limit = "one unit follows all redirects" if stage == "redirects" else ""
        if stage == "titles" and is_local and workers > 1:
            title_s, limit = title_s * min(workers, buckets), "each process reads all titles and keeps its own"
        stages.append(spread(stage, [titles * title_s / count] * count, rates.written[stage] * page_bytes, limit))
    shard_units = [
        size * rates.reading_s["shards"]
        for dump in dumps
        if dump.kind == PAGES
        for size in ([range_bytes] * -(-dump.size_bytes // range_bytes))
    ]
    stages.append(spread("shards", shard_units, rates.written["shards"] * page_bytes))
    return BuildEstimate(
        stages=stages,
        titles=titles,
        worker_bytes=rates.peak_bytes,
        redirects_bytes=rates.peak_bytes + titles * REDIRECT_BYTES_A_TITLE,
    )


def _unit_bytes(dump: DumpSize, range_bytes: int) -> list[int]:
    """The bytes of what is scheduled as one: ranges, or the whole of a dump that is read from its start."""
    if dump.format in SEQUENTIAL_FORMATS:
        return [dump.size_bytes]
    whole, rest = divmod(dump.size_bytes, range_bytes)
    return [range_bytes] * whole + ([rest] if rest else [])


def _bytes_of(dumps: Sequence[DumpSize]) -> int:
    return sum(dump.size_bytes for dump in dumps)


def _limit_of(units: int, workers: int) -> str:
    if units < workers:
        return f"{units:,} units for {workers:,} workers; lower --range-bytes"
    return ""
