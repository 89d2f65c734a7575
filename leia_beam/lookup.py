"""From sorted titles to a compact read-only table on disk, and from a title to its row.

The table has B parts; a title's part is a stable hash of its bytes. A part is a trie (title → number) and an Arrow file
with one row for each number; workers map both into memory, so that all processes of a machine share them, and are given
the path of the table, never its content. A row is an item's number, a name, and one byte for language, source and
reason together, of which there are few. Measured against other ways in benchmarks/bench_entities.py.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import marisa_trie
import numpy as np
import pyarrow as pa

from leia_beam.manifest import read_manifest

CACHED_ROWS = 1 << 16
_STATUS_KEY = b"statuses"


def bucket_of(title: str, bucket_count: int) -> int:
    """The part in which a title stands: CRC-32 of its UTF-8 bytes, so the same everywhere and for ever."""
    return zlib.crc32(title.encode("utf-8", "surrogatepass")) % bucket_count


def build_trie(titles: Sequence[str]) -> marisa_trie.Trie:
    """A trie that numbers distinct titles from 0; the numbers depend on the set of titles alone."""
    return marisa_trie.Trie(sorted(titles))


def write_arrow(path: str, table: pa.Table) -> None:
    """Rows in the order of a trie's numbers, as one batch of an uncompressed Arrow file that can be mapped."""
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def read_arrow(path: str) -> pa.Table:
    """The rows of `write_arrow`, mapped, not read."""
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def open_trie(path: str) -> marisa_trie.Trie:
    """A trie of `build_trie` that was saved, mapped, not read."""
    return marisa_trie.Trie().mmap(path)


class EntityRow(NamedTuple):
    """What is known of a title: its item and its name, or why it has none."""

    qid: str | None
    name: str | None
    name_language: str | None
    name_source: str | None
    reason: str | None


Status = tuple[str | None, str | None, str | None]
"""(language of the name, its source, the reason why there is none)."""


def write_lookup_rows(
    path: str, qid_numbers: Any, names: pa.Array, statuses: Sequence[Status], status_of_row: np.ndarray
) -> None:
    """A part's rows: numbers of items (n,) int64, 0 for none; names; and for each row the number of its status."""
    schema = pa.schema(
        [("qid", pa.int64()), ("name", pa.string()), ("status", pa.uint8())],
        metadata={_STATUS_KEY: json.dumps(statuses, ensure_ascii=False)},
    )
    columns = [pa.array(qid_numbers, pa.int64()), names, pa.array(status_of_row, pa.uint8())]
    write_arrow(path, pa.Table.from_arrays(columns, schema=schema))


class _Part:
    """One part, mapped."""

    def __init__(self, trie_path: str, rows_path: str):
        self.trie = open_trie(trie_path)
        table = read_arrow(rows_path)
        self._statuses: list[Status] = [(status[0], status[1], status[2]) for status in _statuses(table.schema)]
        self._qids, self._names, self._status = (
            table.column(name).chunk(0) if table.num_rows else pa.array([], table.schema.field(name).type)
            for name in ("qid", "name", "status")
        )
        self._qid_numbers = memoryview(self._qids.to_numpy())  # gives Python's integers, which numpy's are slower than
        self._status_numbers = memoryview(self._status.to_numpy())

    def row(self, number: int) -> EntityRow:
        language, source, reason = self._statuses[self._status_numbers[number]]
        qid = self._qid_numbers[number]
        name = None if source is None else self._names[number].as_py()
        return EntityRow(f"Q{qid}" if qid else None, name, language, source, reason)


def _statuses(schema: pa.Schema) -> list[list[str | None]]:
    statuses: list[list[str | None]] = json.loads(schema.metadata[_STATUS_KEY])
    return statuses


LOOKUP_TABLES = ("lookup-titles", "lookup-rows")
"""The tables of the stage `entities` that are mapped."""


class EntityLookup:
    """The entity table of a finished `entities` stage, by title."""

    def __init__(self, folder: str):
        manifest = read_manifest(folder)
        tries, rows = manifest.files_of("lookup-titles"), manifest.files_of("lookup-rows")
        self._parts = [
            _Part(str(Path(folder) / trie.path), str(Path(folder) / row.path))
            for trie, row in zip(tries, rows, strict=True)
        ]
        self._find_cached = lru_cache(maxsize=CACHED_ROWS)(self._find)

    def find(self, title: str) -> EntityRow | None:
        """The row of a normalised title, or None: no page, redirect or sitelink has it."""
        return self._find_cached(title)

    def _find(self, title: str) -> EntityRow | None:
        part = self._parts[bucket_of(title, len(self._parts))]
        number = part.trie.get(title)
        return None if number is None else part.row(number)


@lru_cache(maxsize=4)
def open_lookup(folder: str, manifest_sha256: str) -> EntityLookup:
    """The lookup of a folder, opened once a process; the sum tells builds of the same folder apart."""
    return EntityLookup(folder)
