"""All stages as one pipeline, for runners that nobody waits beside: each begins with the manifest of those before it.

    links ─ units ─ manifest ┐
                             ├─ titles ─ buckets ─ manifest ─ redirects ─ … ─ entities ─ … ─ shards ─ units ─ manifest
    articles ─ units ─ manifest ┘

A stage that reads another one can only be made when that is finished, so a worker makes it: a first step (one element)
claims the stage's folder and gives its units, a last one (one element) writes the manifest from the records. What was
finished before is skipped there. A fault in the input fails the job in that last step, with the line that a user sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from leia_beam.coverage import STRICT, Tolerance
from leia_beam.finish import MaxRejects, finish_stage, read_finished
from leia_beam.manifest import manifest_bytes
from leia_beam.plans import claim_folder
from leia_beam.stage_folders import manifest_sum
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_titles import TitlesStage
from leia_beam.title_rows import TitleSource
from leia_beam.units import AnyStage, Unit, UnitOutput, chains, run_chain, run_unit
from pipelines.late_stages import EntitySteps, ShardsStep

Make = Callable[[], AnyStage]
"""Makes a stage, in whatever process: a value that reaches workers whole."""


@dataclass(frozen=True, kw_only=True)
class JobRules:
    """What a stage's first and last step need to know."""

    max_rejects: MaxRejects
    tolerance: Tolerance = STRICT
    overwrite: bool = False


@dataclass(frozen=True)
class Ready:
    """Makes a stage that reads dumps alone: it is ready before the job."""

    stage: AnyStage

    def __call__(self) -> AnyStage:
        return self.stage


def build_graph(
    pipeline: beam.Pipeline,
    first: Iterable[AnyStage],
    entities: EntitySteps,
    shards: ShardsStep,
    rules: JobRules,
) -> None:
    """The whole job; `first` are the stages over dumps."""
    start = pipeline | "Start" >> beam.Create([b""])
    finished = [start | stage.plan.stage.title() >> RunStage(Ready(stage), rules) for stage in first]
    before = finished | "Dumps" >> beam.Flatten() | "AllDumps" >> beam.combiners.Count.Globally()
    before = before | "Titles" >> RunTitles(entities.titles, rules)
    before = before | "Redirects" >> RunStage(entities.redirects, rules)
    before = before | "Entities" >> RunStage(entities.table, rules)
    _ = before | "Shards" >> RunStage(shards.stage, rules)


class RunStage(beam.PTransform):
    """One element, whatever it is → the sum of the stage's manifest, when all its units are done.

    Shuffles descriptors of units alone.
    """

    def __init__(self, make: Make, rules: JobRules):
        super().__init__()
        self._make = make
        self._rules = rules

    def expand(self, before: beam.PCollection) -> beam.PCollection:
        statuses = (
            before
            | "Plan" >> beam.ParDo(_Plan(self._make, self._rules))
            | "Spread" >> beam.Reshuffle()
            | "Run" >> beam.ParDo(_RunChain(self._make))
        )
        return statuses | "Finish" >> Finish(self._make, self._rules)


class RunTitles(beam.PTransform):
    """The same for the step `titles`, whose rows are shuffled to their buckets."""

    def __init__(self, make: Callable[[], TitlesStage], rules: JobRules):
        super().__init__()
        self._make = make
        self._rules = rules

    def expand(self, before: beam.PCollection) -> beam.PCollection:
        planned = before | "Plan" >> beam.ParDo(_Plan(self._make, self._rules, "buckets")).with_outputs(
            "sources", main="buckets"
        )
        rows = planned.sources | "Spread" >> beam.Reshuffle() | "Read" >> beam.ParDo(_ReadTitles(self._make))
        # A bucket without any title has a unit too: it gets an empty chunk.
        seeds = planned.buckets | "Seeds" >> beam.FlatMap(_seeds)
        statuses = (
            (seeds, rows)
            | "Together" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()
            | "Run" >> beam.ParDo(_RunBucket(self._make))
        )
        return statuses | "Finish" >> Finish(self._make, self._rules)


class Finish(beam.PTransform):
    """The statuses of a stage's units, perhaps none → the sum of its manifest, which is written."""

    def __init__(self, make: Make, rules: JobRules):
        super().__init__()
        self._make = make
        self._rules = rules

    def expand(self, statuses: beam.PCollection) -> beam.PCollection:
        return (
            statuses
            | "Count" >> beam.combiners.Count.Globally()
            | "Manifest" >> beam.ParDo(_WriteManifest(self._make, self._rules))
        )


class _Late(beam.DoFn):
    """Makes its stage when the first element comes: what it reads is finished then."""

    def __init__(self, make: Make):
        self._make = make
        self._made: AnyStage | None = None

    def made(self) -> AnyStage:
        """The stage. No property: Beam looks at all attributes of a DoFn."""
        if self._made is None:
            self._made = self._make()
        return self._made


class _Plan(_Late):
    """Claims the stage's folder; gives the chains of its units, or with `kind` 'buckets' also the sources of rows.

    Nothing comes out where the stage was finished before.
    """

    def __init__(self, make: Make, rules: JobRules, kind: str = "chains"):
        super().__init__(make)
        self._rules = rules
        self._kind = kind

    def process(self, _: object) -> Iterator[object]:
        stage = self.made()
        claim_folder(stage.storage, stage.folder, stage.plan, self._rules.overwrite)
        if read_finished(stage.storage, stage.folder, stage.plan.fingerprint) is not None:
            return
        if isinstance(stage, ShardsStage):
            stage.publish_tokenizer()
        yield from chains(stage.units())
        if self._kind == "buckets":
            assert isinstance(stage, TitlesStage)
            yield from (beam.pvalue.TaggedOutput("sources", source) for source in stage.sources())


class _RunChain(_Late):
    def process(self, chain: tuple[Unit, ...]) -> Iterator[tuple[int, str]]:
        for record in run_chain(self.made(), chain):  # type: ignore[arg-type]  # what it is given has units of its kind
            yield record.unit, record.status


def _seeds(chain: tuple[Unit, ...]) -> list[tuple[int, bytes]]:
    return [(unit.number, b"") for unit in chain]


class _ReadTitles(_Late):
    def process(self, source: TitleSource) -> Iterator[tuple[int, bytes]]:
        stage = self.made()
        assert isinstance(stage, TitlesStage)
        yield from stage.read_titles(source, range(stage.bucket_count))


class _RunBucket(_Late):
    def __init__(self, make: Make):
        super().__init__(make)
        self._units: Sequence[Unit] = ()

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, str]]:
        bucket, chunks = element
        stage = self.made()
        assert isinstance(stage, TitlesStage)
        self._units = self._units or stage.units()

        def work(_: Unit, output: UnitOutput) -> None:
            stage.process_rows((chunk for chunk in chunks if chunk), output)

        yield bucket, run_unit(stage, self._units[bucket], work).status


class _WriteManifest(_Late):
    def __init__(self, make: Make, rules: JobRules):
        super().__init__(make)
        self._rules = rules

    def process(self, _: int) -> Iterator[str]:
        stage = self.made()
        manifest = read_finished(stage.storage, stage.folder, stage.plan.fingerprint)
        if manifest is None:
            for dump in getattr(stage, "dumps", ()):
                dump.check_unchanged()
            manifest = finish_stage(
                stage.storage, stage.folder, stage.plan, self._rules.max_rejects, self._rules.tolerance
            )
        yield manifest_sum(manifest_bytes(manifest))
