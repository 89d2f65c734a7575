"""dump_lock: what a folder of dumps holds, read back whole or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leia_beam.dump_lock import (
    LOCK_NAME,
    DumpLock,
    LockedFile,
    fetched_paths,
    iso_date,
    lock_bytes,
    parse_lock,
    read_lock,
    with_origin,
    write_lock,
)
from leia_beam.dumps import find_dump, provenance
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.sums import stated_sum


def _file(name: str = "jawiki-20260101-pages-articles.xml", **changed: Any) -> LockedFile:
    values: dict[str, Any] = {
        "kind": "pages",
        "wiki": "jawiki",
        "date": "2026-01-01",
        "layout": "classic",
        "area": "dumps",
        "path": f"jawiki/20260101/{name}",
        "url": f"https://x/{name}",
        "size_bytes": 3,
        "size_is_listed": True,
        "sums": {"sha1": "a" * 40},
        "sha256": "b" * 64,
        "done": True,
    }
    return LockedFile(**{**values, **changed})


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """All fields; one that a later version adds is passed over; nothing else is left in the folder."""
    lock = DumpLock((_file(), _file("b.bz2", done=False, etag='"x"', size_bytes=None, sha256="")))
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    content = json.loads(lock_bytes(lock))
    content["files"][0]["later"] = 1
    assert parse_lock(json.dumps(content).encode(), "x") == lock
    assert read_lock(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "jawiki/../../x"},
        {"path": "a/.hidden"},
        {"path": "a/b\x00c"},
        {"kind": "else"},
        {"date": "20260101"},
        {"sums": {"sha1": "a" * 39}},
        {"sums": {"crc": "a" * 8}},
        {"sha256": "G" * 64},
    ],
)
def test_what_fetch_never_wrote_is_refused(changed: dict[str, Any]) -> None:
    """A lock may come from elsewhere: names stay in the folder, sums are sums."""
    content = json.loads(lock_bytes(DumpLock((_file(),))))
    content["files"][0] |= changed
    if changed.get("path") == "jawiki/../../x":
        assert parse_lock(json.dumps(content).encode(), "x").files[0].name == "x"  # only the base name is used
        return
    with pytest.raises(DamagedInput, match="here: not a lock that leia-beam fetch wrote"):
        parse_lock(json.dumps(content).encode(), "here")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": "leia-dumps-lock", "version": 9, "files": []}'])
def test_what_is_no_lock_is_refused(content: bytes) -> None:
    """Or one of a later form."""
    with pytest.raises(DamagedInput):
        parse_lock(content, "here")


def test_parts_stand_in_the_order_of_their_numbers() -> None:
    """2 before 10, so that a build reads pages in the order of their ids; new files take the place of their kind's."""
    names = [f"jawiki-20260101-pages{n}.xml-p{n}p{n}.bz2" for n in (10, 2, 1)]
    lock = DumpLock((_file("old.bz2"), _file("es.bz2", wiki="eswiki"))).with_files([_file(name) for name in names])
    assert [file.name for file in lock.of("pages", "jawiki")] == names[::-1]
    assert [file.name for file in lock.of("pages", "eswiki")] == ["es.bz2"]


def test_whole_files_stay_until_the_last_of_those_in_their_place_is_done(tmp_path: Path) -> None:
    """A newer dump waits under `pending`, in the file on disk too; what is not whole, or is written over, is replaced at once."""
    new = [_file(f"new-{n}.bz2", date="2026-02-01", done=False, sha256="") for n in (1, 2)]
    before = DumpLock((_file("old.bz2"), _file("es.bz2", wiki="eswiki")))
    lock = before.with_files(new)
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock and fetched_paths(str(tmp_path), "pages", "jawiki") == [f"{tmp_path}/old.bz2"]
    assert lock.pending == tuple(new) and lock.files == before.with_files(before.files).files
    lock = lock.with_file(replace(new[0], done=True, sha256="b" * 64))
    assert lock.of("pages", "jawiki") == [_file("old.bz2")] and lock.named("new-1.bz2") == lock.pending[0]
    assert lock.with_files(before.of("pages", "jawiki")) == lock  # the old ones are fetched again: what came stays
    assert lock.with_files([_file("newest.bz2", done=False)]).pending == (_file("newest.bz2", done=False),)
    lock = lock.with_file(replace(new[1], done=True, sha256="b" * 64))
    assert [file.name for file in lock.of("pages", "jawiki")] == ["new-1.bz2", "new-2.bz2"] and lock.pending == ()
    assert [file.name for file in lock.of("pages", "eswiki")] == ["es.bz2"]
    half = DumpLock((_file("old.bz2"), _file("old-2.bz2", done=False)))
    assert half.with_files(new) == DumpLock(tuple(new))
    again = _file("old.bz2", done=False, sums={"sha1": "c" * 40})
    assert before.with_files([again, *new]).of("pages", "jawiki") == [*new, again]


def test_a_build_takes_whole_dumps_alone(tmp_path: Path) -> None:
    """The paths of a kind; else what is missing, and the command that brings it."""
    write_lock(tmp_path, DumpLock((_file("a.bz2"), _file("b.bz2"))))
    assert fetched_paths(str(tmp_path), "pages", "jawiki") == [str(tmp_path / "a.bz2"), str(tmp_path / "b.bz2")]
    write_lock(tmp_path, DumpLock((_file("a.bz2"), _file("b.bz2", done=False))))
    with pytest.raises(UsageError, match=r"b.bz2 is not whole yet \(1 of 2 files are missing\)"):
        fetched_paths(str(tmp_path), "pages", "jawiki")
    with pytest.raises(UsageError, match="no wikidata of wikidatawiki were fetched, pages of jawiki is there"):
        fetched_paths(str(tmp_path), "wikidata", "wikidatawiki")
    with pytest.raises(UsageError, match="run leia-beam fetch --output"):
        fetched_paths(str(tmp_path / "no"), "pages", "jawiki")


def test_a_dump_knows_where_it_came_from(tmp_path: Path) -> None:
    """Date and sums, no address; its size must be that of then; its sum counts as listed."""
    path = tmp_path / "jawiki-20260101-pages-articles.xml"
    path.write_bytes(b"<m>")
    plain = find_dump(str(path))
    assert with_origin(plain) is plain and provenance([plain]) == {}
    write_lock(tmp_path, DumpLock((_file(),)))
    known = with_origin(find_dump(str(path)))
    noted = {"date": "2026-01-01", "layout": "classic", "sha1": "a" * 40, "sha256": "b" * 64}
    assert provenance([known]) == {"fetched": {path.name: noted}}
    assert known == plain  # the same dump: nothing is built again for it
    assert stated_sum(known) == f"sha256:{'b' * 64}"
    write_lock(tmp_path, DumpLock((_file(done=False),)))
    assert with_origin(plain) is plain
    write_lock(tmp_path, DumpLock((replace(_file(), size_bytes=4),)))
    with pytest.raises(DamagedInput, match=r"3 bytes, but 4 when it was fetched"):
        with_origin(plain)


@pytest.mark.parametrize("text", ["", "latest", "2026-1-1", "20260230", "2026-0101", "99999999"])
def test_no_date_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(UsageError, match="give one such as 20260101"):
        iso_date(text)
