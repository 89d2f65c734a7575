"""The pipelines of `entities`: titles → buckets → redirects → the entity table."""

from collections.abc import Sequence

import apache_beam as beam

from leia_beam.stage_entities import EntitiesStage
from leia_beam.stage_redirects import RedirectsStage
from leia_beam.stage_titles import TitlesStage
from leia_beam.transforms import RunBuckets, RunUnits
from leia_beam.units import Unit, chains


def titles_graph(pipeline: beam.Pipeline, stage: TitlesStage, units: Sequence[Unit]) -> None:
    """Create(files) | ParDo(read titles) | GroupByKey(bucket) | ParDo(write a bucket's trie and rows)."""
    _ = pipeline | "Files" >> beam.Create(stage.sources()) | "Titles" >> RunBuckets(stage, units)


def redirects_graph(pipeline: beam.Pipeline, stage: RedirectsStage, units: Sequence[Unit]) -> None:
    """Create(one unit) | ParDo(follow all redirects)."""
    _ = pipeline | "Unit" >> beam.Create(chains(units)) | "Redirects" >> RunUnits(stage)


def graph(pipeline: beam.Pipeline, stage: EntitiesStage, units: Sequence[Unit]) -> None:
    """Create(buckets) | Reshuffle | ParDo(write a bucket's entities and its part of the lookup)."""
    _ = pipeline | "Buckets" >> beam.Create(chains(units)) | "Entities" >> RunUnits(stage)
