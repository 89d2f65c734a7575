"""From a Flink master's address and a job server's jar to whether a job would run there, before one is submitted.

Flink itself says little: fewer free slots than asked for is no error, such a job waits for ever, and a job server of
another Flink version ends with a Java stack that does not name it. So each check is one question to Flink's REST interface
or one look into the jar, and each failure one line.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from typing import Any

from leia_beam.errors import MissingResource, UsageError

TIMEOUT_S = 10.0
VERSION_FILE = ".flink-runtime.version.properties"
"""Flink's own note of its version, in every jar that holds its runtime; a job server's name says nothing sure."""

ACTIVE = ("INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING", "CANCELLING")
_CANCEL_LIMIT_S = 20.0

# The master is asked directly, as the job server will: Java takes no notice of the proxies in the environment.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a Flink master says of its cluster. `slots_each`: of the task manager that has most."""

    master: str
    version: str
    task_managers: int
    slots: int
    free_slots: int
    slots_each: int
    jobs: tuple[str, ...]
    """The names of the jobs that run there."""


def master_url(master: str) -> str:
    """The address of the master's REST interface.

    >>> master_url("flink:8081"), master_url("https://flink/")
    ('http://flink:8081', 'https://flink')
    """
    return (master if "://" in master else f"http://{master}").rstrip("/")


def ask_cluster(master: str) -> Cluster:
    """What is there.

    Raises: MissingResource if no Flink answers within ten seconds.
    """
    overview = _get(master, "/overview")
    managers = _get(master, "/taskmanagers").get("taskmanagers", [])
    jobs = _get(master, "/jobs/overview").get("jobs", [])
    try:
        return Cluster(
            master=master,
            version=str(overview["flink-version"]),
            task_managers=int(overview["taskmanagers"]),
            slots=int(overview["slots-total"]),
            free_slots=int(overview["slots-available"]),
            slots_each=max((int(manager["slotsNumber"]) for manager in managers), default=0),
            jobs=tuple(str(job["name"]) for job in jobs if job["state"] in ACTIVE),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _no_flink(master, f"it lacks {error}") from error


def cancel_jobs(master: str, name: str) -> bool:
    """Cancel the jobs of that name and wait a while for their end. Returns whether none is left.

    Beam's own cancel ends the job server's waiting for a job, not always the job.

    Raises: MissingResource if the master does not answer.
    """
    deadline = time.monotonic() + _CANCEL_LIMIT_S
    asked: set[str] = set()
    while time.monotonic() < deadline:
        jobs = _get(master, "/jobs/overview").get("jobs", [])
        left = [str(job["jid"]) for job in jobs if job["name"] == name and job["state"] in ACTIVE]
        if not left:
            return True
        for job in left:
            if job not in asked:
                _ask(urllib.request.Request(f"{master_url(master)}/jobs/{job}?mode=cancel", method="PATCH"), master)
                asked.add(job)
        time.sleep(0.2)
    return False


def _get(master: str, path: str) -> dict[str, Any]:
    return _ask(urllib.request.Request(master_url(master) + path), master)


def _ask(request: urllib.request.Request, master: str) -> dict[str, Any]:
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            content = json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        raise _no_flink(master, f"HTTP {error.code} for {request.selector}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise MissingResource(
            f"--flink-master {master}: no answer ({reason}); start the cluster, or give the address of its REST interface"
        ) from error
    except ValueError as error:
        raise _no_flink(master, "no JSON") from error
    if not isinstance(content, dict):
        raise _no_flink(master, "no object")
    return content


def _no_flink(master: str, what: str) -> MissingResource:
    return MissingResource(
        f"--flink-master {master}: answers, but not as Flink does ({what}); give the address of Flink's REST interface"
    )


def jar_flink_version(jar: str) -> str:
    """The Flink version of a job server's jar.

    Raises: UsageError if there is no such file; MissingResource if it is no job server.
    """
    try:
        with zipfile.ZipFile(jar) as content:
            text = content.read(VERSION_FILE).decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise UsageError(f"--flink-job-server-jar {jar}: no such file") from error
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise MissingResource(f"--flink-job-server-jar {jar}: not a job server of Beam for Flink ({error})") from error
    found = re.search(r"^project\.version=(\S+)", text, re.MULTILINE)
    if found is None:
        raise MissingResource(f"--flink-job-server-jar {jar}: its {VERSION_FILE} names no version")
    return found.group(1)


def minor_version(version: str) -> str:
    """What must be the same on both sides: Flink keeps its job graph's form within a minor version.

    >>> minor_version("1.19.3"), minor_version("2.2-SNAPSHOT")
    ('1.19', '2.2')
    """
    found = re.match(r"\d+\.\d+", version)
    return found.group(0) if found else version


def check_version(cluster: Cluster, version: str, whose: str) -> None:
    """Raises: MissingResource if a job server of that Flink version cannot talk to the cluster."""
    if minor_version(version) != minor_version(cluster.version):
        raise MissingResource(
            f"--flink-master {cluster.master}: Flink {cluster.version} there, but {whose} is for Flink {version}; "
            f"take a job server for {minor_version(cluster.version)}"
        )


def check_slots(cluster: Cluster, parallelism: int) -> None:
    """Raises: MissingResource if fewer slots are free: the job would wait for them without end."""
    if cluster.free_slots < parallelism:
        running = f"; {len(cluster.jobs)} jobs run there: {', '.join(cluster.jobs[:3])}" if cluster.jobs else ""
        raise MissingResource(
            f"--flink-master {cluster.master}: {cluster.free_slots} of {cluster.slots} slots are free, {parallelism} are "
            f"needed{running}; wait for them, start more task managers, or give fewer --workers"
        )
