"""From units to their being done by processes of this machine, each an in-memory runner over its share of them.

No port is opened, which Beam's own multi_processing mode does on all interfaces, and nothing is downloaded, which its
plain DirectRunner tries first. Little work is done in this process, since a process costs about two seconds to start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from leia_beam import errors
from leia_beam.errors import LeiaError, MissingResource
from leia_beam.stage_titles import TitlesStage
from leia_beam.units import AnyStage, Unit, chains
from pipelines.engine import Graph, beams_errors

BYTES_FOR_A_PROCESS = 8 << 20
"""Of compressed input: about the work that pays for the start of a process."""


class LocalEngine:
    """See Engine. `workers` is the largest number of processes."""

    def __init__(self, workers: int, beam_options: Sequence[str]):
        self._workers = workers
        self._beam_options = tuple(beam_options)

    def run(self, graph: Graph, stage: AnyStage, units: Sequence[Unit]) -> None:
        together = chains(units)
        work_bytes = sum(unit.end - unit.start for unit in units)
        processes = min(self._workers, len(together), 1 + work_bytes // BYTES_FOR_A_PROCESS)
        if processes <= 1:
            _run_in_memory(graph, stage, units, self._beam_options)
        else:
            shares = [[unit for chain in together[number::processes] for unit in chain] for number in range(processes)]
            _run_processes(graph, stage, shares, self._beam_options)

    def close(self) -> None:
        """Nothing is kept between stages."""


def _run_in_memory(graph: Graph, stage: AnyStage, units: Sequence[Unit], beam_options: Sequence[str]) -> None:
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_options)))
    with tempfile.TemporaryDirectory(prefix="leia-titles-") as folder, beams_errors():
        graph(pipeline, replace(stage, spool=folder) if isinstance(stage, TitlesStage) else stage, units)
        pipeline.run().wait_until_finish()


def _run_processes(
    graph: Graph, stage: AnyStage, shares: Sequence[Sequence[Unit]], beam_options: Sequence[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for share in shares:
            receiver, sender = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(
                target=_work, args=(graph, stage, share, tuple(beam_options), sender), daemon=True
            )
            process.start()
            sender.close()
            workers.append((process, receiver))
        _await(workers)
    finally:
        for process, _ in workers:
            if process.is_alive():
                process.terminate()
        for process, receiver in workers:
            process.join()
            receiver.close()


def _await(workers: Sequence[tuple[BaseProcess, Connection]]) -> None:
    """Wait until all are done; the first that fails ends the waiting with its error."""
    running = {process.sentinel: (process, receiver) for process, receiver in workers}
    while running:
        for sentinel in wait(list(running)):
            process, receiver = running.pop(sentinel)  # type: ignore[arg-type]
            process.join()
            if process.exitcode == 0:
                continue
            try:
                name, message = receiver.recv()
            except EOFError:  # it had no time to say why
                pass
            else:
                raise getattr(errors, name, LeiaError)(message)
            raise MissingResource(
                f"a worker process ended with {_describe(process.exitcode)}, perhaps for lack of memory; "
                "run the same command again, it goes on where it stopped"
            )


def _describe(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _work(
    graph: Graph, stage: AnyStage, units: Sequence[Unit], beam_options: Sequence[str], sender: Connection
) -> None:
    """A worker process: its share of the units through an in-memory runner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what a unit held, which the default pool keeps
    try:
        _run_in_memory(graph, stage, units, beam_options)
    except LeiaError as error:
        sender.send((type(error).__name__, str(error)))
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A launcher that was killed must not leave workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(errors.Interrupted.exit_code)
