"""From sorted titles to a compact read-only table on disk, and from a title to its row.

The table has B parts; a title's part is a stable hash of its bytes. A part is a trie (title → number) and an Arrow file
with one row for each number; workers map both into memory, so that all processes of a machine share them, and are given
the path of the table, never its content.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import marisa_trie
import pyarrow as pa

from leia_beam.manifest import read_manifest

CACHED_ROWS = 1 << 16


def bucket_of(title: str, bucket_count: int) -> int:
    """The part in which a title stands: CRC-32 of its UTF-8 bytes, so the same everywhere and for ever."""
    return zlib.crc32(title.encode("utf-8", "surrogatepass")) % bucket_count


def build_trie(titles: Sequence[str]) -> marisa_trie.Trie:
    """A trie that numbers distinct titles from 0; the numbers depend on the set of titles alone."""
    return marisa_trie.Trie(sorted(titles))


def write_columns(path: str, columns: Mapping[str, Sequence[Any]], schema: pa.Schema) -> None:
    """Rows in the order of the trie's numbers, as an uncompressed Arrow file that can be mapped."""
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema), max_chunksize=None)


def read_columns(path: str) -> pa.Table:
    """The rows of `write_columns`, mapped, not read."""
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def open_trie(path: str) -> marisa_trie.Trie:
    """A trie of `build_trie` that was saved, mapped, not read."""
    return marisa_trie.Trie().mmap(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityRow:
    """What is known of a title: its item and its name, or why it has none."""

    qid: str | None
    name: str | None
    name_language: str | None
    name_source: str | None
    reason: str | None


LOOKUP_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in EntityRow.__slots__])


class EntityLookup:
    """The entity table of a finished `entities` stage, by title."""

    def __init__(self, folder: str):
        manifest = read_manifest(folder)
        tries = manifest.files_of("lookup-titles")
        self._tries = [open_trie(str(Path(folder) / file.path)) for file in tries]
        self._columns = [read_columns(str(Path(folder) / file.path)) for file in manifest.files_of("lookup-rows")]
        self._find_cached = lru_cache(maxsize=CACHED_ROWS)(self._find)

    def find(self, title: str) -> EntityRow | None:
        """The row of a normalised title, or None: no page, redirect or sitelink has it."""
        return self._find_cached(title)

    def _find(self, title: str) -> EntityRow | None:
        bucket = bucket_of(title, len(self._tries))
        number = self._tries[bucket].get(title)
        if number is None:
            return None
        columns = self._columns[bucket]
        return EntityRow(**{name: columns.column(name)[number].as_py() for name in EntityRow.__slots__})


@lru_cache(maxsize=4)
def open_lookup(folder: str, manifest_sha256: str) -> EntityLookup:
    """The lookup of a folder, opened once a process; the sum tells builds of the same folder apart."""
    return EntityLookup(folder)
