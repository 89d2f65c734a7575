"""From pages that share a title or an id to the list of those that lose, with the page that is kept."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.schema import DUPLICATES
from leia_beam.title_parts import TitleParts
from leia_beam.title_rows import place_parts
from leia_beam.units import UnitOutput


def write_duplicates(rows: pa.Table, winners: np.ndarray, reason: str, output: UnitOutput) -> None:
    """List pages, rows with title, number and place, that lose to the pages with the ids `winners` (n,)."""
    table = output.table("duplicates", DUPLICATES)
    pages = zip(
        *(rows.column(name).to_pylist() for name in ("title", "number", "place")), winners.tolist(), strict=True
    )
    for title, page_id, place, kept in pages:
        of_table, unit, row = place_parts(place)
        values = (of_table, unit, row, page_id, title, kept, reason)
        table.write(dict(zip(DUPLICATES.names, values, strict=True)), 100)


def write_duplicate_ids(parts: TitleParts, output: UnitOutput) -> None:
    """Pages of different titles that share an id: the first in the dump keeps it, the others are listed."""
    ids, places = np.empty(parts.size, np.int64), np.empty(parts.size, np.int64)
    for bucket, (first, behind) in enumerate(itertools.pairwise(parts.offsets)):
        rows = parts.rows_of(bucket)
        ids[first:behind], places[first:behind] = (pc.fill_null(rows.column(of), -1) for of in ("page_id", "place"))
    order = np.lexsort((places, ids))
    again = np.flatnonzero((ids[order][1:] == ids[order][:-1]) & (ids[order][1:] >= 0)) + 1
    if not len(again):
        return
    output.count("duplicate ids", len(again))
    rows = parts.rows_at(order[again], ["title", "page_id", "place"]).rename_columns(["title", "number", "place"])
    write_duplicates(rows, ids[order][again], "duplicate id", output)
