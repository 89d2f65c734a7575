"""Which articles of a wiki become no row of the shards, and why: each is counted by its reason.

Pages that lost against another of the same title or id never do. Articles without any link are left out by default, as
the reference has it; disambiguation pages, lists, repeated texts and short articles by option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow.parquet as pq

from leia_beam.entity_names import DISAMBIGUATION as REFUSED_DISAMBIGUATION
from leia_beam.entity_names import LIST as REFUSED_LIST
from leia_beam.errors import UsageError
from leia_beam.lookup import EntityRow
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
    storage: Storage, articles_folder: str, entities_folder: str, manifest_sha256: str
) -> Mapping[int, frozenset[int]]:
    """Unit → rows whose text an earlier article of the dump has already, those left aside that lose anyway.

    Reads one column of 16 bytes an article, over all files.
    """
    losing = losing_pages(storage, entities_folder, manifest_sha256)
    hashes, starts = [np.empty((0, 2), "<u8")], [0]
    for file in stage_manifest(storage, articles_folder).files_of("articles"):
        source = storage.table_file(f"{articles_folder}/{file.path}")
        column = pq.read_table(source, columns=["text_hash"]).column(0)
        hashes += [np.frombuffer(b"".join(chunk.to_pylist()), dtype="<u8").reshape(-1, 2) for chunk in column.chunks]
        starts.append(starts[-1] + len(column))
    repeated: dict[int, set[int]] = {}
    for unit, row in _later_copies(np.concatenate(hashes), np.array(starts), losing):
        repeated.setdefault(unit, set()).add(row)
    return {unit: frozenset(rows) for unit, rows in repeated.items()}


def _later_copies(
    hashes: np.ndarray, starts: np.ndarray, losing: Mapping[int, Mapping[int, str]]
) -> Iterator[tuple[int, int]]:
    """(unit, row) at which each hash (N, 2) stands, but for the first; unit k has the hashes from starts[k] on."""
    order = np.argsort(hashes[:, 0], kind="stable")
    first_halves = hashes[order, 0]
    same = np.flatnonzero(first_halves[1:] == first_halves[:-1])
    seen: set[tuple[int, int]] = set()
    for number in np.unique(np.concatenate([order[same], order[same + 1]])).tolist():
        unit = int(np.searchsorted(starts, number, side="right")) - 1
        row = number - int(starts[unit])
        if row in losing.get(unit, {}):
            continue
        key = (int(hashes[number, 0]), int(hashes[number, 1]))
        if key in seen:
            yield unit, row
        seen.add(key)
