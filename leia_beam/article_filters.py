"""Which articles of a wiki become no row of the shards, and why: each is counted by its reason.

Pages that lost against another of the same title or id never do. Articles without any link are left out by default, as
the reference has it; disambiguation pages, lists, repeated texts and short articles by option. Of equal texts the first
stays that nothing else leaves out, so that one of them is in the shards wherever one would be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leia_beam.entity_names import DISAMBIGUATION as REFUSED_DISAMBIGUATION
from leia_beam.entity_names import LIST as REFUSED_LIST
from leia_beam.errors import UsageError
from leia_beam.lookup import EntityLookup, EntityRow
from leia_beam.stage_folders import stage_manifest
from leia_beam.storage import Storage
from leia_beam.tables import read_rows

NO_LINK, DISAMBIGUATION, LIST, DUPLICATE = "no-link", "disambiguation", "list", "duplicate"
KINDS = (NO_LINK, DISAMBIGUATION, LIST, DUPLICATE)
REASONS = {
    NO_LINK: "no link",
    DISAMBIGUATION: "disambiguation page",
    LIST: "list",
    DUPLICATE: "text of another article",
}
"""What the counters call them."""
NO_TEXT = "no text"
SHORT = "short"
"""Fewer tokens than the minimal length."""
_ANCHOR_STARTS = "anchors.list.element.start_char"
"""One number a link, of the nine values that it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArticleFilters:
    """The kinds of articles that are dropped, sorted, and the minimal length in tokens."""

    drop: tuple[str, ...] = (NO_LINK,)
    min_length: int = 0

    def __post_init__(self) -> None:
        for kind in self.drop:
            if kind not in KINDS:
                raise UsageError(f"--drop-articles: {kind!r} is none of {', '.join(KINDS)}, none")

    def reason(self, flags: Sequence[str], has_link: bool, own: EntityRow | None, is_repeated: bool) -> str | None:
        """Why an article is dropped, by what is known before it is encoded; `own` is its title's row."""
        refused = own.reason if own is not None else None
        is_of_kind = {
            NO_LINK: not has_link,
            DISAMBIGUATION: "disambiguation" in flags or refused == REFUSED_DISAMBIGUATION,
            LIST: refused == REFUSED_LIST,
            DUPLICATE: is_repeated,
        }
        return next((REASONS[kind] for kind in KINDS if kind in self.drop and is_of_kind[kind]), None)


@lru_cache(maxsize=2)
def losing_pages(storage: Storage, entities_folder: str, manifest_sha256: str) -> Mapping[int, Mapping[int, str]]:
    """Unit → row → reason, of the articles that are left out for another page of the same title or id."""
    found: dict[int, dict[int, str]] = {}
    for step in ("_titles", "_redirects"):
        folder = f"{entities_folder}/{step}"
        for file in stage_manifest(storage, folder).files_of("duplicates"):
            for row in read_rows(storage.table_file(f"{folder}/{file.path}")):
                if row["table"] == "articles":
                    found.setdefault(row["unit"], {})[row["row"]] = row["reason"]
    return found


@lru_cache(maxsize=2)
def repeated_texts(
    storage: Storage,
    articles_folder: str,
    entities_folder: str,
    manifest_sha256: str,
    filters: ArticleFilters,
    lookup: EntityLookup,
) -> Mapping[int, frozenset[int]]:
    """Unit → rows whose text an earlier article of the dump has already, those aside that are left out anyway.

    Reads one column of 16 bytes an article, over all files; and of files with equal texts titles, flags and whether there
    are links.
    """
    losing = losing_pages(storage, entities_folder, manifest_sha256)
    files = stage_manifest(storage, articles_folder).files_of("articles")
    hashes, starts = [np.empty((0, 2), "<u8")], [0]
    for file in files:
        source = storage.table_file(f"{articles_folder}/{file.path}")
        column = pq.read_table(source, columns=["text_hash"]).column(0)
        hashes += [np.frombuffer(b"".join(chunk.to_pylist()), dtype="<u8").reshape(-1, 2) for chunk in column.chunks]
        starts.append(starts[-1] + len(column))
    equal = _equal_texts(np.concatenate(hashes), np.array(starts))
    rows_of: dict[int, list[int]] = {}
    for unit, row in (place for places in equal for place in places):
        rows_of.setdefault(unit, []).append(row)
    left_out = {(unit, row) for unit, rows in losing.items() for row in rows}
    for unit, rows in rows_of.items():
        source = storage.table_file(f"{articles_folder}/{files[unit].path}")
        left_out |= {(unit, row) for row in _left_out(source, sorted(rows), filters, lookup)}
    repeated: dict[int, set[int]] = {}
    for unit, row in _later_copies(equal, left_out):
        repeated.setdefault(unit, set()).add(row)
    return {unit: frozenset(rows) for unit, rows in repeated.items()}


def _left_out(
    source: str | BinaryIO, rows: Sequence[int], filters: ArticleFilters, lookup: EntityLookup
) -> Iterator[int]:
    """Those of a file's rows that are dropped for another reason than their text."""
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        table = file.read(columns=["title", "flags", _ANCHOR_STARTS]).take(rows)
    anchors = pc.list_value_length(table.column("anchors")).to_pylist()
    titles, flags = (table.column(name).to_pylist() for name in ("title", "flags"))
    for row, title, marks, count in zip(rows, titles, flags, anchors, strict=True):
        if filters.reason(marks, bool(count), lookup.find(title), is_repeated=False) is not None:
            yield row


def _equal_texts(hashes: np.ndarray, starts: np.ndarray) -> list[list[tuple[int, int]]]:
    """Groups of (unit, row) with equal hashes (N, 2), each in the dump's order; unit k has the hashes from starts[k] on."""
    order = np.argsort(hashes[:, 0], kind="stable")
    first_halves = hashes[order, 0]
    same = np.flatnonzero(first_halves[1:] == first_halves[:-1])
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number in np.unique(np.concatenate([order[same], order[same + 1]])).tolist():
        unit = int(np.searchsorted(starts, number, side="right")) - 1
        key = (int(hashes[number, 0]), int(hashes[number, 1]))
        found.setdefault(key, []).append((unit, number - int(starts[unit])))
    return [places for places in found.values() if len(places) > 1]


def _later_copies(
    equal: Iterable[Sequence[tuple[int, int]]], left_out: Collection[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The places of equal texts but for the first of each that is not left out anyway."""
    for places in equal:
        yield from [place for place in places if place not in left_out][1:]
