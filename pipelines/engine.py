"""What runs the units of a stage, and how what Beam raises becomes an error of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import apache_beam as beam
import grpc

from leia_beam import errors
from leia_beam.errors import LeiaError, MissingResource
from leia_beam.units import AnyStage, Unit

Graph = Callable[[beam.Pipeline, Any, Sequence[Unit]], None]
"""Adds to a pipeline what does the given units of a stage; each takes a stage of its own kind."""


class Engine(Protocol):
    """Does units, on this machine or elsewhere. It may keep something (a job server) until it is closed."""

    def run(self, graph: Graph, stage: AnyStage, units: Sequence[Unit]) -> None:
        """Do the units. Raises: the error of a worker, as a LeiaError where it is one."""

    def close(self) -> None:
        """End what was kept."""


class beams_errors:
    """Beam tells of a worker's exception as text in a RuntimeError, or adds to its text; this raises it as what it was.

    `where` names the runner: with it, what is no error of ours and no fault of the program (a worker that died, a cluster
    that went away) becomes a MissingResource, since the same command goes on from there.
    """

    _OURS = re.compile(r"leia_beam\.errors\.(\w+): (.+?)(?= \[while running|\n|$)")
    _STEP = re.compile(r" \[while running '[^']*'\]")
    _JOB = re.compile(r"^Pipeline \S+ failed in state \w+: ")
    _RAISED = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception): .+$", re.MULTILINE)

    def __init__(self, where: str = "", advice: str = "run the same command again, it goes on where it stopped"):
        self._where = where
        self._advice = advice

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LeiaError):
            raise type(error)(self._STEP.sub("", str(error))) from None
        if error is None or not isinstance(error, Exception):
            return
        text = str(error)
        if "KeyboardInterrupt" in text:
            raise KeyboardInterrupt from None
        found = self._OURS.findall(text)
        if found:
            name, message = found[-1]
            raise getattr(errors, name, LeiaError)(self._STEP.sub("", message)) from None
        if self._where and isinstance(error, grpc.RpcError):
            status = f"{error.code().name} {error.details()}".strip() if isinstance(error, grpc.Call) else text
            raise MissingResource(
                f"{self._where}: the job server did not take the job ({status}); see build.log"
            ) from error
        if self._where and isinstance(error, RuntimeError):
            raise self._of_a_runner(text) from error

    def _of_a_runner(self, text: str) -> LeiaError:
        if "Traceback (most recent call last)" in text:
            raised = self._RAISED.findall(text)
            last = self._STEP.sub("", raised[-1] if raised else text.strip().splitlines()[-1])
            return LeiaError(
                f"{self._where}: a worker failed ({last}); this is a fault of the program, please report it"
            )
        first = self._JOB.sub("", " ".join(text.split()))[:300] or "no reason was given"
        return MissingResource(f"{self._where}: the job failed ({first}); {self._advice}")


def listening_note(what: str) -> str:
    """What is said of a runner that others on the network can reach."""
    return (
        f"note: {what}: Beam's ports for workers and jobs listen on all interfaces of this machine, without a password; "
        "keep it behind a firewall"
    )
