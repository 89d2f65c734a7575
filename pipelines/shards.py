"""The pipeline `shards`: files of articles → tokenized shards. See leia_beam/stage_shards.py."""

from collections.abc import Sequence

import apache_beam as beam

from leia_beam.stage_shards import ShardsStage
from leia_beam.transforms import RunUnits
from leia_beam.units import Unit, chains


def graph(pipeline: beam.Pipeline, stage: ShardsStage, units: Sequence[Unit]) -> None:
    """Create(files of articles) | Reshuffle | ParDo(link, tokenize, write a shard)."""
    _ = pipeline | "Articles" >> beam.Create(chains(units)) | "Shards" >> RunUnits(stage)
