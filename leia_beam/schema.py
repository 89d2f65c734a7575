"""The columns of every table that a build writes: one place, with a version, read by the writer and by each reader.

Offsets are half-open. Characters are Unicode code points of ``text``; token positions are indices into ``input_ids``.
Spans of a row are sorted and do not overlap. ``page_id`` is unique within a wiki, not across wikis.
"""

from __future__ import annotations

import pyarrow as pa

from leia_beam.errors import UsageError

SCHEMA_VERSION = "2.0"
"""``major.minor``: a reader takes its own major version, and every minor version that it knows."""

ANCHOR = pa.struct(
    [
        pa.field("start_char", pa.int32(), nullable=False),
        pa.field("end_char", pa.int32(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("fragment", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("block", pa.string(), nullable=False),
        pa.field("foreign_wiki", pa.string()),
        pa.field("foreign_title", pa.string()),
        pa.field("foreign_qid", pa.string()),
    ]
)


def _column(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _optional(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=True)


def _list_of(kind: pa.DataType, nullable: bool = False) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=nullable))


def _list_of_struct(*names: str) -> pa.DataType:
    return _list_of(pa.struct([_column(name, pa.string()) for name in names]))


_CATEGORY = pa.string()  # few values: dictionary-encoded in the file (tables.py), a plain string to every reader

SITELINKS = pa.schema(
    [
        _column("qid", pa.string()),
        _column("sitelinks", _list_of_struct("wiki", "title")),
        _column("labels", _list_of_struct("language", "label")),
    ]
)

FACTS = pa.schema(
    [
        _column("qid", pa.string()),
        _column("claims", _list_of_struct("property", "item")),
        _column("aliases", _list_of_struct("language", "alias")),
    ]
)
"""Beside SITELINKS, in its order, for the items that have any: item values of best rank, and aliases."""

LANGLINKS = pa.schema([_column("page_id", pa.int64()), _column("language", pa.string()), _column("title", pa.string())])
"""`language` is the prefix that the wiki uses: zh-min-nan, simple."""

ARTICLES = pa.schema(
    [
        _column("wiki", pa.string()),
        _column("page_id", pa.int64()),
        _optional("revision_id", pa.int64()),
        _column("title", pa.string()),
        _column("text", pa.string()),
        _column("text_hash", pa.binary(16)),
        _column("anchors", _list_of(ANCHOR)),
        _column("flags", _list_of(pa.string())),
    ]
)
"""`text_hash` is the BLAKE2b of the text's UTF-8 bytes, by which repeated texts are found."""

REDIRECTS = pa.schema(
    [
        _column("wiki", pa.string()),
        _column("page_id", pa.int64()),
        _column("from", pa.string()),
        _column("to", pa.string()),
        _optional("fragment", pa.string()),
        _optional("to_interwiki", pa.string()),
    ]
)

ENTITIES = pa.schema(
    [
        _column("title", pa.string()),
        _optional("page_id", pa.int64()),
        _optional("resolved_title", pa.string()),
        _optional("qid", pa.string()),
        _optional("name", pa.string()),
        _optional("name_language", pa.string()),
        _optional("reason", pa.string()),
    ]
)

HELD_OUT_NAMES = pa.schema(
    [
        _column("title", pa.string()),
        _optional("qid", pa.string()),
        _column("name", pa.string()),
        _column("name_language", pa.string()),
        _column("name_source", pa.string()),
        _column("aliases", _list_of(pa.string())),
    ]
)
"""Names that are kept from insertion; aliases where the stage `sitelinks` kept them."""

DUPLICATES = pa.schema(
    [
        _column("table", pa.string()),
        _column("unit", pa.int32()),
        _column("row", pa.int32()),
        _column("page_id", pa.int64()),
        _column("title", pa.string()),
        _column("kept_page_id", pa.int64()),
        _column("reason", pa.string()),
    ]
)
"""Pages that lose against another of the same title or id: `row` of unit `unit` of the stage `articles`' table."""

SHARDS = pa.schema(
    [
        _column("wiki", pa.string()),
        _column("page_id", pa.int64()),
        _optional("revision_id", pa.int64()),
        _column("title", pa.string()),
        _optional("qid", pa.string()),
        _column("flags", _list_of(pa.string())),
        _column("input_ids", _list_of(pa.int32())),
        _column("entity_start_positions", _list_of(pa.int32())),
        _column("entity_end_positions", _list_of(pa.int32())),
        _column("alternative_entity_input_ids", _list_of(_list_of(pa.int32()))),
        _column("entity_qids", _list_of(pa.string(), nullable=True)),
        _column("entity_ordinals", _list_of(pa.int32())),
        _column("entity_kinds", _list_of(_CATEGORY)),
        _column("entity_blocks", _list_of(_CATEGORY)),
        _column("entity_edges", _list_of(_CATEGORY)),
        _column("entity_name_languages", _list_of(_CATEGORY)),
        _column("entity_name_sources", _list_of(_CATEGORY)),
    ]
)

TABLES = {
    "sitelinks": SITELINKS,
    "facts": FACTS,
    "langlinks": LANGLINKS,
    "articles": ARTICLES,
    "redirects": REDIRECTS,
    "entities": ENTITIES,
    "held-out": HELD_OUT_NAMES,
    "duplicates": DUPLICATES,
    "train": SHARDS,
}


def check_version(found: str, where: str) -> None:
    """Refuse a build of another schema.

    Raises: UsageError, with both versions.
    """
    major, minor = (int(part) for part in SCHEMA_VERSION.split("."))
    parts = found.split(".") if isinstance(found, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"{where}: schema version {found!r} is not of the form 'major.minor'; build it again")
    if int(parts[0]) != major or int(parts[1]) > minor:
        raise UsageError(
            f"{where}: built with schema {found}, this version reads {major}.0 to {SCHEMA_VERSION}; "
            "build it again with this version, or read it with the version that built it"
        )
