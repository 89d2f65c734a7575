"""tables: rows come back as they went in, in bounded row groups, and damage of a page is found."""

from __future__ import annotations

import hashlib
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leia_beam import tables
from leia_beam.schema import TABLES
from leia_beam.tables import TableWriter, read_rows


def value_of(field: pa.Field, rng: random.Random):
    """A random value of a column: nulls where they are allowed, empty lists, letters of many scripts."""
    if field.nullable and rng.random() < 0.4:
        return None
    kind = field.type
    if pa.types.is_list(kind):
        return [value_of(kind.value_field, rng) for _ in range(rng.choice((0, 0, 1, 3)))]
    if pa.types.is_struct(kind):
        return {child.name: value_of(child, rng) for child in kind}
    if pa.types.is_string(kind):
        return "".join(rng.choice("aé東🗼\n\u0000'\"") for _ in range(rng.randrange(6)))
    if pa.types.is_fixed_size_binary(kind):
        return rng.randbytes(kind.byte_width)
    bits = kind.bit_width - 1
    return rng.choice((0, 1, -1, 2**bits - 1, -(2**bits), rng.randrange(1000)))


def rows_of(schema: pa.Schema, count: int, seed: int = 0):
    rng = random.Random(seed)
    return [{field.name: value_of(field, rng) for field in schema} for _ in range(count)]


def write(path, schema, rows, size_bytes=100):
    with TableWriter(str(path), schema) as writer:
        for row in rows:
            writer.write(row, size_bytes)
    return writer


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_every_table_come_back_as_they_were(tmp_path, table):
    """Nested lists, nulls, empty texts and the ends of the integers' ranges."""
    schema = TABLES[table]
    rows = rows_of(schema, 300, seed=1)
    writer = write(tmp_path / "x.parquet", schema, rows)
    assert list(read_rows(str(tmp_path / "x.parquet"))) == rows
    assert writer.rows == 300
    assert pq.read_schema(tmp_path / "x.parquet").equals(schema)
    nullable = [field.name for field in schema if field.nullable]
    assert all({row[name] is None for row in rows} == {True, False} for name in nullable)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_rows_is_a_file_with_its_columns(tmp_path, table):
    """A unit that found nothing has a file too, and readers see the schema."""
    write(tmp_path / "x.parquet", TABLES[table], [])
    assert list(read_rows(str(tmp_path / "x.parquet"))) == []
    assert pq.read_schema(tmp_path / "x.parquet").equals(TABLES[table])


def test_only_the_columns_asked_for_are_read(tmp_path):
    """By name, in any order; all of them by default."""
    rows = rows_of(TABLES["redirects"], 10)
    write(tmp_path / "x.parquet", TABLES["redirects"], rows)
    assert list(read_rows(str(tmp_path / "x.parquet"), iter(["to", "page_id"]))) == [
        {"page_id": row["page_id"], "to": row["to"]} for row in rows
    ]


def test_row_groups_are_bounded_by_bytes_and_by_rows(tmp_path, monkeypatch):
    """A group is closed by the row that fills it, so a reader's memory has a limit."""
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
    schema, path = TABLES["redirects"], tmp_path / "x.parquet"
    sizes = {100: [7, 7, 6], 400: [3, 3, 3, 3, 3, 3, 2], 5000: [1] * 20, 0: [7, 7, 6]}
    for size_bytes, expected in sizes.items():
        write(path, schema, rows_of(schema, 20), size_bytes)
        meta = pq.read_metadata(path)
        assert [meta.row_group(number).num_rows for number in range(meta.num_row_groups)] == expected


def test_files_are_compressed_indexed_and_checksummed(tmp_path):
    """zstd in every column; dictionaries in those with few values, also inside lists, and in no others."""
    rows = rows_of(TABLES["articles"], 200)
    write(tmp_path / "x.parquet", TABLES["articles"], rows)
    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert all(column.has_column_index for column in columns if column.statistics is not None)
    assert {column.path_in_schema for column in columns if column.has_dictionary_page} == {
        "wiki",
        "anchors.list.element.kind",
        "anchors.list.element.block",
        "anchors.list.element.foreign_wiki",
        "flags.list.element",
    }


def test_a_flipped_byte_in_a_data_page_is_found(tmp_path):
    """Wherever in the pages' data a byte is changed, reading fails rather than giving other rows."""
    schema, path = TABLES["train"], tmp_path / "x.parquet"
    rows = rows_of(schema, 400)
    write(path, schema, rows)
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    rng, refused = random.Random(2), 0
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        end = start + column.total_compressed_size
        damaged = bytearray(whole)
        damaged[rng.randrange(end - min(8, end - start), end)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(OSError, match=r"(?i)crc|checksum"):
            list(read_rows(str(path)))
        refused += 1
    assert refused == group.num_columns > 15


def test_the_same_rows_are_the_same_bytes(tmp_path):
    """Whatever else was written before, and wherever the file lies; another row is other bytes."""
    schema = TABLES["articles"]
    rows = rows_of(schema, 200, seed=4)
    sums = []
    for name, written in (("a", rows), ("b/c", rows), ("d", [*rows[:-1], {**rows[-1], "title": "other"}])):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        write(path, schema, written)
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert sums[0] == sums[1] != sums[2]


def test_a_row_that_lacks_a_column_is_an_error(tmp_path):
    """A missing column is never a null."""
    with pytest.raises(KeyError, match="fragment"), TableWriter(str(tmp_path / "x"), TABLES["redirects"]) as writer:
        writer.write({"wiki": "jawiki", "page_id": 1, "from": "a", "to": "b", "to_interwiki": None}, 1)


def test_a_null_where_none_is_allowed_is_an_error(tmp_path):
    """`title` of an article is never null in a file."""
    row = {**rows_of(TABLES["articles"], 1)[0], "title": None}
    with pytest.raises((pa.ArrowInvalid, OSError), match=r"(?i)null"):
        write(tmp_path / "x.parquet", TABLES["articles"], [row])


def test_a_number_that_does_not_fit_is_an_error(tmp_path):
    """An id beyond int32 is refused, not wrapped around."""
    row = {**rows_of(TABLES["train"], 1)[0], "input_ids": [2**31]}
    with pytest.raises((pa.ArrowInvalid, OverflowError)):
        write(tmp_path / "x.parquet", TABLES["train"], [row])
