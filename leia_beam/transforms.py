"""Beam transforms around `run_unit`: a unit's descriptor goes in, (unit number, status) comes out.

Here and in pipelines/ alone is Beam imported. A stage is handed to workers through the transform's constructor, since
runners do not reliably give workers the launcher's options. Nothing depends on how a runner bundles or orders elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam

from leia_beam.stage_titles import TitlesStage
from leia_beam.title_rows import TitleSource, spooled, unspooled
from leia_beam.units import RangeStage, Stage, Unit, UnitOutput, run_chain, run_unit


class RunUnits(beam.PTransform):
    """Chains of units (`units.chains`) → (number, status) of each unit.

    Shuffles descriptors alone, so that a runner spreads them; memory is one unit's. A chain is done in its order.
    """

    def __init__(self, stage: Stage | RangeStage):
        super().__init__()
        self._stage = stage

    def expand(self, chains: beam.PCollection) -> beam.PCollection:
        return chains | "Spread" >> beam.Reshuffle() | "Run" >> beam.ParDo(_RunChain(self._stage))


class _RunChain(beam.DoFn):
    def __init__(self, stage: Stage | RangeStage):
        self._stage = stage

    def process(self, chain: tuple[Unit, ...]) -> Iterator[tuple[int, str]]:
        for record in run_chain(self._stage, chain):
            yield record.unit, record.status


class RunBuckets(beam.PTransform):
    """Files with titles → (bucket, status).

    Rows about titles are shuffled to their buckets, some hundreds in a chunk: the only rows of the builder that cross a
    shuffle. `units` are the buckets that this pipeline is to do; rows of others are left out where they are read.
    """

    def __init__(self, stage: TitlesStage, units: Sequence[Unit]):
        super().__init__()
        self._stage = stage
        self._units = units

    def expand(self, sources: beam.PCollection) -> beam.PCollection:
        rows = sources | "Spread" >> beam.Reshuffle() | "Read" >> beam.ParDo(_ReadTitles(self._stage, self._units))
        # A bucket without any title has a unit too: it gets an empty chunk.
        seeds = sources.pipeline | "Buckets" >> beam.Create([(unit.number, b"") for unit in self._units])
        return (
            (seeds, rows)
            | "Together" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()
            | "Run" >> beam.ParDo(_RunBucket(self._stage, self._units))
        )


class _ReadTitles(beam.DoFn):
    def __init__(self, stage: TitlesStage, units: Sequence[Unit]):
        self._stage = stage
        self._buckets = frozenset(unit.number for unit in units)

    def process(self, source: TitleSource) -> Iterator[tuple[int, bytes]]:
        chunks = self._stage.read_titles(source, self._buckets)
        yield from chunks if self._stage.spool is None else spooled(chunks, self._stage.spool)


class _RunBucket(beam.DoFn):
    def __init__(self, stage: TitlesStage, units: Sequence[Unit]):
        self._stage = stage
        self._units = {unit.number: unit for unit in units}

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, str]]:
        bucket, chunks = element

        def work(_: Unit, output: UnitOutput) -> None:
            carried = (chunk for chunk in chunks if chunk)
            self._stage.process_rows(carried if self._stage.spool is None else unspooled(carried), output)

        yield bucket, run_unit(self._stage, self._units[bucket], work).status
