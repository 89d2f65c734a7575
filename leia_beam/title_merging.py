"""From the sorted rows of a bucket to one row a title.

Of two items of one page the lowest number is taken, of two pages of one title the lowest id; the others are counted, and
the pages that lose are listed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.duplicate_pages import write_duplicates
from leia_beam.entity_names import DISAMBIGUATION
from leia_beam.title_parts import TITLES
from leia_beam.title_rows import PAGE, REDIRECT, SITELINK
from leia_beam.units import UnitOutput


def merge_rows(known: pa.Table, output: UnitOutput) -> pa.Table:
    """One row a title from sorted rows: the first of each kind counts, others are duplicates; a page beats a redirect."""
    kinds, titles = known.column("kind").to_numpy(), known.column("title")
    is_new = np.ones(len(kinds), bool)
    if len(kinds):
        is_new[1:] = pc.not_equal(titles.slice(1), titles.slice(0, len(kinds) - 1)).to_numpy()
    is_first = is_new.copy()
    is_first[1:] |= kinds[1:] != kinds[:-1]
    group = np.cumsum(is_new) - 1
    count = int(is_new.sum())
    first_row = {}
    for kind in (PAGE, REDIRECT, SITELINK):
        rows = np.full(count, -1, np.int64)
        chosen = np.flatnonzero(is_first & (kinds == kind))
        rows[group[chosen]] = chosen
        first_row[kind] = rows
    first_row[REDIRECT][first_row[PAGE] >= 0] = -1
    for kind, name in ((PAGE, "page"), (REDIRECT, "redirect"), (SITELINK, "sitelink")):
        output.count_any(f"rows/emitted/{name}", int((first_row[kind] >= 0).sum()))
    kept = np.zeros(len(kinds), bool)
    for rows in first_row.values():
        kept[rows[rows >= 0]] = True
    losing_pages = np.flatnonzero(~kept & (kinds != SITELINK))
    output.count_any("rows/filtered/duplicate item", int((~kept & (kinds == SITELINK)).sum()))
    output.count_any("rows/filtered/duplicate title", len(losing_pages))
    page_rows = np.where(first_row[PAGE] >= 0, first_row[PAGE], first_row[REDIRECT])
    if len(losing_pages):
        winners = known.column("number").to_numpy()[page_rows[group[losing_pages]]]
        write_duplicates(known.take(pa.array(losing_pages)), winners, "duplicate title", output)
    return _columns_of_titles(known, np.flatnonzero(is_new), first_row, page_rows)


def _columns_of_titles(
    known: pa.Table, title_rows: np.ndarray, first_row: dict[int, np.ndarray], page_rows: np.ndarray
) -> pa.Table:
    def taken(column: str, rows: np.ndarray) -> pa.Array:
        """Values of a column, null where there is no such row."""
        return known.column(column).combine_chunks().take(pa.array(rows, mask=rows < 0))

    links, redirects = first_row[SITELINK], first_row[REDIRECT]
    name, refusal = taken("name", links), taken("reason", links)
    marked = pc.equal(taken("reason", first_row[PAGE]), DISAMBIGUATION)
    refused = pc.fill_null(pc.and_(pc.and_(marked, pc.invert(taken("typed", links))), pc.is_valid(name)), False)
    nothing = pa.nulls(len(title_rows), pa.string())
    columns = {
        "title": taken("title", title_rows),
        "page_id": taken("number", page_rows),
        "place": taken("place", page_rows),
        "qid": pc.fill_null(taken("number", links), 0),
        "name": pc.if_else(refused, nothing, name),
        "name_language": pc.if_else(refused, nothing, taken("name_language", links)),
        "name_source": pc.if_else(refused, nothing, taken("name_source", links)),
        "refusal": pc.if_else(refused, pa.scalar(DISAMBIGUATION), refusal),
        "held_out": taken("held_out", links),
        **{name: taken(name, redirects) for name in ("redirect_to", "redirect_fragment", "redirect_interwiki")},
        "has_item": pa.array(links >= 0),
    }
    return pa.Table.from_pydict(columns, schema=TITLES)
