"""docs/shard-format.md says what the code writes: columns, words, keys of the manifest, version."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from leia_beam import alignment, entity_names, records, tables
from leia_beam.cli import main
from leia_beam.schema import SCHEMA_VERSION, SHARDS
from tests.conftest import Sample

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "shard-format.md").read_text(encoding="utf-8")


def _tables() -> list[list[list[str]]]:
    """All tables of the page: rows of cells."""
    found: list[list[list[str]]] = [[]]
    for line in PAGE.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def _table(*header: str) -> list[list[str]]:
    """The rows of the tables with this header."""
    rows = [table[2:] for table in _tables() if tuple(table[0]) == header]
    assert rows, header
    return [row for table in rows for row in table]


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _type_name(kind: pa.DataType) -> str:
    """A type as the page writes it.

    >>> _type_name(pa.list_(pa.field("element", pa.string())))
    'list of string?'
    """
    if pa.types.is_list(kind):
        optional = "?" if kind.value_field.nullable and not pa.types.is_list(kind.value_type) else ""
        return f"list of {_type_name(kind.value_type)}{optional}"
    return str(kind)


def test_the_columns_are_those_of_the_schema() -> None:
    """Name, type and null of each column, in order."""
    documented = [
        (_code(name)[0], kind, null == "yes")
        for name, kind, null, _ in _table("column", "type", "null", "what it holds")
    ]
    assert documented == [(field.name, _type_name(field.type), field.nullable) for field in SHARDS]


def test_the_words_are_those_that_the_code_writes() -> None:
    """Each word of the four closed columns, once."""
    words: dict[str, list[str]] = {}
    column = ""
    for name, word, _ in _table("column", "word", "meaning"):
        column = _code(name)[0] if name else column
        words.setdefault(column, []).extend(_code(word))
    assert words == {
        "entity_kinds": list(records.KINDS),
        "entity_blocks": list(records.BLOCKS),
        "entity_edges": list(alignment.EDGES),
        "entity_name_sources": [
            entity_names.SITELINK,
            entity_names.LABEL_CASE,
            entity_names.LABEL,
            entity_names.TEMPLATE,
        ],
    }


def test_the_numbers_are_those_of_the_code() -> None:
    """Schema version and the bounds of row groups."""
    assert f"schema version **{SCHEMA_VERSION}**" in PAGE
    assert f"at most {tables.ROW_GROUP_BYTES >> 20} MiB of values and {tables.ROW_GROUP_ROWS:,} rows" in PAGE


@pytest.fixture(scope="module")
def shards(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the bundled sample."""
    output = tmp_path_factory.mktemp("format") / "ja"
    assert main([*sample.build_arguments("jawiki", output), "--workers", "1", "--quiet"]) == 0
    return output / "shards"


def test_the_manifest_has_the_documented_keys_and_no_others(shards: Path) -> None:
    """Of the manifest, of its files, of the tokenizer."""
    manifest = json.loads((shards / "_manifest.json").read_bytes())
    tables_of_keys = [table[2:] for table in _tables() if table[0] == ["key", "what it holds"]]
    keys = [{key for row in table for key in _code(row[0])} for table in tables_of_keys]
    assert keys == [set(manifest), set(manifest["details"]["tokenizer"])]
    row_of_files = next(row for row in tables_of_keys[0] if row[0] == "`files`")
    assert set(_code(row_of_files[1])) == set(manifest["files"][0])
    row_of_options = next(row for row in tables_of_keys[0] if row[0] == "`options`")
    named = set(_code(row_of_options[1]))
    assert named == {option for option in manifest["options"] if not option.endswith("_sha256")}


def test_the_documented_folder_is_what_is_there(shards: Path) -> None:
    """Each path of the page's tree that is not said to be conditional."""
    tree = PAGE.partition("```text\nshards/\n")[2].partition("```")[0]
    for line in tree.splitlines():
        names, _, remark = line.strip().partition("   ")
        if "only" in remark:
            continue
        for name in names.split("  "):
            pattern = re.sub(r"<fp8>", "????????", name.strip()).replace("00128", "*")
            assert list(shards.glob(pattern)), name
