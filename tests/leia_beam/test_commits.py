"""commits: a unit is done only by a record of this build whose files are there; anything else is not done."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.commits import (
    DONE,
    FAILED,
    CommitRecord,
    conservation_errors,
    read_done_record,
    read_record,
    record_path,
    sum_counters,
    write_record,
)
from leia_beam.manifest import StageFile
from leia_beam.storage import LocalStorage
from leia_beam.stream_checks import StreamCheck
from tests.conftest import OTHER_HOST

STORAGE = LocalStorage()
RECORD = CommitRecord(
    stage="articles",
    fingerprint="f" * 64,
    unit=7,
    unit_count=9,
    status=DONE,
    input={"name": "x.bz2", "size_bytes": 100, "start": 10, "end": 20},
    files=[
        StageFile(path="data/a.parquet", table="articles", unit=7, rows=2, size_bytes=3, sha256="0"),
        StageFile(path="rejects/a.jsonl", table="rejects", unit=7, rows=1, size_bytes=5, sha256="1"),
    ],
    counters={"pages/read": 3, "pages/emitted/article": 2, "pages/rejected/no title": 1},
    start=(80, 0),
    end=(160, 55),
    ends_input=True,
    end_marker=True,
    last_id="page id 12",
    stream_check=StreamCheck(1, 2, None, 0, 0),
    bad_blocks=((5, 9),),
    salvaged="x.bz2: ends early",
    warnings=["padding after the last stream"],
    reject_samples=[{"reason": "no title", "first_bytes": "東京"}],
)


@pytest.fixture
def folder(tmp_path):
    """A stage's folder with the record and its files."""
    for file in RECORD.files:
        STORAGE.write(f"{tmp_path}/{file.path}", b"x" * file.size_bytes)
    write_record(STORAGE, str(tmp_path), RECORD)
    return str(tmp_path)


def test_a_record_comes_back_as_it_was(folder):
    """Places as tuples, files as files; the same bytes on every writing."""
    assert read_record(STORAGE, folder, 7, RECORD.fingerprint) == RECORD
    content = STORAGE.read(record_path(folder, 7))
    write_record(STORAGE, folder, RECORD)
    assert STORAGE.read(record_path(folder, 7)) == content
    assert record_path(folder, 7) == f"{folder}/_done/00007.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"start": None, "end": None},
        {"start": (0, 0), "end": (0, 0)},
        {"files": []},
        {"stream_check": None, "bad_blocks": ()},
    ],
)
def test_a_record_without_records_or_files_comes_back(tmp_path, changes):
    """A unit that owns no record has no places; a place of zeros is a place."""
    record = replace(RECORD, **changes)
    write_record(STORAGE, str(tmp_path), record)
    assert read_record(STORAGE, str(tmp_path), 7, RECORD.fingerprint) == record


def test_a_done_unit_is_found(folder):
    """Its record and both files are there."""
    assert read_done_record(STORAGE, folder, 7, RECORD.fingerprint) == RECORD


@pytest.mark.parametrize(("unit", "fingerprint"), [(7, "e" * 64), (6, "f" * 64), (7, "")])
def test_a_record_of_another_build_or_unit_counts_for_nothing(folder, unit, fingerprint):
    """Another fingerprint, no record, or one that was copied to another unit's name."""
    assert read_record(STORAGE, folder, unit, fingerprint) is None
    assert read_done_record(STORAGE, folder, unit, fingerprint) is None


def test_a_record_under_another_unit_s_name_counts_for_nothing(folder):
    """The number in the record must be that of its name."""
    STORAGE.publish(record_path(folder, 7), record_path(folder, 8))
    assert read_record(STORAGE, folder, 8, RECORD.fingerprint) is None


def test_a_failed_unit_is_not_done(folder):
    """Its record is read, but a rerun tries again."""
    failed = replace(RECORD, status=FAILED, files=[], error="bad block", exit_code=3)
    write_record(STORAGE, folder, failed)
    assert read_record(STORAGE, folder, 7, RECORD.fingerprint) == failed
    assert read_done_record(STORAGE, folder, 7, RECORD.fingerprint) is None


@pytest.mark.parametrize("content", [None, b"", b"xx", b"xxxx"])
@pytest.mark.parametrize("path", ["data/a.parquet", "rejects/a.jsonl"])
def test_a_unit_whose_file_is_missing_or_of_another_size_is_not_done(folder, path, content):
    """Removed, emptied, shortened or grown: the unit is done again."""
    STORAGE.remove(f"{folder}/{path}")
    if content is not None:
        STORAGE.write(f"{folder}/{path}", content)
    assert read_done_record(STORAGE, folder, 7, RECORD.fingerprint) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff", b'{"files": [], "start": null, "end": null}', b'{"files": 3}'],
)
def test_a_damaged_record_counts_for_nothing(folder, content):
    """Cut short by a crash of the machine: the unit is done again."""
    STORAGE.write(record_path(folder, 7), content)
    assert read_record(STORAGE, folder, 7, RECORD.fingerprint) is None


def test_a_record_with_an_unknown_field_counts_for_nothing(folder):
    """Written by a version of another kind."""
    content = json.loads(STORAGE.read(record_path(folder, 7)))
    STORAGE.write(record_path(folder, 7), json.dumps({**content, "more": 1}).encode())
    assert read_record(STORAGE, folder, 7, RECORD.fingerprint) is None


def test_a_record_holds_no_time_host_or_path(folder, other_host, in_named_folder):
    """Two runs write the same record."""
    write_record(STORAGE, folder, RECORD)
    text = STORAGE.read(record_path(folder, 7)).decode()
    assert not any(word in text for word in (folder, "folder-of-the-test", OTHER_HOST, "time", "worker"))


def test_counters_are_summed_and_sorted():
    """Over all units, a count of 0 kept."""
    records = [replace(RECORD, counters=counters) for counters in ({"b": 1, "a": 2}, {"a": 3, "c": 0}, {})]
    assert list(sum_counters(records).items()) == [("a", 5), ("b", 1), ("c", 0)]


@pytest.mark.parametrize(
    ("counters", "errors"),
    [
        ({}, []),
        ({"pages/emitted": 5}, []),
        ({"pages/read": 0}, []),
        ({"pages/read": 3, "pages/emitted": 3}, []),
        (
            {"pages/read": 6, "pages/emitted/a": 1, "pages/emitted/b": 2, "pages/filtered/x": 1, "pages/rejected/y": 2},
            [],
        ),
        ({"a/b/read": 2, "a/b/emitted": 2}, []),
        ({"pages/read": 1, "pages/rejected/no <page> before </page>": 1}, []),
        ({"pages/read": 3}, ["pages: 3 read, but 0 emitted + 0 filtered + 0 rejected"]),
        ({"pages/read": 1, "pages/emitted": 2}, ["pages: 1 read, but 2 emitted + 0 filtered + 0 rejected"]),
        (
            {"pages/read": 1000, "pages/emitted": 1, "pagesx/emitted": 999, "pages/emittedx": 999},
            ["pages: 1,000 read, but 1 emitted + 0 filtered + 0 rejected"],
        ),
        (
            {"a/read": 1, "b/read": 2},
            [
                "a: 1 read, but 0 emitted + 0 filtered + 0 rejected",
                "b: 2 read, but 0 emitted + 0 filtered + 0 rejected",
            ],
        ),
    ],
)
def test_what_was_read_must_come_out_somewhere(counters, errors):
    """Read = emitted + filtered + rejected for each thing that is counted as read."""
    assert conservation_errors(counters) == errors


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(["pages", "lines"]),
            st.sampled_from(["emitted", "filtered", "rejected"]),
            st.sampled_from("xyz"),
        ),
        st.integers(0, 9),
    ),
    st.integers(-1, 1),
)
def test_conservation_is_exactly_the_sum(parts, off_by):
    """Any split over outcomes and reasons passes, and any number off by one does not."""
    counters = {"/".join(key): count for key, count in parts.items()}
    for thing in ("pages", "lines"):
        counters[f"{thing}/read"] = sum(count for key, count in parts.items() if key[0] == thing) + off_by
    assert len(conservation_errors(counters)) == (2 if off_by else 0)
