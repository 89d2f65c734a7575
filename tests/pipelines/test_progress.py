"""progress: what is done is read from commit records, so that it is right after a resume as well."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leia_beam.commits import DONE, FAILED, CommitRecord, write_record
from leia_beam.console import Console, Measure
from leia_beam.manifest import StageFile
from leia_beam.plans import StagePlan
from leia_beam.storage import LocalStorage
from leia_beam.units import Unit
from pipelines.progress import Progress, measure_of


class _CountingStorage(LocalStorage):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.lists = 0

    def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        return super().read(path)

    def list(self, folder: str) -> list[str]:
        self.lists += 1
        return super().list(folder)


@dataclass
class _Stage:
    folder: str
    storage: _CountingStorage = field(default_factory=_CountingStorage)
    plan: StagePlan = field(default_factory=lambda: StagePlan(stage="articles", identity={}, unit_count=4))

    def units(self) -> list[Unit]:
        return [Unit(number=number, count=4, path="x", start=0, end=10**9) for number in range(4)]

    def commit(self, unit: int, status: str = DONE, fingerprint: str | None = None) -> None:
        file = StageFile(path=f"data/{unit}", table="articles", unit=unit, rows=1_500, size_bytes=1, sha256="")
        write_record(
            self.storage,
            self.folder,
            CommitRecord(
                stage="articles",
                fingerprint=fingerprint or self.plan.fingerprint,
                unit=unit,
                unit_count=4,
                status=status,
                input={},
                files=[file],
                counters={},
            ),
        )


class _Said(Console):
    """What was told, and a wait for a certain text."""

    def __init__(self, wanted: str):
        super().__init__("test")
        self.told: list[Measure] = []
        self._wanted = wanted
        self._seen = threading.Event()

    def progress(self, measure: Measure, *, last: bool = False) -> None:
        self.told.append(measure)
        if self._wanted in measure.text:
            self._seen.set()

    def wait(self) -> bool:
        return self._seen.wait(600)


def test_lines_count_records_and_rates_count_this_run_alone(tmp_path: Path) -> None:
    """Units that were done before add to what is done, not to the rate; failed and foreign records are no progress."""
    stage, said = _Stage(str(tmp_path)), _Said("3 of 4")
    stage.commit(0)
    stage.commit(1, status=FAILED)
    stage.commit(2, fingerprint="of another build")
    with Progress(stage, stage.units(), said, interval_s=0.01):
        stage.commit(3)
        stage.commit(2)
        assert said.wait()
    last = said.told[-1]
    assert last.text.startswith("3 of 4 units, 3,000 of 4,000 MB, 4,500 articles")
    assert (last.stage, last.done, last.total, last.unit) == ("articles", 3 * 10**9, 4 * 10**9, "bytes")


def test_each_record_is_read_once(tmp_path: Path) -> None:
    """However often the folder is listed: an object store takes money for each request."""
    stage, said = _Stage(str(tmp_path)), _Said("2 of 4")
    stage.commit(0)
    with Progress(stage, stage.units(), said, interval_s=0.01):
        for _ in range(20):
            threading.Event().wait(0.02)
        stage.commit(1)
        assert said.wait()
    assert stage.storage.lists > 3
    assert sorted(stage.storage.reads) == [f"{tmp_path}/_done/00000.json", f"{tmp_path}/_done/00001.json"]


def _measure(sizes: Sequence[int], done: set[int], before: set[int], elapsed_s: float) -> Measure:
    return measure_of(
        name="shards",
        sizes=dict(enumerate(sizes)),
        done=done,
        done_before=before,
        rows={"articles": 1_234},
        elapsed_s=elapsed_s,
    )


def test_a_measure_says_rate_and_rest() -> None:
    """Of this run alone; units are counted where they have no bytes."""
    found = _measure([10**9] * 3, {0, 1}, {0}, 100)
    assert found.text == "2 of 3 units, 2,000 of 3,000 MB, 1,234 articles, 10.0 MB/s, 1 min 40 s left"
    assert (found.rate, found.left_s) == (1e7, 100.0)
    found = _measure([0, 0], {0}, set(), 5)
    assert found.text == "1 of 2 units, 1,234 articles"
    assert (found.done, found.total, found.unit, found.rate, found.left_s) == (1, 2, "units", None, None)
