"""From a runner and its options to whether it could start: Java, Beam's job server, a cluster that answers."""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.utils.subprocess_server import JavaJarServer

from leia_beam.findings import NOTE, OK, PROBLEM, WARNING, Finding, checked
from pipelines.dataflow import DATAFLOW
from pipelines.flink import JAR_VARIABLE
from pipelines.flink_cluster import ask_cluster, check_slots, check_version, jar_flink_version
from pipelines.runners import FLINK, LOCAL

_OLDEST_JAVA = 11
_JAVA_S = 30
_EMBEDDED = "[local]"


def runner_findings(options: argparse.Namespace, beam_options: Sequence[str]) -> Iterator[Finding]:
    """What the chosen runner needs."""
    if options.runner == LOCAL:
        yield Finding(state=OK, subject="runner", text="local: processes of this machine, no port is opened")
    elif options.runner == FLINK:
        yield from _flink(options, beam_options)
    elif options.runner == DATAFLOW:
        yield from checked("dataflow", _dataflow)
    else:
        yield Finding(
            state=NOTE, subject="runner", text=f"{options.runner}: Beam's own; what it needs is not known here"
        )


def _flink(options: argparse.Namespace, beam_options: Sequence[str]) -> Iterator[Finding]:
    yield from checked("Java", _java)
    jar = options.flink_job_server_jar or os.environ.get(JAR_VARIABLE)
    yield from checked("job server", lambda: _job_server(jar, beam_options))
    if options.flink_master != _EMBEDDED:
        yield from checked("Flink", lambda: _cluster(options, jar))


def _java() -> Iterator[Finding]:
    launcher = shutil.which("java")
    advice = "install Java 17 (a JRE is enough), or name another after -- by --job_server_java_launcher"
    if launcher is None:
        yield Finding(state=PROBLEM, subject="Java", text="not found, and Flink's job server needs it", advice=advice)
        return
    try:
        done = subprocess.run([launcher, "-version"], capture_output=True, text=True, timeout=_JAVA_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(state=PROBLEM, subject="Java", text=f"{launcher} does not start ({error})", advice=advice)
        return
    said = (done.stderr + done.stdout).strip()
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if done.returncode or match is None:
        first = (said.splitlines() or ["nothing"])[0]
        yield Finding(state=PROBLEM, subject="Java", text=f"{launcher} says {first!r}", advice=advice)
    elif int(match.group(1)) < _OLDEST_JAVA:
        text = f"{launcher} is of version {match.group(1)}, {_OLDEST_JAVA} or newer is needed"
        yield Finding(state=PROBLEM, subject="Java", text=text, advice=advice)
    else:
        yield Finding(state=OK, subject="Java", text=f"{launcher}, version {match.group(1)}")


def _job_server(jar: str | None, beam_options: Sequence[str]) -> Iterator[Finding]:
    """The jar that is given, else the one that Beam downloaded before, else that it would download one."""
    given = PipelineOptions(list(beam_options)).view_as(FlinkRunnerOptions).flink_job_server_jar
    jar = given or jar
    if jar is not None and "://" not in jar:
        yield Finding(state=OK, subject="job server", text=f"{jar}, for Flink {jar_flink_version(jar)}")
        return
    if jar is not None:
        yield Finding(state=NOTE, subject="job server", text=f"{jar} will be downloaded")
        return
    folder = os.path.expanduser(JavaJarServer.JAR_CACHE)
    there = sorted(glob.glob(f"{folder}/beam-runners-flink-*-job-server-*.jar"))
    if there:
        yield Finding(state=OK, subject="job server", text=f"{there[-1]}, which Beam downloaded before")
    else:
        yield Finding(
            state=WARNING,
            subject="job server",
            text=f"no jar is given, and none is in {folder}: Beam will try to download one",
            advice=f"give --flink-job-server-jar or {JAR_VARIABLE} where this machine has no way out",
        )


def _cluster(options: argparse.Namespace, jar: str | None) -> Iterator[Finding]:
    cluster = ask_cluster(options.flink_master)
    if jar is not None and "://" not in jar:
        check_version(cluster, jar_flink_version(jar), f"the job server {os.path.basename(jar)}")
    if options.workers:
        check_slots(cluster, options.workers)
    text = f"{options.flink_master}: Flink {cluster.version}, {cluster.free_slots:,} free slots"
    yield Finding(state=OK if cluster.free_slots else PROBLEM, subject="Flink", text=text)


def _dataflow() -> Iterator[Finding]:
    import importlib.util

    for module in ("google.cloud.storage", "build"):
        try:
            is_there = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            is_there = False
        if not is_there:
            yield Finding(
                state=PROBLEM,
                subject="dataflow",
                text=f"{module} is not installed",
                advice="pip install 'leia-lm[gcp]'",
            )
            return
    yield Finding(state=OK, subject="dataflow", text="its client is installed; the project's rights were not looked at")
