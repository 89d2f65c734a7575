"""clean: what a kill or another build left goes, what a reader or a resume needs stays."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from leia_beam.clean import QUIET_S, find_leftovers, no_build_running, remove
from leia_beam.cli import main
from leia_beam.errors import MissingResource, UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.validate import validate
from pipelines.lock import StageLock
from tests.build_files import kept_files
from tests.conftest import Sample


@pytest.fixture(scope="module")
def finished(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of several units."""
    folder = tmp_path_factory.mktemp("clean") / "build"
    assert main([*sample.build_arguments("jawiki", folder), "--range-bytes", "8KiB", "--quiet"]) == 0
    return folder


@pytest.fixture
def build(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "build")


def found(build: Path) -> dict[str, str]:
    return {str(each.path.relative_to(build)): each.reason for each in find_leftovers(build)}


def test_a_finished_build_has_nothing_left_over(build: Path) -> None:
    """Every file in it is needed."""
    assert found(build) == {}


def test_what_is_left_over_is_removed_and_nothing_else(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files and records of other builds, files that the manifest does not list, half-copied ones; a dry run first."""
    before = kept_files(build)
    shard = next((build / "shards/data").iterdir())
    own = shard.name.rpartition("-")[2]
    left = {
        "shards/data/train-00000-of-00160-deadbeef.parquet": "file of another build",
        "articles/rejects/rejects-00000-of-00160-deadbeef.jsonl": "file of another build",
        f"shards/data/train-00000-of-00160-{own}": "file of this build that its manifest does not list",
        "shards/_done/00099.json": "commit record of another build, or damaged",
        "entities/_titles/_done/00000.json.json": "commit record of another build, or damaged",
        "shards/data/.train-00000.parquet.0123456789abcdef0123456789abcdef.tmp": "half-copied when its process was ended",
    }
    for name in left:
        (build / name).parent.mkdir(exist_ok=True)
        (build / name).write_bytes(b"x" * 10)
    old = time.time() - QUIET_S - 5
    os.utime(build / "shards/data/.train-00000.parquet.0123456789abcdef0123456789abcdef.tmp", (old, old))
    assert found(build) == left
    assert main(["clean", str(build), "--dry-run"]) == 0
    assert "6 files, 0.0 MB would be removed" in capsys.readouterr().out
    assert found(build) == left
    assert main(["clean", str(build)]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in left) and "6 files, 0.0 MB removed" in output
    assert kept_files(build) == before and validate(build).violations == []


@pytest.mark.parametrize("given", ["", "shards", "entities/_titles"])
def test_nothing_is_removed_while_a_build_runs(build: Path, capsys: pytest.CaptureFixture[str], given: str) -> None:
    """Exit 5, and who is at work; when the build has ended the same command removes, and a build is told in turn."""
    left = build / (given or "shards") / "data/x-00000-of-00160-deadbeef.parquet"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    with StageLock(str(build), "shards"):
        assert main(["clean", str(build / given), "--dry-run"]) == 0
        assert main(["clean", str(build / given)]) == 5
        assert f"shards.lock: process {os.getpid()} on" in capsys.readouterr().err and left.exists()
    with no_build_running(build / given), pytest.raises(MissingResource, match="is at work on this stage"):
        StageLock(str(build), "shards").__enter__()
    assert main(["clean", str(build / given)]) == 0 and not left.exists()


def test_a_half_copied_file_that_may_be_in_use_stays(build: Path) -> None:
    """Another process may be writing it at this moment."""
    (build / "shards/data/.x.parquet.0123456789abcdef0123456789abcdef.tmp").write_bytes(b"x")
    assert found(build) == {}
    assert [each.path.name for each in find_leftovers(build, time.time() + QUIET_S + 5)] == [
        ".x.parquet.0123456789abcdef0123456789abcdef.tmp"
    ]


def test_a_build_that_was_interrupted_keeps_all_that_a_resume_takes_up(build: Path, sample: Sample) -> None:
    """Without its manifest a stage is not finished: its own files stay, and the next run does no unit again."""
    manifest = (build / "shards" / MANIFEST_NAME).read_bytes()
    (build / "shards" / MANIFEST_NAME).unlink()
    (build / "shards/_done/00000.json").unlink()
    (build / "shards/data/train-00000-of-00160-deadbeef.parquet").write_bytes(b"x")
    remove(find_leftovers(build))
    assert not (build / "shards/data/train-00000-of-00160-deadbeef.parquet").exists()
    times = {path: path.stat().st_mtime_ns for path in (build / "shards/data").iterdir()}
    assert main([*sample.build_arguments("jawiki", build), "--range-bytes", "8KiB", "--quiet"]) == 0
    changed = [path.name for path, before in times.items() if path.stat().st_mtime_ns != before]
    assert len(changed) == 1 and "-00000-of-" in changed[0]
    assert (build / "shards" / MANIFEST_NAME).read_bytes() == manifest


def test_a_stage_with_a_damaged_manifest_is_left_alone(build: Path) -> None:
    """Nothing says what belongs to it."""
    (build / "shards" / MANIFEST_NAME).write_bytes(b"{}")
    (build / "shards/data/other.parquet").write_bytes(b"x")
    assert found(build) == {}


def test_a_folder_without_a_build_is_a_usage_error(tmp_path: Path) -> None:
    """Its files are somebody else's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.tmp").write_bytes(b"x")
    with pytest.raises(UsageError, match="holds no build"):
        find_leftovers(tmp_path)
