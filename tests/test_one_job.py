"""All stages as one pipeline: the same bytes as stage after stage, resumed, and failing with a user's line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from leia_beam.cli import main
from leia_beam.errors import DamagedInput
from leia_beam.manifest import MANIFEST_NAME
from leia_beam.tokenizer_identity import find_tokenizer
from pipelines import build as steps
from pipelines.dataflow import Job, check_finished, job_line
from pipelines.one_job import build_graph
from tests.build_files import kept_files
from tests.conftest import Sample

OPTIONS = ("--range-bytes", "8KiB", "--buckets", "3", "--quiet")


jobs: list[Job] = []


def run_as_one_job(command: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `leia-beam build … --runner dataflow` with the job run by an in-memory runner here."""

    def run(job: Job, workers: int | None, beam_options: Any, say: Any) -> None:
        jobs.append(job)
        pipeline = beam.Pipeline(runner=FnApiRunner())
        build_graph(pipeline, job.first, job.entities, job.shards, job.rules)
        pipeline.run().wait_until_finish()

    monkeypatch.setattr(steps, "run_dataflow", run)
    return main([*command, "--runner", "dataflow"])


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build, stage after stage."""
    output = tmp_path_factory.mktemp("stages") / "build"
    assert main([*sample.build_arguments("jawiki", output), "--workers", "1", *OPTIONS]) == 0
    return output


def test_one_job_writes_the_bytes_of_stage_after_stage(
    sample: Sample, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, records, plans, manifests; run again it finds all finished; it goes on where one stage is missing."""
    command = [*sample.build_arguments("jawiki", tmp_path / "job"), *OPTIONS]
    assert run_as_one_job(command, monkeypatch) == 0
    assert kept_files(tmp_path / "job") == kept_files(build)
    assert job_line(jobs[0]) == "; ".join(
        f"{stage} finished" for stage in ("sitelinks", "articles", "titles", "redirects", "entities", "shards")
    )
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "job/shards").rglob("*") if path.is_file()}
    assert run_as_one_job(command, monkeypatch) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    (tmp_path / "job/entities/_redirects" / MANIFEST_NAME).unlink()
    for path in (tmp_path / "job/shards/_done").iterdir():
        path.unlink()
    (tmp_path / "job/shards" / MANIFEST_NAME).unlink()
    assert run_as_one_job(command, monkeypatch) == 0
    assert kept_files(tmp_path / "job") == kept_files(build)


def test_damaged_input_fails_the_job_with_its_line(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other dump's stage is finished all the same; those behind do not begin."""
    damaged = tmp_path / Path(sample.pages("jawiki")).name
    content = bytearray(Path(sample.pages("jawiki")).read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    command = [*sample.build_arguments("jawiki", tmp_path / "job"), *OPTIONS]
    command[command.index("--pages") + 1] = str(damaged)
    assert run_as_one_job(command, monkeypatch) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{damaged}: damaged: the bzip2 block at byte" in error
    assert not (tmp_path / "job/articles" / MANIFEST_NAME).exists()
    line = job_line(jobs[-1])
    assert re.fullmatch(r"sitelinks (finished|\d+ of \d+ units); articles (\d+) of \2 units", line), line
    with pytest.raises(DamagedInput, match="the bzip2 block at byte"):
        check_finished(jobs[-1], "FAILED")
    assert not (tmp_path / "job/entities").exists() and not (tmp_path / "job/shards").exists()


def test_what_workers_get_holds_no_tokenizer(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary may be of many megabytes: it is put into a folder, and its path is carried."""
    found: list[Job] = []
    monkeypatch.setattr(steps, "run_dataflow", lambda job, *_: found.append(job))
    assert main([*sample.build_arguments("jawiki", tmp_path / "job"), *OPTIONS, "--runner", "dataflow"]) == 0
    carried = pickle.dumps(found[0].shards)
    assert Path(sample.tokenizer, "tokenizer.json").stat().st_size > 90_000 and len(carried) < 5_000
    assert found[0].shards.tokenizer.read(found[0].storage) == find_tokenizer(sample.tokenizer)
