"""schema: the columns are those of the formats' table, and another version is refused with both numbers."""

from __future__ import annotations

import re

import pytest

from leia_beam.errors import UsageError
from leia_beam.schema import ARTICLES, ENTITIES, REDIRECTS, SCHEMA_VERSION, SHARDS, SITELINKS, TABLES, check_version

MAJOR, MINOR = (int(part) for part in SCHEMA_VERSION.split("."))


def test_the_columns_are_what_readers_were_promised():
    """Names and which may be null; a change here is a change of the schema's version."""
    found = {name: [field.name + "?" * field.nullable for field in schema] for name, schema in TABLES.items()}
    assert found == {
        "sitelinks": ["qid", "sitelinks", "labels"],
        "facts": ["qid", "claims", "aliases"],
        "langlinks": ["page_id", "language", "title"],
        "articles": ["wiki", "page_id", "revision_id?", "title", "text", "text_hash", "anchors", "flags"],
        "redirects": ["wiki", "page_id", "from", "to", "fragment?", "to_interwiki?"],
        "entities": ["title", "page_id?", "resolved_title?", "qid?", "name?", "name_language?", "reason?"],
        "held-out": ["title", "qid?", "name", "name_language", "name_source", "aliases"],
        "duplicates": ["table", "unit", "row", "page_id", "title", "kept_page_id", "reason"],
        "train": [
            "wiki",
            "page_id",
            "revision_id?",
            "title",
            "qid?",
            "flags",
            "input_ids",
            "entity_start_positions",
            "entity_end_positions",
            "alternative_entity_input_ids",
            "entity_qids",
            "entity_ordinals",
            "entity_kinds",
            "entity_blocks",
            "entity_edges",
            "entity_name_languages",
            "entity_name_sources",
        ],
    }
    assert [TABLES[name] for name in ("sitelinks", "articles", "redirects", "entities", "train")] == [
        SITELINKS,
        ARTICLES,
        REDIRECTS,
        ENTITIES,
        SHARDS,
    ]


@pytest.mark.parametrize("found", [f"{MAJOR}.{minor}" for minor in range(MINOR + 1)])
def test_this_version_and_those_before_it_are_read(found):
    """The same major version, every minor one up to this."""
    check_version(found, "x")


@pytest.mark.parametrize("found", [f"{MAJOR}.{MINOR + 1}", f"{MAJOR + 1}.0", f"{MAJOR - 1}.0", f"{MAJOR}.99"])
def test_another_version_is_refused_with_both(found):
    """What built it, what this reads, what to do."""
    message = f"^shards: built with schema {re.escape(found)}, this version reads {MAJOR}.0 to {MAJOR}.{MINOR}; build it again"
    with pytest.raises(UsageError, match=message):
        check_version(found, "shards")


@pytest.mark.parametrize("found", ["", "1", "1.0.0", "a.b", "-1.0", "1.", None, 1.0, "1.²"])
def test_what_is_no_version_is_refused(found):
    """A damaged version is one line, no traceback."""
    with pytest.raises(UsageError, match=r"^x: schema version .* is not of the form 'major\.minor'; build it again$"):
        check_version(found, "x")
