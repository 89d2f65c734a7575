"""units: files first and the record last, nothing under a final name from an attempt that failed, nothing done twice."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from leia_beam import units as units_module
from leia_beam.commits import DONE, FAILED, read_record
from leia_beam.dumps import Dump
from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_beam.manifest import check_file
from leia_beam.plans import StagePlan, identity_of
from leia_beam.ranges import Place, RangeReport
from leia_beam.schema import REDIRECTS
from leia_beam.storage import LocalStorage
from leia_beam.tables import read_rows
from leia_beam.units import MAX_SAMPLES, Unit, UnitOutput, chains, dump_units, run_chain, run_unit
from tests.conftest import OTHER_HOST

UNIT = Unit(number=2, count=5, path="/secret/x.bz2", name="x.bz2", size_bytes=100, start=40, end=60)
ROW = {"wiki": "jawiki", "page_id": 1, "from": "a", "to": "b", "fragment": None, "to_interwiki": None}


def done(stage):
    """The record of the unit after the stage's own work."""
    return run_chain(stage, [UNIT])[0]


class Recorder(LocalStorage):
    """Says what it was asked to write, in order, and can fail there."""

    def __init__(self, fail_at: str = ""):
        self.written: list[str] = []
        self.fail_at = fail_at

    def publish(self, local_path, path):
        self._note(path)
        super().publish(local_path, path)

    def write(self, path, content):
        self._note(path)
        super().write(path, content)

    def _note(self, path):
        if self.fail_at and self.fail_at in path:
            raise MissingResource(f"{path}: full")
        self.written.append(path)


@dataclass(frozen=True, kw_only=True)
class OneStage:
    """A stage whose work is a function."""

    folder: str
    work: Callable[[Unit, UnitOutput], None]
    versions: tuple[str, ...] = ("pyarrow",)
    storage: Recorder = field(default_factory=Recorder)

    @property
    def plan(self) -> StagePlan:
        return StagePlan(stage="one", identity=identity_of("one", [], {}, self.versions), unit_count=5)

    def units(self):
        return [UNIT]

    def process(self, unit, output):
        self.work(unit, output)


def good_work(unit, output):
    table = output.table("redirects", REDIRECTS)
    for number in range(3):
        output.count("pages/read")
        table.write({**ROW, "page_id": number}, 10)
        output.count("pages/emitted/redirect")
    output.count("pages/read")
    output.reject("pages", "no title", Place(80, 7), "17", "東京\x1b[31m".encode() + b"\xff" + b"y" * 500)
    Path(output.file("note", "lookup", "txt", 4)).write_text("note")
    report = RangeReport()
    report.start, report.end, report.ends_file = Place(80, 0), Place(160, 9), True
    report.warnings.append("padding")
    output.take_report(report)
    output.end_marker = True


def files_below(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The worker's own disk, to see what is left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(units_module.tempfile, "tempdir", str(folder))
    return folder


def stage_of(tmp_path, work=good_work, **fields):
    return OneStage(folder=str(tmp_path / "out"), work=work, **fields)


def test_a_unit_writes_its_files_and_last_its_record(tmp_path, scratch):
    """In the order in which they were begun; the record is as it was returned; the scratch disk is empty again."""
    stage = stage_of(tmp_path)
    record = done(stage)
    fp8 = stage.plan.fingerprint[:8]
    paths = [
        f"data/redirects-00002-of-00005-{fp8}.parquet",
        f"rejects/rejects-00002-of-00005-{fp8}.jsonl",
        f"lookup/note-00002-of-00005-{fp8}.txt",
    ]
    assert stage.storage.written == [f"{stage.folder}/{path}" for path in (*paths, "_done/00002.json")]
    assert [(file.path, file.table, file.unit, file.rows) for file in record.files] == [
        (paths[0], "redirects", 2, 3),
        (paths[1], "rejects", 2, 1),
        (paths[2], "note", 2, 4),
    ]
    for file in record.files:
        check_file(stage.folder, file)
    assert record == read_record(stage.storage, stage.folder, 2, stage.plan.fingerprint)
    assert (record.status, record.start, record.end, record.ends_input, record.end_marker) == (
        DONE,
        (80, 0),
        (160, 9),
        True,
        True,
    )
    assert record.counters == {"pages/emitted/redirect": 3, "pages/read": 4, "pages/rejected/no title": 1}
    assert (list(record.warnings), record.error, record.exit_code) == (["padding"], None, 0)
    assert len(list(read_rows(f"{stage.folder}/{paths[0]}"))) == 3
    assert os.listdir(scratch) == []


def test_a_record_holds_nothing_of_the_machine(tmp_path, scratch, other_host):
    """The input by its base name."""
    done(stage_of(tmp_path))
    text = (tmp_path / "out/_done/00002.json").read_text()
    assert "secret" not in text and str(tmp_path) not in text and OTHER_HOST not in text
    assert json.loads(text)["input"] == {"name": "x.bz2", "size_bytes": 100, "start": 40, "end": 60}


def test_a_reject_is_written_with_its_place_and_first_bytes(tmp_path, scratch):
    """200 bytes at most, bad UTF-8 and control characters escaped, and a sample in the record."""
    record = done(stage_of(tmp_path))
    line = (tmp_path / "out" / record.files[1].path).read_text(encoding="utf-8")
    assert "\x1b" not in line and line.endswith("}\n")
    entry = json.loads(line)
    assert entry == {
        "reason": "no title",
        "file": "x.bz2",
        "place": [80, 7],
        "byte": 10,
        "id": "17",
        "first_bytes": "東京\x1b[31m\\xff" + "y" * 188,
    }
    assert list(record.reject_samples) == [entry]


def test_samples_of_rejects_are_few(tmp_path, scratch):
    """The file has all of them."""

    def work(unit, output):
        for _ in range(30):
            output.reject("pages", "x", None, None, b"")

    record = done(stage_of(tmp_path, work))
    assert (len(record.reject_samples), record.files[0].rows) == (MAX_SAMPLES, 30)


def test_a_second_call_does_nothing(tmp_path, scratch):
    """The record is returned, no work is done, nothing is written."""
    first = done(stage_of(tmp_path))

    def work(unit, output):
        raise AssertionError("done twice")

    again = stage_of(tmp_path, work)
    assert done(again) == first
    assert again.storage.written == []


def test_a_unit_whose_file_is_gone_is_done_again(tmp_path, scratch):
    """And gives the same bytes."""
    first = done(stage_of(tmp_path))
    os.remove(tmp_path / "out" / first.files[0].path)
    again = stage_of(tmp_path)
    assert done(again) == first
    assert len(again.storage.written) == 4
    check_file(again.folder, first.files[0])


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), MemoryError(), ValueError("x")])
def test_an_exception_amid_the_work_leaves_nothing(tmp_path, scratch, error):
    """Rows were written already: no record, no final file, no scratch file; the next attempt does it whole."""

    def work(unit, output):
        good_work(unit, output)
        raise error

    expected = MissingResource if isinstance(error, MemoryError) else type(error)  # which names the unit
    with pytest.raises(expected):
        done(stage_of(tmp_path, work))
    assert files_below(tmp_path) == set()
    assert done(stage_of(tmp_path)).status == DONE


@pytest.mark.parametrize("fail_at", ["data/", "rejects/", "lookup/", "_done/"])
def test_an_exception_while_publishing_leaves_no_record(tmp_path, scratch, fail_at):
    """Files before it may stand there whole, but the unit is not done, and the next attempt does it."""
    with pytest.raises(MissingResource):
        done(stage_of(tmp_path, storage=Recorder(fail_at)))
    assert not any("_done" in name or name.endswith(".tmp") for name in files_below(tmp_path))
    assert os.listdir(scratch) == []
    record = done(stage_of(tmp_path))
    assert files_below(tmp_path / "out") == {*(file.path for file in record.files), "_done/00002.json"}


@pytest.mark.parametrize(("kind", "exit_code"), [(DamagedInput, 3), (UsageError, 2)])
def test_a_fault_that_would_happen_again_is_a_failed_record(tmp_path, scratch, kind, exit_code):
    """It does not raise, so the other units go on; nothing but the record is written; a rerun tries again."""

    def work(unit, output):
        good_work(unit, output)
        raise kind("x.bz2: bad block at byte 41")

    stage = stage_of(tmp_path, work)
    record = done(stage)
    assert (record.status, record.error, record.exit_code, list(record.files), record.counters) == (
        FAILED,
        "x.bz2: bad block at byte 41",
        exit_code,
        [],
        {},
    )
    assert files_below(tmp_path) == {"out/_done/00002.json"}
    written = read_record(stage.storage, stage.folder, 2, stage.plan.fingerprint)
    assert (written.status, written.error, written.exit_code) == (FAILED, record.error, exit_code)
    assert done(stage_of(tmp_path)).status == DONE
    assert done(stage).status == DONE


def test_a_worker_with_other_versions_refuses(tmp_path, scratch, monkeypatch):
    """It would write other bytes under the same names: a failed record with both versions."""
    stage = stage_of(tmp_path)
    monkeypatch.setattr(units_module, "current_versions", lambda packages: dict.fromkeys(packages, "0.0.1"))
    record = done(stage)
    assert (record.status, record.exit_code, list(record.files)) == (FAILED, 2, [])
    expected = r"a worker has pyarrow 0.0.1, the launcher "
    assert record.error.startswith(expected) and record.error.endswith("; install the same versions on all workers")


def test_a_worker_that_lacks_a_package_refuses(tmp_path, scratch, monkeypatch):
    """The same as another version: it would fail again on every attempt."""
    stage = stage_of(tmp_path)
    plan = stage.plan  # made by the launcher, which has the package

    @dataclass(frozen=True, kw_only=True)
    class Shipped(OneStage):
        @property
        def plan(self):
            return plan

    def lacks(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("leia_beam.plans.version", lacks)
    record = done(Shipped(folder=stage.folder, work=good_work))
    assert (record.status, record.exit_code) == (FAILED, 2)


def test_a_full_scratch_disk_is_a_missing_resource(tmp_path, scratch):
    """Exit code 5 and one line, as for the output's disk."""

    def work(unit, output):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MissingResource, match=r"(?i)space"):
        done(stage_of(tmp_path, work))


def test_the_work_may_be_given(tmp_path, scratch):
    """As by a shuffle, which brings the rows itself."""

    def wrong(unit, output):
        raise AssertionError("the stage's own work")

    assert run_unit(stage_of(tmp_path, wrong), UNIT, good_work).counters["pages/read"] == 4


def test_the_bytes_do_not_depend_on_the_attempt(tmp_path, scratch):
    """Two folders, two runs: the same names and the same sums."""
    one, other = (done(stage_of(tmp_path / name)) for name in ("a", "b"))
    assert one == other


def test_dumps_are_cut_into_numbered_units():
    """All ranges of all files, without gap, numbered through; a unit tells its dump again."""
    dumps = [
        Dump(path="/d/a.bz2", format="bz2", size_bytes=250),
        Dump(path="/d/b.gz", format="gzip", size_bytes=999),
        Dump(path="/d/c.xml", format="plain", size_bytes=100),
    ]
    units = dump_units(dumps, 100)
    assert [unit.number for unit in units] == list(range(len(units)))
    assert {unit.count for unit in units} == {len(units)}
    for dump in dumps:
        own = [unit for unit in units if unit.path == dump.path]
        assert own[0].start == 0 and own[-1].end == dump.size_bytes
        assert all(one.end == other.start for one, other in itertools.pairwise(own))
        assert all(unit.dump == dump and unit.name == dump.name for unit in own)
        assert dump.format == "gzip" or all(0 < unit.end - unit.start <= 100 for unit in own)


def test_a_unit_can_be_sent_to_a_worker():
    """It is a value."""
    assert pickle.loads(pickle.dumps(UNIT)) == UNIT


def test_ranges_of_a_sequential_dump_are_one_chain():
    """Those of a .gz file are read in their order by one worker; all else is spread."""
    dumps = [
        Dump(path="/d/a.bz2", format="bz2", size_bytes=250),
        Dump(path="/d/b.gz", format="gzip", size_bytes=3 << 20),
        Dump(path="/d/c.xml", format="plain", size_bytes=100),
    ]
    units = dump_units(dumps, 100)
    found = chains(units)
    assert [len(chain) for chain in found] == [1, 1, 1, 12, 1]
    assert [unit for chain in found for unit in chain] == units
    assert chains(units[5:7]) == [tuple(units[5:7])]
    assert chains([UNIT]) == [(UNIT,)]
