"""The pipeline `sitelinks`: ranges of the Wikidata dump → one row an item. See leia_beam/stage_sitelinks.py."""

from collections.abc import Sequence

import apache_beam as beam

from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.transforms import RunUnits
from leia_beam.units import Unit, chains


def graph(pipeline: beam.Pipeline, stage: SitelinksStage, units: Sequence[Unit]) -> None:
    """Create(ranges) | Reshuffle | ParDo(read a range → write its files)."""
    _ = pipeline | "Ranges" >> beam.Create(chains(units)) | "Sitelinks" >> RunUnits(stage)
