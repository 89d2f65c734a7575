"""lookup: every title that was put in is found with its own row, none else is, and the parts never change."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.lookup import (
    EntityLookup,
    EntityRow,
    bucket_of,
    build_trie,
    open_lookup,
    open_trie,
    read_arrow,
    write_arrow,
    write_lookup_rows,
)
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, manifest_bytes
from leia_beam.schema import SCHEMA_VERSION


def row_of(title: str) -> EntityRow:
    """A row that tells whose it is; some have no name."""
    named = len(title) % 3 > 0
    return EntityRow(
        qid=f"Q{len(title)}" if named else None,
        name=f"name of {title}" if named else None,
        name_language="en" if named else None,
        name_source="sitelink" if named else None,
        reason=None if named else "no item",
    )


def write_lookup(folder: Path, titles: list[str], bucket_count: int) -> Path:
    """The files of a finished `entities` stage, made here from titles."""
    (folder / "lookup").mkdir(parents=True)
    files = []
    for bucket in range(bucket_count):
        own = [title for title in titles if bucket_of(title, bucket_count) == bucket]
        trie = build_trie(own)
        ordered = sorted(own, key=lambda title: trie[title])
        trie.save(str(folder / f"lookup/titles-{bucket}.marisa"))
        rows = [row_of(title) for title in ordered]
        statuses = [("en", "sitelink", None), (None, None, "no item")]
        status_of_row = [statuses.index((row.name_language, row.name_source, row.reason)) for row in rows]
        write_lookup_rows(
            str(folder / f"lookup/rows-{bucket}.arrow"),
            [int(row.qid[1:]) if row.qid else 0 for row in rows],
            pa.array([row.name for row in rows], pa.string()),
            statuses,
            np.array(status_of_row, np.uint8),
        )
        for table, name in (("lookup-titles", f"titles-{bucket}.marisa"), ("lookup-rows", f"rows-{bucket}.arrow")):
            files.append(
                StageFile(path=f"lookup/{name}", table=table, unit=bucket, rows=len(own), size_bytes=0, sha256="")
            )
    manifest = Manifest(
        stage="entities",
        fingerprint="f",
        schema_version=SCHEMA_VERSION,
        versions={},
        inputs=(),
        options={},
        files=tuple(files),
        counters={},
    )
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    return folder


@pytest.mark.parametrize("bucket_count", [1, 2, 7, 64])
def test_every_title_is_found_and_none_else(tmp_path, bucket_count):
    """Also prefixes of one another, letters of all scripts, and buckets without any title."""
    titles = ["東京", "東京都", "東", "A", "AB", "ABC", "Ä", "🗼", "a b", "Q1", *(f"Title {n}" for n in range(400))]
    lookup = EntityLookup(str(write_lookup(tmp_path / "entities", titles, bucket_count)))
    assert {title: lookup.find(title) for title in titles} == {title: row_of(title) for title in titles}
    absent = ["", "東京都庁", "a", "AC", "A ", "ABCD", "Title 400", "Title", "Title 1 "]
    assert [lookup.find(title) for title in absent] == [None] * len(absent)
    assert lookup.find("東京") == lookup.find("東京")


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12), max_size=60),
    st.data(),
)
def test_any_set_of_titles_can_be_looked_up(tmp_path_factory, titles, data):
    """Whatever the titles are, each is found with its own row and what is not among them is not."""
    folder = tmp_path_factory.mktemp("lookup") / "entities"
    lookup = EntityLookup(str(write_lookup(folder, sorted(titles), data.draw(st.sampled_from([1, 3])))))
    others = data.draw(st.lists(st.text(max_size=4), max_size=10))
    for title in (*titles, *(other for other in others if other.isprintable())):
        assert lookup.find(title) == (row_of(title) if title in titles else None)


def test_the_numbers_of_a_trie_depend_on_its_titles_alone(tmp_path):
    """Not on their order, so the bytes of a part are the same on every run."""
    titles = [f"title {number}" for number in range(1000)]
    one, other = build_trie(titles), build_trie(reversed(titles))
    one.save(str(tmp_path / "one"))
    other.save(str(tmp_path / "other"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    mapped = open_trie(str(tmp_path / "one"))
    assert sorted(mapped[title] for title in titles) == list(range(1000))


def test_rows_are_mapped_as_they_were_written(tmp_path):
    """With nulls, and with no rows at all."""
    for names in (["a", None, "東"], []):
        content = pa.table({"name": pa.array(names, pa.string()), "number": pa.array(range(len(names)), pa.int64())})
        write_arrow(str(tmp_path / "x.arrow"), content)
        assert read_arrow(str(tmp_path / "x.arrow")).equals(content)


def test_a_title_s_bucket_never_changes():
    """Pinned: other numbers would make every finished table unreadable."""
    titles = ["", "A", "Tokyo", "東京", "Ελλάδα", "🗼", "\ud800"]
    assert [bucket_of(title, 256) for title in titles] == [0, 139, 244, 239, 10, 12, 40]
    assert [bucket_of(title, 1) for title in titles] == [0] * 7


def test_buckets_are_even():
    """No part holds more than twice its share."""
    counts = Counter(bucket_of(f"Title {number}", 64) for number in range(64_000))
    assert len(counts) == 64 and max(counts.values()) < 2_000


def test_a_folder_is_opened_once_a_process(tmp_path):
    """The manifest's sum tells builds of one folder apart."""
    folder = str(write_lookup(tmp_path / "entities", ["A"], 1))
    assert open_lookup(folder, "x") is open_lookup(folder, "x")
    assert open_lookup(folder, "x") is not open_lookup(folder, "y")
