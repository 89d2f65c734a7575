"""Shards open unchanged in datasets, polars, duckdb and pandas, with the rows that pyarrow reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from leia_beam.cli import main
from leia_beam.manifest import read_manifest
from tests.build_files import rows_of
from tests.conftest import Sample


@pytest.fixture(scope="module")
def build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several shards, with a card among them."""
    folder = tmp_path_factory.mktemp("readers") / "build"
    assert main([*sample.build_arguments("eswiki", folder), "--range-bytes", "8KiB", "--quiet"]) == 0
    assert main(["card", str(folder)]) == 0
    assert len(read_manifest(folder / "shards").files_of("train")) >= 3
    return folder


@pytest.fixture(scope="module")
def expected(build: Path) -> list[dict[str, Any]]:
    """The rows, in order."""
    return rows_of(build, "shards", "train")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("given", ["data", "."])
def test_datasets_reads_the_folder(
    build: Path, expected: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, streaming: bool
) -> None:
    """The data's folder by itself, and the folder with its card, whose metadata say which files there are."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    rows = load_dataset(
        str(build / "shards" / given), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    assert list(rows) == expected


def test_polars_reads_them(build: Path, expected: list) -> None:
    """Eagerly and lazily."""
    files = sorted((build / "shards/data").glob("*.parquet"))
    assert polars.read_parquet(files).to_dicts() == expected
    tokens = polars.scan_parquet(files).select(polars.col("input_ids").list.len().sum()).collect().item()
    assert tokens == sum(len(row["input_ids"]) for row in expected)


def test_duckdb_reads_them(build: Path, expected: list) -> None:
    """As SQL's lists."""
    found = duckdb.sql(
        f"SELECT title, input_ids, alternative_entity_input_ids FROM read_parquet('{build}/shards/data/*.parquet') "
        "ORDER BY page_id"
    ).fetchall()
    by_page = sorted(expected, key=lambda row: row["page_id"])
    assert found == [(row["title"], row["input_ids"], row["alternative_entity_input_ids"]) for row in by_page]


def test_pandas_reads_them(build: Path, expected: list) -> None:
    """Lists are arrays there."""
    frame = pandas.concat([pandas.read_parquet(path) for path in sorted((build / "shards/data").glob("*.parquet"))])
    assert list(frame["title"]) == [row["title"] for row in expected]
    assert all(np.array_equal(a, row["input_ids"]) for a, row in zip(frame["input_ids"], expected, strict=True))


def test_the_files_are_what_they_promise(build: Path) -> None:
    """zstd in every column chunk, a page index, checksums that are looked at, few row groups."""
    for path in (build / "shards/data").glob("*.parquet"):
        parquet = pq.ParquetFile(path, page_checksum_verification=True)
        parquet.read()
        group = parquet.metadata.row_group(0)
        for number in range(group.num_columns):
            column = group.column(number)
            assert column.compression == "ZSTD" and column.has_offset_index and column.has_column_index
