"""From a file of the stage `articles` to its articles, with their anchors as records.

Anchors are taken column by column, which takes a third of the time of a dictionary each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from leia_beam.records import Anchor

BATCH_ROWS = 64
_COLUMNS = ("page_id", "revision_id", "title", "text", "flags")


class Article(NamedTuple):
    """An article as the stage `articles` wrote it. `row` is its number in the file."""

    row: int
    page_id: int
    revision_id: int | None
    title: str
    text: str
    flags: Sequence[str]
    anchors: Sequence[Anchor]


def read_articles(path: str | BinaryIO) -> Iterator[Article]:
    """The articles of a file in their order, `BATCH_ROWS` of them in memory at a time."""
    row = 0
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[*_COLUMNS, "anchors"]):
            values = [batch.column(name).to_pylist() for name in _COLUMNS]
            rows = range(row, row + batch.num_rows)
            yield from map(Article._make, zip(rows, *values, _anchors(batch.column("anchors")), strict=True))
            row += batch.num_rows


def _anchors(column: pa.ListArray) -> list[list[Anchor]]:
    structs = column.flatten()
    fields = [structs.field(name).to_pylist() for name in Anchor._fields]
    anchors = list(map(Anchor._make, zip(*fields, strict=True)))
    ends = [0, *column.value_lengths().to_numpy().cumsum().tolist()]
    return [anchors[start:end] for start, end in pairwise(ends)]
