"""From rows to one Parquet file on local disk: zstd, page checksums, page index, bounded row groups.

Row groups are closed by the size of what is in them, as the caller states it, so that a reader's memory is bounded; the
bytes depend on the rows and their order alone (for equal versions of pyarrow). Rows are turned into columns a few at a
time, since as Python's objects they take several times their size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 32 << 20
ROW_GROUP_ROWS = 50_000
BATCH_BYTES = 1 << 20

_DICTIONARY_ENCODED = frozenset(
    {
        "wiki",
        "flags",
        "kind",
        "block",
        "reason",
        "name_language",
        "language",
        "foreign_wiki",
        "entity_kinds",
        "entity_blocks",
        "entity_edges",
        "entity_name_languages",
        "entity_name_sources",
    }
)


class TableWriter:
    """Writes rows of one schema to one file; `close` makes the file whole."""

    def __init__(self, path: str, schema: pa.Schema):
        self.path = path
        self.rows = 0
        self._schema = schema
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._batches: list[pa.RecordBatch] = []
        self._group_bytes = self._group_rows = self._batch_bytes = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            use_dictionary=_dictionary_columns(schema),
            write_page_index=True,
            write_page_checksum=True,
        )

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def write(self, row: Mapping[str, Any], size_bytes: int) -> None:
        """Add a row; `size_bytes` is about what it takes in memory."""
        for name, column in self._columns.items():
            column.append(row[name])
        self._group_rows += 1
        self._group_bytes += size_bytes
        self._batch_bytes += size_bytes
        if self._group_bytes >= ROW_GROUP_BYTES or self._group_rows >= ROW_GROUP_ROWS:
            self._flush()
        elif self._batch_bytes >= BATCH_BYTES:
            self._make_batch()

    def write_table(self, table: pa.Table, row_bytes: int) -> None:
        """Add the rows of a table of the schema; `row_bytes` is about what one takes in memory.

        Row groups are cut as if each row had been written by itself.
        """
        at = 0
        while at < table.num_rows:
            by_bytes = -(-(ROW_GROUP_BYTES - self._group_bytes) // row_bytes)
            count = max(1, min(table.num_rows - at, by_bytes, ROW_GROUP_ROWS - self._group_rows))
            if self._batch_bytes:
                self._make_batch()
            self._batches += table.slice(at, count).combine_chunks().to_batches()
            at += count
            self._group_rows += count
            self._group_bytes += count * row_bytes
            if self._group_bytes >= ROW_GROUP_BYTES or self._group_rows >= ROW_GROUP_ROWS:
                self._flush()

    def close(self) -> None:
        """Write what is pending and the file's footer."""
        self._flush()
        self._writer.close()

    def _make_batch(self) -> None:
        arrays = [pa.array(self._columns[field.name], type=field.type) for field in self._schema]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._batch_bytes = 0
        for column in self._columns.values():
            column.clear()

    def _flush(self) -> None:
        """Write a row group of all that is pending."""
        if not self._group_rows:
            return
        self._make_batch()
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        self._writer.write_table(table, row_group_size=self._group_rows)
        self.rows += self._group_rows
        self._group_rows = self._group_bytes = 0
        self._batches.clear()


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Paths of the Parquet columns that have few values, among them those inside lists."""
    return [path for field in schema for path, leaf in _leaves(field, field.name) if leaf in _DICTIONARY_ENCODED]


def _leaves(field: pa.Field, path: str, name: str | None = None) -> Iterator[tuple[str, str]]:
    name = name or field.name
    if pa.types.is_list(field.type):
        yield from _leaves(field.type.value_field, f"{path}.list.{field.type.value_field.name}", name)
    elif pa.types.is_struct(field.type):
        for child in field.type:
            yield from _leaves(child, f"{path}.{child.name}")
    else:
        yield path, name


def read_rows(path: str | BinaryIO, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file, one row group in memory at a time."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=1024, columns=list(columns) if columns is not None else None):
            yield from batch.to_pylist()
