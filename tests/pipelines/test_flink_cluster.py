"""flink_cluster: what a master and a jar say, and one line for each way in which a job would not run there."""

from __future__ import annotations

import json
import socket
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.errors import MissingResource, UsageError
from pipelines.flink_cluster import VERSION_FILE, ask_cluster, check_slots, check_version, jar_flink_version
from tests.conftest import Sample

OVERVIEW = {"taskmanagers": 2, "slots-total": 4, "slots-available": 3, "flink-version": "1.19.3"}
MANAGERS = {"taskmanagers": [{"slotsNumber": 1}, {"slotsNumber": 3}]}
JOBS = {"jobs": [{"name": "leia-articles", "state": "RUNNING"}, {"name": "old", "state": "FINISHED"}]}


@contextmanager
def master(answers: Mapping[str, object]) -> Iterator[str]:
    """A web server on loopback with these answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_flink(**changes: object) -> dict[str, object]:
    """The answers of a master."""
    return {"/overview": {**OVERVIEW, **changes}, "/taskmanagers": MANAGERS, "/jobs/overview": JOBS}


def job_server(path: Path, version: str | None) -> Path:
    """A jar as far as the checks look into it."""
    with zipfile.ZipFile(path, "w") as jar:
        if version is not None:
            jar.writestr(VERSION_FILE, f"# of Flink\nproject.version={version}\ngit.commit.id=x\n")
    return path


def test_a_master_tells_version_slots_and_jobs() -> None:
    """Slots of the task manager that has most: as many workers does each get."""
    with master(a_flink()) as address:
        cluster = ask_cluster(address)
    assert (cluster.version, cluster.slots, cluster.free_slots, cluster.slots_each) == ("1.19.3", 4, 3, 3)
    assert cluster.jobs == ("leia-articles",)
    check_slots(cluster, 3)
    with pytest.raises(MissingResource, match="3 of 4 slots are free, 4 are needed; 1 jobs run there: leia-articles"):
        check_slots(cluster, 4)


def test_nobody_at_the_address_is_said() -> None:
    """A closed port: the reason, and what to do."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and listens not, so that nobody else does
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(
            MissingResource, match=rf"--flink-master {address}: no answer \(Connection refused\); start"
        ):
            ask_cluster(address)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "HTTP 404 for /overview"),
        ({"/overview": b"<html>hello</html>"}, "no JSON"),
        ({"/overview": []}, "no object"),
        ({"/overview": {"status": "ok"}, "/taskmanagers": {}, "/jobs/overview": {}}, "it lacks 'flink-version'"),
    ],
)
def test_a_server_that_is_no_flink_is_said_to_be_none(answers: dict[str, object], message: str) -> None:
    """Another web server at the address."""
    with master(answers) as address, pytest.raises(MissingResource, match=f"not as Flink does \\({message}\\)"):
        ask_cluster(address)


def test_the_version_is_read_from_the_jar_itself(tmp_path: Path) -> None:
    """Not from its name."""
    jar = job_server(tmp_path / "beam-runners-flink-2.2-job-server.jar", "1.19.0")
    assert jar_flink_version(str(jar)) == "1.19.0"
    with pytest.raises(MissingResource, match="not a job server of Beam for Flink"):
        jar_flink_version(str(job_server(tmp_path / "other.jar", None)))
    (tmp_path / "text.jar").write_text("text")
    with pytest.raises(MissingResource, match="not a job server of Beam for Flink"):
        jar_flink_version(str(tmp_path / "text.jar"))
    with pytest.raises(UsageError, match="no such file"):
        jar_flink_version(str(tmp_path / "none.jar"))


def test_versions_fit_within_a_minor_version() -> None:
    """1.19.0 talks to 1.19.3, not to 1.20."""
    with master(a_flink()) as address:
        cluster = ask_cluster(address)
    check_version(cluster, "1.19.0", "the job server")
    with pytest.raises(MissingResource, match=r"Flink 1\.19\.3 there, but the job server x\.jar is for Flink 1\.20\.0"):
        check_version(cluster, "1.20.0", "the job server x.jar")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"flink-version": "2.2.1"}, (), "Flink 2.2.1 there, but the job server js.jar is for Flink 1.19.0"),
        ({"slots-available": 0}, (), "0 of 4 slots are free, 1 are needed"),
        ({}, ("--workers", "4"), "3 of 4 slots are free, 4 are needed"),
        ({}, ("--workers", "1", "--", "--parallelism=7"), "3 of 4 slots are free, 7 are needed"),
    ],
)
def test_a_build_is_not_submitted_where_it_would_not_run(
    sample: Sample,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    options: tuple[str, ...],
    message: str,
) -> None:
    """Exit 5 and one line, before a job server is started."""
    jar = job_server(tmp_path / "js.jar", "1.19.0")
    with master(a_flink(**changes)) as address:
        flinks = ["--runner", "flink", "--flink-master", address, "--flink-job-server-jar", str(jar)]
        assert main([*sample.build_arguments("jawiki", tmp_path / "out"), *flinks, *options]) == 5
    error = capsys.readouterr().err
    assert f"leia-beam: error: --flink-master {address}: {message}" in error
    assert len([line for line in error.splitlines() if "error" in line]) == 1


def test_what_is_given_to_beam_comes_before_what_is_given_to_us(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A master after `--` is the one that is asked."""
    jar = job_server(tmp_path / "js.jar", "1.19.0")
    with master(a_flink()) as address:
        flinks = ["--runner", "flink", "--flink-job-server-jar", str(jar), "--workers", "9"]
        assert (
            main([*sample.build_arguments("jawiki", tmp_path / "out"), *flinks, "--", f"--flink_master={address}"]) == 5
        )
    assert f"--flink-master {address}: 3 of 4 slots are free, 9 are needed" in capsys.readouterr().err


def test_a_version_that_beam_has_no_job_server_for_is_said(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a jar the version is the cluster's; nothing is downloaded for one that does not exist."""
    monkeypatch.delenv("LEIA_FLINK_JOB_SERVER_JAR", raising=False)
    with master(a_flink(**{"flink-version": "1.14.6"})) as address:
        flinks = ["--runner", "flink", "--flink-master", address]
        assert main([*sample.build_arguments("jawiki", tmp_path / "out"), *flinks]) == 5
    assert "Flink 1.14.6 there, and Beam has job servers for 1.19, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--flink-worker-pool", "somewhere"], "--flink-worker-pool somewhere: give HOST:PORT"),
        (["--flink-worker-pool", "h:1", "--flink-worker-command", "w"], "give one of both"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """Exit 2, and an untouched disk."""
    arguments = [*sample.build_arguments("jawiki", tmp_path / "out"), "--runner", "flink", *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
