"""From the finished buckets of the step `titles` to one numbering of all titles, and redirects followed in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

import marisa_trie
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.lookup import bucket_of, open_trie, read_arrow
from leia_beam.manifest import Manifest, read_manifest

TITLES = pa.schema(
    [
        ("title", pa.string()),
        ("page_id", pa.int64()),
        ("place", pa.int64()),
        ("qid", pa.int64()),
        ("name", pa.string()),
        ("name_language", pa.string()),
        ("name_source", pa.string()),
        ("refusal", pa.string()),
        ("held_out", pa.string()),
        ("redirect_to", pa.string()),
        ("redirect_fragment", pa.string()),
        ("redirect_interwiki", pa.string()),
        ("has_item", pa.bool_()),
    ]
)
"""One row a title. `qid` is an item's number, 0 where only a link between wikis names the page (`has_item` holds)."""


TITLE_TABLES = ("titles-trie", "titles-rows")
"""The tables of step 1 that are mapped."""


class TitleParts:
    """The buckets of step 1. A title's number in the whole is its bucket's offset plus its number in the trie.

    Rows are mapped a bucket at a time: what of all of them was touched once would count as this process's memory.
    """

    def __init__(self, folder: str):
        manifest: Manifest = read_manifest(folder)
        self._trie_paths = [os.path.join(folder, file.path) for file in manifest.files_of("titles-trie")]
        self._tries: list[marisa_trie.Trie] = [open_trie(path) for path in self._trie_paths]
        rows = manifest.files_of("titles-rows")
        self._rows_paths = [os.path.join(folder, file.path) for file in rows]
        counts = [file.rows for file in rows]
        self.offsets: list[int] = [0, *np.cumsum(counts).tolist()]

    @property
    def size(self) -> int:
        """The number of titles."""
        return self.offsets[-1]

    @property
    def bucket_count(self) -> int:
        """The number of buckets."""
        return len(self._rows_paths)

    def trie_path(self, bucket: int) -> str:
        """The file of a bucket's trie."""
        return self._trie_paths[bucket]

    def number_of(self, title: str) -> int | None:
        """A title's number in the whole, or None if nothing has this title."""
        bucket = bucket_of(title, len(self._tries))
        number = self._tries[bucket].get(title)
        return None if number is None else self.offsets[bucket] + number

    def rows_of(self, bucket: int) -> pa.Table:
        """The rows of a bucket, by number."""
        return read_arrow(self._rows_paths[bucket])

    def rows_at(self, numbers: np.ndarray, columns: list[str]) -> pa.Table:
        """Some columns of the rows of titles by their numbers in the whole (n,), in the order of the numbers."""
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        buckets = np.searchsorted(self.offsets, ordered, side="right") - 1
        pieces = [pa.schema([TITLES.field(name) for name in columns]).empty_table()]
        for bucket in np.unique(buckets).tolist():
            wanted = ordered[buckets == bucket] - self.offsets[bucket]
            pieces.append(self.rows_of(bucket).select(columns).take(pa.array(wanted, pa.int64())))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables(pieces).combine_chunks().take(pa.array(back))

    def redirects(self, bucket: int, own_items: bool) -> Iterator[tuple[int, str, str | None, str | None]]:
        """(number in the bucket, target, fragment, interwiki) of each redirect; with `own_items` of those without one."""
        rows = self.rows_of(bucket)
        names = ("redirect_to", "redirect_fragment", "redirect_interwiki", "has_item")
        columns = [rows.column(name).to_pylist() for name in names]
        for number, (target, fragment, interwiki, has_item) in enumerate(zip(*columns, strict=True)):
            if target is not None and not (own_items and has_item):
                yield number, target, fragment, interwiki

    def redirects_with_item(self, bucket: int) -> int:
        """How many redirects of a bucket have an item of their own."""
        rows = self.rows_of(bucket)
        return pc.sum(pc.and_(pc.is_valid(rows.column("redirect_to")), rows.column("has_item"))).as_py() or 0


@lru_cache(maxsize=2)
def open_title_parts(folder: str, manifest_sha256: str) -> TitleParts:
    """The parts of a folder, opened once a process; the sum tells builds of the same folder apart."""
    return TitleParts(folder)


def follow_chains(following: np.ndarray, loop_end: int) -> np.ndarray:
    """Where each chain ends, by pointer doubling; chains that never end lead to `loop_end`.

    `following` (n,) int32 maps each number to the next; a number that maps to itself is an end.

    >>> follow_chains(np.array([1, 2, 2, 4, 3, 3, 6], np.int32), 6).tolist()
    [2, 2, 2, 6, 6, 6, 6]
    """
    final = following
    for _ in range(max(1, len(following).bit_length())):
        doubled = final[final]
        if np.array_equal(doubled, final):
            break
        final = doubled
    is_end = following[final] == final
    return np.where(is_end, final, np.int32(loop_end)).astype(np.int32)
