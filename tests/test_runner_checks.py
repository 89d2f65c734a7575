"""Before a job runs on a real Flink, and what stands around it: checks, worker pools, ports, what a worker can see."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leia_beam.cli import main
from tests.build_files import kept_files
from tests.conftest import Sample
from tests.engines import Flink, Space, job_server_jar, network_space, prism, standalone_flink, worker_command
from tests.watched_workers import Watch

pytestmark = pytest.mark.runners

LIMIT_S = 1800
OPTIONS = ("--range-bytes", "4KiB", "--buckets", "3")


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    """One task manager with two slots, which is what a worker pool can serve."""
    with standalone_flink(tmp_path_factory.mktemp("flink") / "cluster", task_managers=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def expected(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of one local process."""
    output = tmp_path_factory.mktemp("expected") / "out"
    assert main([*sample.build_arguments("jawiki", output), *OPTIONS, "--workers", "1", "--quiet"]) == 0
    return output


def articles(sample: Sample, output: Path, *options: object) -> list[object]:
    """`leia-beam articles …`, the smallest job."""
    inputs = ["--pages", sample.pages("jawiki"), "--wiki", "jawiki", "--output", output]
    return [sys.executable, "-m", "leia_beam", "articles", *inputs, *options]


def on(flink: Flink, *options: object, probe_s: int = 300) -> list[object]:
    """The options for a cluster."""
    where = ["--runner", "flink", "--flink-master", flink.master, "--flink-job-server-jar", job_server_jar()]
    return [*where, "--flink-probe-seconds", probe_s, *options]


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that ended with exit code 5."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("leia-beam: error: ")]
    assert done.returncode == 5 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return lines[0].removeprefix("leia-beam: error: ")


def test_more_slots_than_are_free_are_not_waited_for(sample: Sample, flink: Flink, tmp_path: Path) -> None:
    """A job that asks for more waits for ever on Flink; here nothing is submitted."""
    command = articles(sample, tmp_path / "out", *on(flink, "--workers", 9))
    assert "2 of 2 slots are free, 9 are needed" in error_of(flink.space.run(command))
    assert flink.ask("/jobs/overview")["jobs"] == []


def test_an_output_that_workers_do_not_see_is_said(sample: Sample, flink: Flink, tmp_path: Path) -> None:
    """The folder is the launcher's alone: the probe job finds it before any unit is worked on."""
    output = tmp_path / "out"
    output.mkdir()
    blind = worker_command(tmp_path, mounts=f'mount -t tmpfs none "{output}"')
    done = flink.space.run(articles(sample, output, *on(flink, "--flink-worker-command", blind)), timeout_s=LIMIT_S)
    assert f"its workers do not see --output {output}; give a folder that all machines mount" in error_of(done)
    assert not (output / "articles/_done").exists()
    assert [path.name for path in (output / "_run").glob("probe-*")] == []


def test_a_worker_command_that_is_not_there_is_named(sample: Sample, flink: Flink, tmp_path: Path) -> None:
    """Flink's own message, in one line."""
    done = flink.space.run(
        articles(sample, tmp_path / "out", *on(flink, "--flink-worker-command", "/nowhere/leia-beam-worker")),
        timeout_s=LIMIT_S,
    )
    assert "/nowhere/leia-beam-worker" in error_of(done)


def test_workers_that_never_come_are_not_waited_for(sample: Sample, flink: Flink, tmp_path: Path) -> None:
    """A worker command that hangs: the probe's time is up, the job is cancelled."""
    hanging = worker_command(tmp_path, before="exec sleep 3600")
    options = on(flink, "--flink-worker-command", hanging, probe_s=20)
    done = flink.space.run(articles(sample, tmp_path / "out", *options), timeout_s=LIMIT_S)
    assert "no worker answered within 20 s; does " in error_of(done)
    states = {job["name"].partition("_")[0]: job["state"] for job in flink.ask("/jobs/overview")["jobs"]}
    assert not {"RUNNING", "CREATED"} & set(states.values()), states


def test_workers_of_a_pool_write_the_same_bytes(sample: Sample, flink: Flink, expected: Path, tmp_path: Path) -> None:
    """EXTERNAL: a pool beside the task manager, whose processes are started by the same command."""
    pool = ["-m", "apache_beam.runners.worker.worker_pool_main", "--service_port=50000"]
    watch = Watch.begin(tmp_path / "watch")
    process = flink.space.start(
        [sys.executable, *pool, f"--container_executable={worker_command(tmp_path, watch.exports())}"], tmp_path / "log"
    )
    try:
        arguments = [*sample.build_arguments("jawiki", tmp_path / "out"), *OPTIONS]
        options = on(flink, "--flink-worker-pool", "localhost:50000")
        done = flink.space.run([sys.executable, "-m", "leia_beam", *arguments, *options], timeout_s=LIMIT_S)
    finally:
        process.terminate()
        process.wait()
    assert done.returncode == 0, done.stderr[-3000:]
    assert kept_files(tmp_path / "out") == kept_files(expected)
    assert len(watch.processes("articles")) == 2


def test_workers_need_nothing_of_the_launchers_machine_but_the_shared_folders(
    sample: Sample, flink: Flink, expected: Path, tmp_path: Path
) -> None:
    """Workers without the launcher's environment, home, working folder, tokenizer and siteinfo: the same bytes.

    The launcher gets a home and a tokenizer of its own, which the workers' mount name space hides.
    """
    own = tmp_path / "launcher"
    (own / "home").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / "tokenizer").mkdir(exist_ok=True)
        (own / "tokenizer" / name).write_bytes((Path(sample.tokenizer) / name).read_bytes())
    hidden = f'mount -t tmpfs none "{own}"\ntest ! -e "{own}/tokenizer"\ncd /'
    command = worker_command(tmp_path, mounts=hidden)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\ncd /\nexec env -i PATH="$PATH" LANG=tr_TR.UTF-8 TZ=Asia/Tokyo {command} "$@"\n')
    bare.chmod(0o755)
    arguments = sample.build_arguments("jawiki", tmp_path / "out")
    arguments[arguments.index(sample.tokenizer)] = str(own / "tokenizer")
    done = flink.space.run(
        [sys.executable, "-m", "leia_beam", *arguments, *OPTIONS, *on(flink, "--flink-worker-command", bare)],
        timeout_s=LIMIT_S,
        env={"HOME": str(own / "home")},
        cwd=own,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert kept_files(tmp_path / "out") == kept_files(expected)


def listeners_during(space: Space, run: Callable[[], object]) -> set[str]:
    """What listened in a name space at any time while something ran, looked at without a pause."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            seen.update(space.listeners())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        run()
    finally:
        ended.set()
        thread.join()
    return seen


def test_local_processes_open_no_port(sample: Sample, expected: Path, tmp_path: Path) -> None:
    """Neither the launcher nor its two workers listen or bind at any time."""
    watch = Watch.begin(tmp_path / "watch")
    arguments = [*sample.build_arguments("jawiki", tmp_path / "out"), *OPTIONS, "--workers", "2"]

    def build() -> None:
        done = own.run([sys.executable, "-m", "leia_beam", *arguments], env=watch.environment(0.2))
        assert done.returncode == 0, done.stderr[-3000:]

    with network_space() as own:
        assert listeners_during(own, build) == set()
    assert len(watch.processes("articles")) == 2
    assert kept_files(tmp_path / "out") == kept_files(expected)
    bound = {line.partition(" ")[2] for line in (watch.folder / "log.bound").read_text().splitlines()}
    assert bound <= {
        "('::1', 0)"
    }  # what urllib3 tries as it is imported, to learn whether there is IPv6; closed at once


@pytest.mark.parametrize(
    ("runner", "options"),
    [("FnApiRunner", ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]), ("prism", [])],
)
def test_runners_that_listen_on_all_interfaces_say_so(
    sample: Sample, tmp_path: Path, runner: str, options: list[str]
) -> None:
    """The note is true, and so would the test of no ports find one."""
    given = [f"--prism_location={prism()}"] if runner == "prism" else options
    command = articles(sample, tmp_path / "out", "--runner", runner, "--", *given)
    results: list[subprocess.CompletedProcess[str]] = []
    with network_space() as own:
        seen = listeners_during(own, lambda: results.append(own.run(command, env={"HOME": str(tmp_path)})))
    (done,) = results
    assert done.returncode == 0, done.stderr[-3000:]
    assert "listen on all interfaces of this machine" in done.stderr
    everywhere = {address for address in seen if set(address.partition(":")[0]) == {"0"}}
    assert everywhere, seen
