"""manifest: what a stage promises comes back from its bytes, and every file is checked against it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.manifest import (
    MANIFEST_NAME,
    Manifest,
    StageFile,
    check_file,
    manifest_bytes,
    parse_manifest,
    read_manifest,
)
from leia_beam.schema import SCHEMA_VERSION
from leia_beam.sealed_json import seal
from tests.conftest import OTHER_HOST

CONTENT = b"content of a file"
FILE = StageFile(
    path="data/train-00000-of-00002-01234567.parquet",
    table="train",
    unit=0,
    rows=3,
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
MANIFEST = Manifest(
    stage="shards",
    fingerprint="0123",
    schema_version=SCHEMA_VERSION,
    versions={"leia-lm": "0.1.0"},
    inputs=({"name": "jawiki.xml.bz2", "size_bytes": 5},),
    options={"wiki": "jawiki", "align": "edge"},
    files=(
        FILE,
        replace(FILE, path="rejects/x.jsonl", table="rejects", rows=2),
        replace(FILE, path="data/y", unit=1, rows=4),
    ),
    counters={"articles/read": 7},
    reject_samples=({"reason": "東京", "place": [1, 2]},),
    warnings=("padding",),
    details={"tokenizer": {"name": "x"}},
)


def test_a_manifest_comes_back_from_its_bytes():
    """Every field; the bytes are the same again."""
    content = manifest_bytes(MANIFEST)
    assert parse_manifest(content, "x") == MANIFEST
    assert manifest_bytes(parse_manifest(content, "x")) == content
    assert content.endswith(b"\n") and "東京".encode() in content


def test_the_order_of_keys_is_no_part_of_the_bytes():
    """Two builds are compared as bytes."""
    other = replace(MANIFEST, options={"align": "edge", "wiki": "jawiki"})
    assert manifest_bytes(other) == manifest_bytes(MANIFEST)


def test_the_files_of_a_table_are_found_in_order():
    """And their rows are summed."""
    assert [file.path for file in MANIFEST.files_of("train")] == [FILE.path, "data/y"]
    assert (MANIFEST.rows_of("train"), MANIFEST.rows_of("rejects"), MANIFEST.rows_of("nothing")) == (7, 2, 0)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "data/../../x", "..", "", ".", "a\\b", "..\\x", "a\0b", "//x", "data/.."]
)
def test_a_file_outside_the_folder_is_refused(path):
    """A manifest that was tampered with cannot lead a reader elsewhere."""
    with pytest.raises(UsageError, match=r"^manifest names a file outside its folder: .*; do not use this build$"):
        replace(FILE, path=path)
    content = json.loads(manifest_bytes(MANIFEST))
    content["files"][0]["path"] = path
    with pytest.raises(UsageError, match="outside its folder"):
        parse_manifest(sealed(content), "x")


@pytest.mark.parametrize("path", ["data/x", "x", "a..b/c", ".x", "data/東京"])
def test_an_ordinary_path_is_taken(path):
    """Dots within a name are no way out."""
    assert replace(FILE, path=path).path == path


def changed(**changes):
    content = json.loads(manifest_bytes(MANIFEST))
    content.update(changes)
    return sealed({key: value for key, value in content.items() if value is not ...})


def sealed(content):
    content.pop("~sha256", None)
    return seal(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"format": "other"}',
        changed(format="other"),
        changed(files=...),
        changed(files=[{"path": "x"}]),
        changed(files=[{**json.loads(manifest_bytes(MANIFEST))["files"][0], "more": 1}]),
        changed(files=5),
        changed(counters=...),
        manifest_bytes(MANIFEST)[:200],
    ],
)
def test_what_is_no_manifest_is_damage(content):
    """Cut short, another file, missing or unknown fields: one line that names it."""
    with pytest.raises(DamagedInput, match=r"^here/_manifest\.json: not a manifest of a stage \("):
        parse_manifest(content, "here/_manifest.json")


def test_every_bit_of_a_manifest_counts():
    """A flipped one is damage, another version, or another place: never another manifest."""
    content = manifest_bytes(MANIFEST)
    for at in range(len(content)):
        for bit in (0, 3, 7):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises((DamagedInput, UsageError)):
                parse_manifest(bytes(flipped), "x")


def test_a_manifest_of_another_schema_is_refused_with_both_versions():
    """Exit code 2: the build is whole, this program is not for it."""
    with pytest.raises(
        UsageError, match=rf"^x: built with schema 99\.0, this version reads .* to {re.escape(SCHEMA_VERSION)}"
    ):
        parse_manifest(changed(schema_version="99.0"), "x")


def test_an_unfinished_stage_has_no_manifest(tmp_path):
    """The message says what to do."""
    message = rf"{MANIFEST_NAME}: no such file; the stage is not finished \(run the same build command again\)$"
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_is_read_from_its_folder(tmp_path):
    """By its fixed name."""
    (tmp_path / MANIFEST_NAME).write_bytes(manifest_bytes(MANIFEST))
    assert read_manifest(tmp_path) == read_manifest(str(tmp_path)) == MANIFEST


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing, but the manifest lists it; copy the build again or run the build again"),
        (CONTENT[:-1], "16 bytes, the manifest says 17; build it again, with --overwrite"),
        (CONTENT + b"x", "18 bytes, the manifest says 17; build it again, with --overwrite"),
        (b"", "0 bytes, the manifest says 17; build it again, with --overwrite"),
        (
            b"C" + CONTENT[1:],
            "SHA-256 mismatch, [0-9a-f]{12}… instead of [0-9a-f]{12}…; build it again, with --overwrite",
        ),
    ],
)
def test_a_file_that_is_not_as_recorded_is_damage(tmp_path, content, message):
    """Missing, truncated, longer, one bit: the path and both values."""
    path = tmp_path / FILE.path
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedInput, match=f"^{re.escape(str(path))}: {message}$"):
        check_file(tmp_path, FILE)


def test_a_file_as_recorded_gives_its_path(tmp_path):
    """After size and sum were found equal."""
    path = tmp_path / FILE.path
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert check_file(str(tmp_path), FILE) == path


def test_a_manifest_holds_nothing_of_where_or_when(tmp_path, other_host, in_named_folder):
    """No path, host or time of this run is in the bytes."""
    text = manifest_bytes(MANIFEST).decode()
    assert not any(word in text for word in ("folder-of-the-test", OTHER_HOST, str(tmp_path), "time"))


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    """A folder that was tampered with cannot lead a reader elsewhere; a link within it may stay."""
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    folder = tmp_path / "stage"
    (folder / FILE.path).parent.mkdir(parents=True)
    (folder / FILE.path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link to a file outside of its folder"):
        check_file(folder, FILE)
    (folder / "inside").write_bytes(CONTENT)
    (folder / FILE.path).unlink()
    (folder / FILE.path).symlink_to(folder / "inside")
    assert check_file(folder, FILE) == folder / FILE.path
