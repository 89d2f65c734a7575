"""What ends in mid-run and what becomes of the build: workers, task managers, launchers, disks; on real runners.

In each case the build that is left is finished by the next run with the bytes of an undisturbed one, and no unit that had
its commit record is read again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leia_beam.cli import main
from tests.build_files import kept_files
from tests.conftest import Sample
from tests.engines import Flink, Space, job_server_jar, network_space, standalone_flink, worker_command
from tests.watched_workers import Watch

pytestmark = pytest.mark.runners

UNITS = 20
UNIT_S = 1.0
LIMIT_S = 1800
JOB_SERVER = "--artifacts-dir"
"""What the command line of a job server has, and no other of Flink's processes."""


@dataclass(frozen=True)
class Job:
    """The stage `articles` of the bundled sample, in 20 units, with workers that tell what they do."""

    sample: Sample
    folder: Path
    watch: Watch

    @property
    def output(self) -> Path:
        """The build's folder."""
        return self.folder / "out"

    def command(self, *options: object) -> list[object]:
        """`leia-beam articles …`."""
        size = Path(self.sample.pages("jawiki")).stat().st_size // UNITS + 1
        inputs = ["--pages", self.sample.pages("jawiki"), "--wiki", "jawiki", "--range-bytes", str(size)]
        return [sys.executable, "-m", "leia_beam", "articles", *inputs, "--output", self.output, *options]

    def on(self, flink: Flink, workers: int, command: Path) -> list[object]:
        """The same on a cluster, without the probe."""
        where = ["--flink-master", flink.master, "--flink-job-server-jar", job_server_jar()]
        how = ["--flink-worker-command", command, "--flink-probe-seconds", 0, "--workers", workers]
        return self.command("--runner", "flink", *where, *how)

    def committed(self) -> set[int]:
        """The units that have their commit record."""
        folder = self.output / "articles" / "_done"
        return {int(path.stem) for path in folder.glob("[0-9]*.json")} if folder.is_dir() else set()

    def assert_finished_as(self, expected: Path, committed: set[int]) -> None:
        """The bytes are those of an undisturbed run; what was committed then was worked on once in all."""
        assert kept_files(self.output) == kept_files(expected)
        works = self.watch.works("articles")
        assert set(works) == set(range(UNITS))
        assert {unit: works[unit] for unit in committed} == dict.fromkeys(committed, 1)


@pytest.fixture
def job(sample: Sample, tmp_path: Path) -> Job:
    """A job that has not begun."""
    return Job(sample, tmp_path, Watch.begin(tmp_path / "watch"))


@pytest.fixture(scope="module")
def expected(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed build."""
    folder = tmp_path_factory.mktemp("expected")
    arguments = [str(part) for part in Job(sample, folder, Watch(folder)).command("--quiet", "--workers", 1)]
    assert main(arguments[3:]) == 0
    assert len(list((folder / "out/articles/_done").iterdir())) == UNITS
    return folder / "out"


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    """Two task managers with two slots each, and no restart strategy: Flink's default where nothing is checkpointed."""
    with standalone_flink(tmp_path_factory.mktemp("flink") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def restarting_flink(tmp_path: Path) -> Iterator[Flink]:
    """The same with a restart strategy, which is a setting of the cluster."""
    strategy = {
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 5,
        "restart-strategy.fixed-delay.delay": "2 s",
    }
    with standalone_flink(tmp_path / "cluster", configuration=strategy) as cluster:
        yield cluster


def error_line(process: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command says, without a traceback."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("leia-beam: error: ")]
    assert len(lines) == 1 and "Traceback" not in process.stderr, process.stderr[-3000:]
    return lines[0]


def finish(process: subprocess.Popen[bytes], log: Path) -> subprocess.CompletedProcess[str]:
    """Wait for a command that was started."""
    code = process.wait(timeout=LIMIT_S)
    return subprocess.CompletedProcess(process.args, code, "", log.read_text(errors="replace"))


def test_a_local_worker_that_is_killed_ends_the_run_and_the_next_one_does_the_rest(
    job: Job, expected: Path, space: Space
) -> None:
    """P2 on local processes: exit 5 and one line; units with a record are not read again."""
    environment = job.watch.environment(UNIT_S)
    log = job.folder / "log"
    launcher = space.start(job.command("--workers", 2, "--quiet"), log, environment)
    job.watch.wait_for("articles", 6)
    victims = job.watch.processes("articles")
    assert len(victims) == 2 and launcher.pid not in victims
    os.kill(min(victims), signal.SIGKILL)
    done = finish(launcher, log)
    assert done.returncode == 5 and "a worker process ended with signal SIGKILL" in error_line(done)
    committed = job.committed()
    assert 2 <= len(committed) < UNITS
    again = space.run(job.command("--workers", 2, "--quiet"), env=job.watch.environment())
    assert again.returncode == 0, again.stderr
    job.assert_finished_as(expected, committed)


@pytest.mark.parametrize("victim", ["task manager", "worker process"])
def test_a_cluster_that_restarts_jobs_gets_over_a_loss(
    job: Job, expected: Path, restarting_flink: Flink, victim: str
) -> None:
    """The job ends well in the same run; its restart runs the whole stage again but reads no unit that was committed."""
    command = worker_command(job.folder, job.watch.exports(UNIT_S))
    log = job.folder / "log"
    launcher = restarting_flink.space.start(job.on(restarting_flink, 4, command), log)
    job.watch.wait_for("articles", 7)
    committed = job.committed()
    assert committed
    if victim == "task manager":
        restarting_flink.kill("tm1")
        restarting_flink.start_task_manager("tm3", 2)
    else:
        os.kill(job.watch.lines()[-1][0], signal.SIGKILL)
    done = finish(launcher, log)
    assert done.returncode == 0, done.stderr[-3000:]
    job.assert_finished_as(expected, committed)
    assert sum(job.watch.works("articles").values()) > UNITS, "nothing was interrupted"


@pytest.mark.parametrize("victim", ["task manager", "worker process"])
def test_a_cluster_that_does_not_restart_jobs_fails_in_one_line_and_the_next_run_does_the_rest(
    job: Job, expected: Path, flink: Flink, victim: str
) -> None:
    """Exit 5; the same command finishes the rest alone."""
    command = worker_command(job.folder, job.watch.exports(UNIT_S))
    log = job.folder / "log"
    launcher = flink.space.start(job.on(flink, 4, command), log)
    job.watch.wait_for("articles", 7)
    if victim == "task manager":
        name = next(name for name in flink.managers if name != "master")
        flink.kill(name)
        flink.start_task_manager(f"{name}-again", 2)
    else:
        os.kill(job.watch.lines()[-1][0], signal.SIGKILL)
    done = finish(launcher, log)
    assert done.returncode == 5, done.stderr[-3000:]
    assert "the job failed" in error_line(done)
    committed = job.committed()
    assert committed and len(committed) < UNITS
    wait_for_slots(flink, 4)
    again = flink.space.run(job.on(flink, 4, command), timeout_s=LIMIT_S)
    assert again.returncode == 0, again.stderr[-3000:]
    job.assert_finished_as(expected, committed)


def wait_for_slots(flink: Flink, count: int) -> None:
    """Until so many slots are free."""
    wait_until(lambda: flink.ask("/overview").get("slots-available") == count, f"{count} slots do not get free")


def wait_until(true: Callable[[], bool], otherwise: str) -> None:
    """Until something is so."""
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)


def test_a_launcher_that_is_killed_while_the_cluster_goes_on_does_no_damage(
    job: Job, expected: Path, flink: Flink
) -> None:
    """The job goes on without it; a second launcher beside that job ends well, with the same bytes."""
    wait_for_slots(flink, 4)
    command = worker_command(job.folder, job.watch.exports(2 * UNIT_S))
    log = job.folder / "log"
    launcher = flink.space.start(job.on(flink, 2, command), log)
    job.watch.wait_for("articles", 4)
    assert flink.space.processes(JOB_SERVER)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not flink.space.processes(JOB_SERVER), "the job server outlives its launcher")
    before = len(job.committed())
    running = [entry["state"] for entry in flink.ask("/jobs/overview")["jobs"] if entry["state"] == "RUNNING"]
    assert running == ["RUNNING"]
    again = flink.space.run(job.on(flink, 2, command), timeout_s=LIMIT_S)
    assert again.returncode == 0, again.stderr[-3000:]
    assert before < UNITS and kept_files(job.output) == kept_files(expected)
    wait_for_slots(flink, 4)
    assert kept_files(job.output) == kept_files(expected), "the first job did damage after the second had finished"


def test_an_embedded_flink_ends_with_its_launcher_and_another_runner_goes_on(job: Job, expected: Path) -> None:
    """No Java and no worker is left behind by a launcher that is killed; local processes do the rest, each unit once."""
    command = worker_command(job.folder, job.watch.exports(UNIT_S))
    flinks = ["--runner", "flink", "--flink-job-server-jar", job_server_jar(), "--flink-worker-command", command]
    with network_space() as space:
        launcher = space.start(job.command(*flinks, "--workers", 2), job.folder / "log")
        job.watch.wait_for("articles", 4)
        launcher.kill()
        launcher.wait()
        wait_until(lambda: not space.processes(JOB_SERVER), "the job server outlives its launcher")
        wait_until(lambda: not space.processes("pipelines.worker"), "a worker outlives its launcher")
        committed = job.committed()
        assert committed and len(committed) < UNITS
        again = space.run(job.command("--workers", 2), env=job.watch.environment())
    assert again.returncode == 0, again.stderr[-3000:]
    job.assert_finished_as(expected, committed)


def test_a_launcher_that_is_asked_to_end_takes_its_job_along(job: Job, expected: Path, flink: Flink) -> None:
    """SIGTERM, or Ctrl-C: exit 75, nothing goes on in the cluster unseen, and the next run does the rest."""
    wait_for_slots(flink, 4)
    command = worker_command(job.folder, job.watch.exports(UNIT_S))
    log = job.folder / "log"
    launcher = flink.space.start(job.on(flink, 2, command), log)
    job.watch.wait_for("articles", 4)
    launcher.terminate()
    done = finish(launcher, log)
    assert done.returncode == 75 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert "units of articles are done and kept" in done.stderr
    assert {entry["state"] for entry in flink.ask("/jobs/overview")["jobs"]} <= {"CANCELED", "FINISHED", "FAILED"}
    committed = job.committed()
    assert committed and len(committed) < UNITS
    again = flink.space.run(job.on(flink, 2, command), timeout_s=LIMIT_S)
    assert again.returncode == 0, again.stderr[-3000:]
    job.assert_finished_as(expected, committed)


def test_a_second_launcher_on_one_output_is_told_of_the_first(job: Job, expected: Path, space: Space) -> None:
    """Exit 5 with the process that is at work; the first one ends well."""
    log = job.folder / "log"
    first = space.start(job.command("--workers", 2), log, job.watch.environment(UNIT_S))
    job.watch.wait_for("articles", 3)
    os.kill(first.pid, signal.SIGSTOP)  # or it may be done before the other has started
    try:
        second = space.run(job.command("--workers", 2), env={"LEIA_TEST_LOG": ""})
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 5
    assert "is at work on this stage; wait for its end" in error_line(second)
    assert f"process {first.pid} on " in error_line(second)
    assert finish(first, log).returncode == 0
    job.assert_finished_as(expected, set(range(UNITS)))


def test_a_full_disk_on_a_local_worker_is_one_line_and_resumable(job: Job, expected: Path, space: Space) -> None:
    """The workers' scratch disk has room for nothing: exit 5 with the path; with room the same command goes on."""
    script = job.folder / "launch"
    small = job.folder / "small"
    small.mkdir()
    script.write_text(f'#!/bin/sh\nmount -t tmpfs -o size=4k none "{small}" && exec "$@"\n')
    script.chmod(0o755)
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    environment = {**job.watch.environment(), "TMPDIR": str(small)}
    done = space.run([*own, script, *job.command("--workers", 2)], env=environment)
    assert done.returncode == 5 and "No space left on device" in error_line(done)
    assert not (job.output / "articles/_manifest.json").exists()
    committed = job.committed()
    again = space.run(job.command("--workers", 2), env=job.watch.environment())
    assert again.returncode == 0, again.stderr
    assert kept_files(job.output) == kept_files(expected) and len(committed) < UNITS


def test_a_full_disk_on_a_task_managers_machine_is_one_line_and_resumable(
    job: Job, expected: Path, flink: Flink
) -> None:
    """The same on Flink: the worker's own message reaches the user."""
    wait_for_slots(flink, 4)
    small = job.folder / "small"
    small.mkdir()
    mounts = f'mount -t tmpfs -o size=4k none "{small}"\nexport TMPDIR="{small}"'
    full = worker_command(job.folder, job.watch.exports(), mounts)
    done = flink.space.run(job.on(flink, 2, full), timeout_s=LIMIT_S)
    assert done.returncode == 5 and "No space left on device" in error_line(done)
    assert not (job.output / "articles/_manifest.json").exists()
    committed = job.committed()
    wait_for_slots(flink, 4)
    again = flink.space.run(job.on(flink, 2, worker_command(job.folder, job.watch.exports())), timeout_s=LIMIT_S)
    assert again.returncode == 0, again.stderr[-3000:]
    assert kept_files(job.output) == kept_files(expected) and len(committed) < UNITS
