"""Faults of the machine around a build of the sample: memory, disk, places, clocks and words, a unit done twice at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.disk_space import check_free, needed_bytes
from leia_beam.errors import MissingResource
from leia_beam.linking import LinkRules
from leia_beam.manifest import read_manifest
from leia_beam.stage_shards import ShardsStage
from leia_beam.tables import TableWriter
from leia_beam.tokenizer_identity import find_tokenizer
from leia_beam.units import Unit, run_unit
from leia_beam.validate import validate
from tests.build_files import kept_files
from tests.conftest import Sample

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def undisturbed(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in several units."""
    folder = tmp_path_factory.mktemp("faults") / "out"
    assert main([*sample.build_arguments("jawiki", folder), "--range-bytes", "16KiB", "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "31337"},
        {"LC_ALL": "ja_JP.eucJP", "PYTHONUTF8": "0", "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "true"},
    ],
    ids=["C", "Turkish", "Japanese"],
)
def test_time_zone_words_and_hash_seed_change_no_byte(
    sample: Sample, undisturbed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Nor does the folder in which the command was given, or the rights that new files get."""
    command = [sys.executable, "-m", "leia_beam", *sample.build_arguments("jawiki", tmp_path / "out")]
    given = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", 'umask 077; cd /; exec "$@"', "_", *command, "--range-bytes", "16KiB", "--quiet"]
    done = subprocess.run(shell, env=given, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert kept_files(tmp_path / "out") == kept_files(undisturbed)


def _stage(build: Path, folder: Path, sample: Sample) -> ShardsStage:
    return ShardsStage(
        folder=str(folder),
        articles_folder=str(build / "articles"),
        entities_folder=str(build / "entities"),
        wiki_code="jawiki",
        siteinfo=None,
        name_wikis=("enwiki",),
        tokenizer=find_tokenizer(sample.tokenizer),
        rules=LinkRules(),
    )


def _run_all(stage: ShardsStage, starts: multiprocessing.Barrier) -> None:  # type: ignore[valid-type]
    for unit in stage.units():
        starts.wait(900)  # type: ignore[attr-defined]
        run_unit(stage, unit, stage.process)


def test_a_unit_that_is_done_by_three_processes_at_once_is_done_once(
    sample: Sample, undisturbed: Path, tmp_path: Path
) -> None:
    """A runner that gives a unit out again, while the first is still at it: the same bytes, nothing left over."""
    alone, together = (_stage(undisturbed, tmp_path / name, sample) for name in ("alone", "together"))
    for unit in alone.units():
        run_unit(alone, unit, alone.process)
    context = multiprocessing.get_context("spawn")
    starts = context.Barrier(3)
    processes = [context.Process(target=_run_all, args=(together, starts)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(900)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert kept_files(tmp_path / "together") == kept_files(tmp_path / "alone")
    assert len(alone.units()) >= 2 and not list(tmp_path.rglob("*.tmp"))


def test_a_unit_that_needs_too_much_memory_is_named(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 5: the stage, the unit, its bytes; nothing half-done, and the next run goes on."""
    write = TableWriter.write

    def no_memory(self: TableWriter, row: dict, size_bytes: int) -> None:
        if "train" in self.path:
            raise MemoryError
        write(self, row, size_bytes)

    arguments = [*sample.build_arguments("jawiki", tmp_path / "out"), "--workers", "1", "--quiet"]
    monkeypatch.setattr(TableWriter, "write", no_memory)
    assert main(arguments) == 5
    error = capsys.readouterr().err
    assert "shards, unit 0 (articles-00000-of-" in error and "out of memory; give fewer --workers" in error
    assert error.count("\n") == 1 and not list((tmp_path / "out/shards").rglob("*.parquet"))
    monkeypatch.undo()
    assert main(arguments) == 0
    assert validate(tmp_path / "out").violations == []


def test_a_disk_that_is_far_too_full_is_refused_before_the_work(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 5 with what is needed and what is free; no unit was begun. A little too full is a warning."""
    monkeypatch.setattr("leia_beam.disk_space.free_bytes", lambda folder: 1000)
    assert main([*sample.build_arguments("jawiki", tmp_path / "out"), "--quiet"]) == 5
    error = capsys.readouterr().err
    assert "will be written to" in error and "0.0 MB are free there; free some space" in error
    assert not list((tmp_path / "out").rglob("articles-*.parquet"))
    monkeypatch.setattr("leia_beam.disk_space.free_bytes", lambda folder: 30_000)
    assert main(sample.build_arguments("jawiki", tmp_path / "out")) == 0
    assert "articles   warning: about" in capsys.readouterr().err


def test_the_space_that_a_stage_needs_is_of_the_units_to_do() -> None:
    """By the stage; half as much free is enough to begin."""
    units = [Unit(number=n, count=2, name="x.bz2", end=10**9) for n in range(2)]
    assert needed_bytes("articles", units) == 2 * 10**9 and needed_bytes("articles", units[:1]) == 10**9
    assert needed_bytes("titles", units) == needed_bytes("shards", []) == 0
    assert check_free("/x", 100, free=100) is None and "are free there" in (check_free("/x", 100, free=50) or "")
    with pytest.raises(MissingResource, match=r"about 2.0 GB will be written to /x, 0.9 GB are free there"):
        check_free("/x", 2 * 10**9, free=9 * 10**8)


def test_the_sample_s_real_use_is_within_the_estimate(undisturbed: Path, sample: Sample) -> None:
    """What the stages wrote is not several times what was foreseen."""
    for stage, read in (
        ("articles", Path(sample.pages("jawiki")).stat().st_size),
        ("shards", sum(file.size_bytes for file in read_manifest(undisturbed / "articles").files_of("articles"))),
    ):
        written = sum(file.size_bytes for file in read_manifest(undisturbed / stage).files)
        foreseen = needed_bytes(stage, [Unit(number=0, count=1, name="x.bz2", end=read)])
        assert written < 4 * foreseen
