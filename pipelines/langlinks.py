"""The pipeline `langlinks`: ranges of a wiki's langlinks table → one row a link. See leia_beam/stage_langlinks.py."""

from collections.abc import Sequence

import apache_beam as beam

from leia_beam.stage_langlinks import LangLinksStage
from leia_beam.transforms import RunUnits
from leia_beam.units import Unit, chains


def graph(pipeline: beam.Pipeline, stage: LangLinksStage, units: Sequence[Unit]) -> None:
    """Create(ranges) | Reshuffle | ParDo(read a range → write its files)."""
    _ = pipeline | "Ranges" >> beam.Create(chains(units)) | "LangLinks" >> RunUnits(stage)
