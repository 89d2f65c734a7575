"""From a stage's units to jobs on Flink: an embedded one on this machine, or a cluster.

One job server (Java) serves all stages of a build. Workers are processes that each task manager starts by a command of
ours (`leia-beam-worker`), one for each of its slots: Beam's default of one puts all slots behind one interpreter lock
(2.2 times slower, measured on 2 slots). So a bare Flink runs Python without Docker. Or they come from a worker pool beside
each task manager. What can be known before a job is submitted is asked before; see flink_cluster.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.runner import PipelineState

from leia_beam.errors import MissingResource, UsageError
from leia_beam.sources import storage_of
from leia_beam.units import AnyStage, Unit
from pipelines.engine import Graph, beams_errors, listening_note
from pipelines.flink_cluster import (
    Cluster,
    ask_cluster,
    cancel_jobs,
    check_slots,
    check_version,
    jar_flink_version,
    minor_version,
)
from pipelines.probe import check_probe, mark, probe_graph

EMBEDDED = "[local]"
JAR_VARIABLE = "LEIA_FLINK_JOB_SERVER_JAR"
WORKER_COMMAND = "leia-beam-worker"
_TETHERED = (
    "import ctypes, os, signal, sys; os.setsid(); "
    "getattr(ctypes.CDLL(None), 'prctl', lambda *_: 0)(1, signal.SIGTERM); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Starts a command that ends with the process that starts it, though killed, and that Ctrl-C in a terminal does not reach
(the launcher needs it to cancel the job)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlinkOptions:
    """Where Flink is and where its workers come from. `probe_s`: how long the probe job may take, 0 for none.

    `job_server_jar` None: from the environment (`LEIA_FLINK_JOB_SERVER_JAR`), else Beam downloads it.
    """

    master: str = EMBEDDED
    job_server_jar: str | None = None
    worker_command: str | None = None
    worker_pool: str | None = None
    probe_s: int = 50

    def __post_init__(self) -> None:
        if self.worker_command is not None and self.worker_pool is not None:
            raise UsageError("--flink-worker-command and --flink-worker-pool: give one of both")
        if self.worker_pool is not None and not self.worker_pool.rpartition(":")[2].isdecimal():
            raise UsageError(f"--flink-worker-pool {self.worker_pool}: give HOST:PORT, as each task manager sees it")


class FlinkEngine:
    """See Engine. `workers` is the parallelism of a job; None takes all free slots, or all cores where Flink is embedded."""

    def __init__(
        self,
        options: FlinkOptions,
        workers: int | None,
        beam_options: Sequence[str],
        output: str,
        say: Callable[[str], None],
    ):
        if any(argument.partition("=")[0] == "--flink_master" for argument in beam_options):
            asked = PipelineOptions(list(beam_options)).view_as(FlinkRunnerOptions).flink_master
            options = replace(options, master=asked)
        self._options = options
        self._workers = workers
        self._given = list(beam_options)
        self._output = output
        self._say = say
        self._server: FlinkJarJobServer | None = None
        self._arguments: list[str] | None = None
        self._where = f"--flink-master {self._options.master}"
        self._run_id = uuid.uuid4().hex[:8]
        self._is_embedded = self._options.master in (EMBEDDED, "[auto]")

    def run(self, graph: Graph, stage: AnyStage, units: Sequence[Unit]) -> None:
        if self._arguments is None:
            self._start()
        assert self._arguments is not None
        job_name = self._job_name(stage.plan.stage)
        pipeline = self._pipeline(job_name)
        with beams_errors(self._where):
            graph(pipeline, stage, units)
            try:
                pipeline.run().wait_until_finish()
            except KeyboardInterrupt:
                self._cancel(job_name)
                raise

    def close(self) -> None:
        """End the job server, and an embedded Flink with it."""
        server, self._server, self._arguments = self._server, None, None
        if server is not None:
            server.stop()

    def _job_name(self, what: str) -> str:
        """A job's name on the cluster, which no other run's job has."""
        return f"leia-{what}-{self._run_id}"

    def _cancel(self, job_name: str) -> None:
        """End a job that would go on unseen; an embedded Flink ends with the job server."""
        if not self._is_embedded and not cancel_jobs(self._options.master, job_name):
            self._say(f"note: {self._where}: the job {job_name} is not yet ended there")

    def _pipeline(self, job_name: str) -> beam.Pipeline:
        arguments = [*(self._arguments or ()), f"--job_name={job_name}"]
        return beam.Pipeline(runner=FlinkRunner(), options=PipelineOptions(arguments))

    def _start(self) -> None:
        """Check what can be checked, start the job server, and let the workers say what they see."""
        cluster = None if self._is_embedded else ask_cluster(self._options.master)
        given = PipelineOptions(self._given)
        jar = self._options.job_server_jar or os.environ.get(JAR_VARIABLE)
        master = FlinkRunner.add_http_scheme(self._options.master)
        arguments = self._job_server_options(jar, cluster, given)
        parallelism = self._parallelism(cluster, given)
        slots_each = parallelism if cluster is None else cluster.slots_each
        arguments += [
            f"--parallelism={parallelism}",
            f"--sdk_worker_parallelism={slots_each}",
            # A step begins when the one before is finished. Pipelined, both ask for workers at once and two slots may get
            # the same one (seen: 10, 5 and 5 units in place of 5 four times); and a restart repeats what was lost alone.
            "--execution_mode_for_batch=BATCH_FORCED",
            "--default_sdk_harness_log_level=WARN",  # a name that Java and Python both know
            *self._environment(cluster, given),
            *self._given,
            f"--flink_master={master}",
        ]
        self._start_job_server(arguments, given)
        if cluster is not None and self._options.probe_s:
            self._probe(parallelism)

    def _job_server_options(self, jar: str | None, cluster: Cluster | None, given: PipelineOptions) -> list[str]:
        """The jar, or the version of the one that Beam is to download."""
        published = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
        chosen = given.view_as(FlinkRunnerOptions).flink_job_server_jar or jar
        if given.view_as(PortableOptions).job_endpoint:
            return []
        if chosen is not None:
            if "://" not in chosen:
                version = jar_flink_version(chosen)
                if cluster is not None:
                    check_version(cluster, version, f"the job server {os.path.basename(chosen)}")
            return [f"--flink_job_server_jar={chosen}"]
        if any(argument.startswith("--flink_version") for argument in self._given):
            if cluster is not None:
                check_version(cluster, given.view_as(FlinkRunnerOptions).flink_version, "the job server asked for")
            return []
        if cluster is None:
            return []
        version = minor_version(cluster.version)
        if version not in published:
            raise MissingResource(
                f"{self._where}: Flink {cluster.version} there, and Beam has job servers for {', '.join(published)}; "
                "give one with --flink-job-server-jar, or run another Flink"
            )
        return [f"--flink_version={version}"]

    def _parallelism(self, cluster: Cluster | None, given: PipelineOptions) -> int:
        asked = given.view_as(FlinkRunnerOptions).parallelism
        wanted = asked if asked > 0 else self._workers
        if cluster is None:
            return wanted or os.cpu_count() or 1
        check_slots(cluster, max(1, wanted or cluster.free_slots))
        return wanted or cluster.free_slots

    def _environment(self, cluster: Cluster | None, given: PipelineOptions) -> list[str]:
        if given.view_as(PortableOptions).environment_type:
            return []
        if self._options.worker_pool is not None:
            return ["--environment_type=EXTERNAL", f"--environment_config={self._options.worker_pool}"]
        command = self._options.worker_command or WORKER_COMMAND
        if cluster is None:
            command = _local_command(command)
        return ["--environment_type=PROCESS", f"--environment_config={json.dumps({'command': command})}"]

    def _start_job_server(self, arguments: list[str], given: PipelineOptions) -> None:
        if given.view_as(PortableOptions).job_endpoint:
            self._arguments = arguments
            return
        launcher = given.view_as(JobServerOptions).job_server_java_launcher
        if shutil.which(launcher) is None:
            raise MissingResource(
                f"--runner flink: {launcher} was not found; install Java 17, or name it after -- by --job_server_java_launcher"
            )
        self._say(listening_note("--runner flink"))
        port = given.view_as(JobServerOptions).job_port or _free_port()
        options = PipelineOptions([*arguments, f"--job_port={port}"])
        threading.excepthook = _quiet_reader(threading.excepthook)
        server = FlinkJobServer(options)
        logging.getLogger(FlinkJobServer.__name__).setLevel(logging.INFO)  # Java's stacks, for build.log
        try:
            server.start()
        except (RuntimeError, OSError, ValueError) as error:
            raise MissingResource(
                f"--runner flink: the job server does not start ({str(error).splitlines()[0]}); "
                "give its jar with --flink-job-server-jar where it cannot be downloaded"
            ) from error
        self._server = server
        self._arguments = [*arguments, f"--job_endpoint=localhost:{port}"]

    def _probe(self, parallelism: int) -> None:
        with mark(storage_of(self._output, self._given), self._output) as (path, token):
            job_name = self._job_name("probe")
            pipeline = self._pipeline(job_name)
            with beams_errors(self._where, self._advice()):
                probe_graph(pipeline, storage_of(self._output, self._given), path, token, 4 * parallelism)
                result = pipeline.run()
                state = result.wait_until_finish(self._options.probe_s * 1000)
                if state != PipelineState.DONE:
                    self._cancel(job_name)
                    raise MissingResource(
                        f"{self._where}: no worker answered within {self._options.probe_s} s; {self._advice()}"
                    )
                check_probe(result.metrics(), self._where, self._output)

    def _advice(self) -> str:
        if self._options.worker_pool is not None:
            return f"is there a worker pool at {self._options.worker_pool} beside each task manager?"
        return f"does {self._options.worker_command or WORKER_COMMAND} start on the task managers' machines?"


class FlinkJobServer(FlinkJarJobServer):
    """Beam's job server for Flink, tethered to this process."""

    def subprocess_cmd_and_endpoint(self) -> tuple[list[str], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return [sys.executable, "-c", _TETHERED, *map(str, command)], endpoint


def _quiet_reader(before: Callable[[threading.ExceptHookArgs], object]) -> Callable[[threading.ExceptHookArgs], object]:
    """Beam reads a job's messages in a thread, which prints a traceback where the job server is ended first."""

    def hook(given: threading.ExceptHookArgs) -> object:
        if given.thread is not None and given.thread.name.startswith("wait_until_finish"):
            logging.getLogger(__name__).info("a job's messages ended: %s", given.exc_value)
            return None
        return before(given)

    return hook


def _local_command(command: str) -> str:
    """The worker's command on this machine: as given, else beside this Python, else on the path.

    Raises: MissingResource if there is none.
    """
    beside = os.path.join(os.path.dirname(sys.executable), command)
    found = beside if os.sep not in command and os.access(beside, os.X_OK) else shutil.which(command)
    if found is None:
        raise MissingResource(
            f"--runner flink: the command {command} was not found; install this package with pip, or name it with "
            "--flink-worker-command"
        )
    return os.path.abspath(found)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
