"""Real runners for tests: network name spaces with a loopback device alone, Flink's job server, Prism, a standalone Flink.

Beam's job servers and workers listen on all interfaces, so whatever starts them runs in such a name space. Where Java, the
jars or the right to make a name space is missing, the test is skipped and says so; LEIA_RUNNERS_REQUIRED makes that an
error, which is how continuous integration knows that nothing was skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNNERS = Path(os.environ.get("LEIA_RUNNERS", ROOT.parent / "shared" / "runners"))
FLINK_PACKAGE = "apache-flink-libraries"
FLINK_VERSION = "1.19.3"
START_LIMIT_S = 600
_OPENED = "lang util net io nio time text math util.concurrent util.concurrent.atomic util.concurrent.locks lang.reflect".split()
JAVA_OPENS = [
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
]


def missing(reason: str) -> NoReturn:
    """Skip a test for what is not there; an error where it must be."""
    if os.environ.get("LEIA_RUNNERS_REQUIRED"):
        pytest.fail(f"LEIA_RUNNERS_REQUIRED is set, but {reason}")
    pytest.skip(reason)


def prism() -> Path:
    """Prism's archive, or a skip."""
    given = os.environ.get("LEIA_PRISM")
    found = [Path(given)] if given else sorted(RUNNERS.glob("prism-*-linux-amd64.zip"))
    if not found:
        missing("no Prism: put its zip beside the checkout in ../shared/runners, or name it in LEIA_PRISM")
    return found[0]


def job_server_jar() -> Path:
    """The jar of Beam's job server for Flink, or a skip."""
    if shutil.which("java") is None:
        missing("Java 17 is needed for Flink")
    given = os.environ.get("LEIA_FLINK_JOB_SERVER_JAR")
    found = [Path(given)] if given else sorted(RUNNERS.glob("beam-runners-flink-*-job-server-*.jar"))
    if not found:
        missing("no Flink job server: put its jar in ../shared/runners, or name it in LEIA_FLINK_JOB_SERVER_JAR")
    return found[0]


def flink_libraries() -> Path:
    """The folder with Flink's jars, fetched once from the package index into a cache outside the repository; or a skip."""
    cache = Path(os.environ.get("LEIA_CACHE", Path.home() / ".cache" / "leia")) / f"flink-{FLINK_VERSION}"
    libraries = cache / "lib"
    if not libraries.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            done = subprocess.run(
                [*command, "--dest", folder, f"{FLINK_PACKAGE}=={FLINK_VERSION}"],
                check=False,
                capture_output=True,
                text=True,
                cwd=folder,
            )
            archives = list(Path(folder).glob("*.tar.gz"))
            if done.returncode or not archives:
                missing(f"{FLINK_PACKAGE}=={FLINK_VERSION} (230 MB) cannot be fetched: {done.stderr.strip()[-200:]}")
            with tarfile.open(archives[0]) as archive:
                archive.extractall(folder, filter="data")
            (unpacked,) = Path(folder).glob("*/deps/lib")
            try:
                unpacked.rename(libraries)
            except OSError:  # another test process was first
                assert libraries.is_dir()
    return libraries


@dataclass
class Space:
    """A network name space with nothing but a loopback device; commands run in it."""

    holder: subprocess.Popen[bytes]
    prefix: list[str]

    def run(
        self,
        command: Sequence[object],
        *,
        timeout_s: float = 1800,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with its output."""
        return subprocess.run(
            [*self.prefix, *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(env or {}),
            cwd=cwd,
        )

    def start(
        self, command: Sequence[object], log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command whose output goes to a file."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [*self.prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(env or {}),
                start_new_session=True,
            )

    def processes(self, text: str) -> list[int]:
        """The processes in the name space whose command line holds a text."""
        own = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                is_there = entry.name.isdecimal() and os.readlink(entry / "ns/net") == own
                if is_there and text in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
            except OSError:  # it has ended
                continue
        return found

    def listeners(self) -> list[str]:
        """The local addresses that something listens on, as /proc/net/tcp has them: hexadecimal, ADDRESS:PORT."""
        found = []
        for name in ("tcp", "tcp6"):
            path = Path(f"/proc/{self.holder.pid}/net/{name}")
            for line in path.read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A":
                    found.append(local)
        return found


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with this checkout first on Python's path, and some changes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


@contextmanager
def network_space() -> Iterator[Space]:
    """A name space of its own, or a skip where none may be made."""
    if any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "ip")):
        missing("unshare, nsenter and ip are needed: runners listen on all interfaces")
    as_root = os.geteuid() == 0
    make = ["unshare", "--net"] if as_root else ["unshare", "--map-root-user", "--net"]
    holder = subprocess.Popen(
        [*make, "sh", "-c", "ip link set lo up && echo up && exec sleep 86400"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            missing("no network name space may be made here: runners listen on all interfaces")
        enter = ["nsenter", f"--target={holder.pid}", "--net"]
        yield Space(holder, enter if as_root else [*enter, "--user", "--preserve-credentials"])
    finally:
        holder.kill()
        holder.wait()


def worker_command(folder: Path, before: str = "", mounts: str = "") -> Path:
    """A script that starts a worker from this checkout, as the installed `leia-beam-worker` does.

    `before` is run first; `mounts` as well, as root of a mount name space that the worker has for itself.
    """
    path = folder / "leia-beam-worker"
    run = f'exec "{sys.executable}" -m pipelines.worker "$@"'
    if mounts:
        own = "unshare --mount" if os.geteuid() == 0 else "unshare --map-root-user --mount"
        inner = path.with_name("leia-beam-worker-inner")
        inner.write_text(f"#!/bin/sh\nset -e\n{mounts}\n{run}\n")
        inner.chmod(0o755)
        run = f'exec {own} "{inner}" "$@"'
    path.write_text(f'#!/bin/sh\nexport PYTHONPATH="{ROOT}"\n{before}\n{run}\n')
    path.chmod(0o755)
    return path


@dataclass
class Flink:
    """A standalone Flink: a job manager and task managers, each a process, in a network name space."""

    space: Space
    folder: Path
    managers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 8081

    @property
    def master(self) -> str:
        """The address of its REST interface."""
        return f"127.0.0.1:{self.port}"

    def ask(self, path: str) -> dict[str, Any]:
        """An answer of the REST interface; {} where there is none yet."""
        code = (
            "import sys, urllib.request as r\n"
            "try: print(r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=30).read().decode())\n"
            "except OSError: print('{}')"
        )
        done = self.space.run([sys.executable, "-c", code, f"http://{self.master}{path}"], timeout_s=300)
        found: dict[str, Any] = json.loads(done.stdout or "{}")
        return found

    def start_task_manager(self, name: str, slots: int) -> None:
        """One more task manager; without Flink's scripts every part of its memory has to be given."""
        memory = {
            "taskmanager.resource-id": name,
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.cpu.cores": slots,
            "taskmanager.memory.task.heap.size": "256m",
            "taskmanager.memory.task.off-heap.size": "32m",
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.network.min": "256m",
            "taskmanager.memory.network.max": "256m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
        }
        settings = [part for key, value in memory.items() for part in ("-D", f"{key}={value}")]
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self.managers[name] = self._java(main, name, "-Xmx512m", settings)

    def start_job_manager(self) -> None:
        """The master."""
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self.managers["master"] = self._java(main, "master", "-Xmx512m", [])

    def _java(self, main: str, name: str, heap: str, settings: Sequence[str]) -> subprocess.Popen[bytes]:
        classes = f"{flink_libraries()}/*"
        command = ["java", heap, *JAVA_OPENS, "-cp", classes, main, "--configDir", self.folder / "conf", *settings]
        return self.space.start(command, self.folder / f"{name}.log")

    def wait_for(self, task_managers: int) -> None:
        """Until that many task managers have come."""
        deadline = time.monotonic() + START_LIMIT_S
        while self.ask("/overview").get("taskmanagers", -1) != task_managers:
            if time.monotonic() > deadline:
                logs = {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}
                raise AssertionError(f"no Flink with {task_managers} task managers: {logs}")
            time.sleep(0.5)

    def kill(self, name: str) -> None:
        """End a manager as a power cut would."""
        process = self.managers.pop(name)
        process.kill()
        process.wait()


@contextmanager
def standalone_flink(
    folder: Path, *, task_managers: int = 2, slots: int = 2, configuration: Mapping[str, object] | None = None
) -> Iterator[Flink]:
    """A cluster that is up, or a skip; it is ended with all its processes."""
    job_server_jar()
    flink_libraries()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": "1024m",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": 8081,
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 60000,  # a killed manager is known by refused calls before; a loaded machine is late
        "io.tmp.dirs": str(folder / "tmp"),
        **(configuration or {}),
    }
    (folder / "conf").mkdir()
    (folder / "tmp").mkdir()
    (folder / "conf" / "flink-conf.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    with network_space() as space:
        flink = Flink(space, folder)
        try:
            flink.start_job_manager()
            for number in range(task_managers):
                flink.start_task_manager(f"tm{number + 1}", slots)
            flink.wait_for(task_managers)
            yield flink
        finally:
            for name in list(flink.managers):
                flink.kill(name)
