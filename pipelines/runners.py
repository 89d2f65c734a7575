"""From a runner's name to what runs the units of a stage: `local`, `flink`, `dataflow`, or any runner of Beam by its own name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from leia_beam.commits import DONE, read_stage_records
from leia_beam.errors import MissingResource, UsageError
from leia_beam.units import AnyStage, Unit
from pipelines.dataflow import DATAFLOW, DataflowEngine
from pipelines.engine import Engine, Graph, beams_errors, listening_note
from pipelines.flink import FlinkEngine, FlinkOptions
from pipelines.local import LocalEngine

LOCAL, FLINK = "local", "flink"


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """`workers` None: all cores, or all free slots of a cluster. `beam_options` go to Beam as they are."""

    name: str = LOCAL
    workers: int | None = None
    beam_options: Sequence[str] = ()
    flink: FlinkOptions = field(default_factory=FlinkOptions)


def open_engine(options: RunnerOptions, output: str, say: Callable[[str], None]) -> Engine:
    """What runs the stages of a build into `output`. It checks and starts what it needs when its first stage runs.

    Raises: UsageError if there is no such runner.
    """
    cores = os.cpu_count() or 1
    if options.name == LOCAL:
        return LocalEngine(options.workers or cores, options.beam_options)
    if options.name == FLINK:
        return FlinkEngine(options.flink, options.workers, options.beam_options, output, say)
    if options.name == DATAFLOW:
        return DataflowEngine(options.workers, options.beam_options)
    return NamedEngine(options.name, options.beam_options, say)


def run_units(engine: Engine, graph: Graph, stage: AnyStage) -> None:
    """Do all units of a stage that are not done yet.

    Raises: the error of a worker, as a LeiaError where it is one.
    """
    records = read_stage_records(stage.storage, stage.folder, stage.plan.unit_count, stage.plan.fingerprint)
    pending = [
        unit for unit, record in zip(stage.units(), records, strict=True) if record is None or record.status != DONE
    ]
    if pending:
        engine.run(graph, stage, pending)


class NamedEngine:
    """See Engine: a runner of Beam with just the options that were given for it."""

    def __init__(self, name: str, beam_options: Sequence[str], say: Callable[[str], None]):
        self._name = name
        self._beam_options = list(beam_options)
        self._say = say
        self._said = False

    def run(self, graph: Graph, stage: AnyStage, units: Sequence[Unit]) -> None:
        options = PipelineOptions(self._beam_options)
        try:
            pipeline = beam.Pipeline(runner=self._name, options=options)
        except ValueError as error:
            raise UsageError(f"--runner {self._name}: {str(error).splitlines()[0]}") from error
        except (ImportError, AttributeError) as error:
            raise MissingResource(
                f"--runner {self._name}: cannot be loaded ({error}); install what it needs"
            ) from error
        if not self._said and opens_ports(self._name, options):
            self._say(listening_note(f"--runner {self._name}"))
            self._said = True
        with beams_errors(f"--runner {self._name}"):
            graph(pipeline, stage, units)
            pipeline.run().wait_until_finish()

    def close(self) -> None:
        """Beam's runners end what they start."""


def opens_ports(name: str, options: PipelineOptions) -> bool:
    """Whether a runner of Beam listens on this machine: all do but the in-memory one, and Dataflow, which runs elsewhere."""
    short = name.rpartition(".")[2].lower().removesuffix("runner")
    if short in ("fnapi", "bundlebaseddirect"):
        return str(options.view_as(DirectOptions).direct_running_mode) != "in_memory"
    return short != "dataflow"
