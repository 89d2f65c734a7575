"""The pipeline `articles`: ranges of a wiki's dump → articles with anchors, redirects. See leia_beam/stage_articles.py."""

from collections.abc import Sequence

import apache_beam as beam

from leia_beam.stage_articles import ArticlesStage
from leia_beam.transforms import RunUnits
from leia_beam.units import Unit, chains


def graph(pipeline: beam.Pipeline, stage: ArticlesStage, units: Sequence[Unit]) -> None:
    """Create(ranges) | Reshuffle | ParDo(read a range → write its files)."""
    _ = pipeline | "Ranges" >> beam.Create(chains(units)) | "Articles" >> RunUnits(stage)
