"""leia-beam fetch against a real HTTP server on this machine: what it finds, what each fault makes of it, what a kill costs."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from leia_beam import downloading, fetching
from leia_beam.cli import main
from leia_beam.console import Console
from leia_beam.dump_lock import DumpLock, LockedFile, fetched_paths, read_lock, write_lock
from leia_beam.dump_mirrors import mirror_at
from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_beam.fetching import FetchPlan, Source, Wanted, _as_it_is_now, fetch, plan_fetch
from leia_beam.http_requests import Http
from leia_beam.manifest import read_manifest
from tests.conftest import Sample
from tests.local_mirror import (
    DATE,
    LIMIT_S,
    Answer,
    Fault,
    MirrorServer,
    Request,
    serving,
    write,
    write_mirror,
    write_status,
)

PAGES = f"jawiki-{DATE}-pages-articles-multistream.xml.bz2"
WIKIDATA = "wikidata-20260106-all.json.gz"
BIG = f"swwiki-{DATE}-pages-articles-multistream.xml.bz2"
BIG_BYTES = 3_000_000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def mirror_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's mirror, and a wiki with one dump of some megabytes."""
    folder = write_mirror(tmp_path_factory.mktemp("mirror"))
    content = b"BZh9" + b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(BIG_BYTES // 32))
    content = content[:BIG_BYTES]
    write(folder / "swwiki" / DATE / BIG, content)
    _write_big_status(folder, content)
    return folder


def _write_big_status(folder: Path, content: bytes, **changed: object) -> None:
    facts = {"size": len(content), "sha1": hashlib.sha1(content).hexdigest(), **changed}
    jobs = {"articlesmultistreamdump": {"status": "done", "updated": "", "files": {BIG: facts}}}
    write_status(folder, "swwiki", DATE, jobs)


@pytest.fixture
def server(mirror_folder: Path) -> Iterator[MirrorServer]:
    with serving(mirror_folder) as made:
        yield made


def _arguments(server: MirrorServer, folder: Path, *more: str, wiki: str = "ja") -> list[str]:
    return ["fetch", "--wiki", wiki, "--output", str(folder), "--mirror", server.address, *more]


def _big(server: MirrorServer, folder: Path, *more: str) -> list[str]:
    return _arguments(server, folder, "--fetch-only", "pages", *more, wiki="sw")


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "leia-beam: error: " in line]
    assert len(lines) == 1, lines
    return lines[0].removeprefix("leia-beam: error: ")


def _fetch_quickly(server: MirrorServer, folder: Path, wiki: str = "swwiki", **options: object) -> DumpLock:
    """By the functions behind the command, without waits."""
    source = Source(mirror=mirror_at(server.address), backoff_s=0.0, **options)  # type: ignore[arg-type]
    console = Console("test")
    plan = plan_fetch(Wanted(wiki=wiki, kinds=("pages",)), source, folder, console)
    return fetch(plan, source, folder, console)


def _at(name: str, answer: Answer, *, times: int = 1, method: str = "GET") -> Fault:
    """An answer to the first requests for a file."""

    def fault(request: Request) -> Answer | None:
        is_it = request.method == method and request.path.endswith(name)
        return answer if is_it and request.before < times else None

    return fault


def _same(folder: Path, mirror_folder: Path, name: str) -> bool:
    (there,) = mirror_folder.rglob(name)
    return (folder / name).read_bytes() == there.read_bytes()


# -------------------------------------------------------------------------------------------- what is fetched


def test_a_wiki_and_wikidata_are_fetched_pinned_and_built(
    sample: Sample, server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest date that is ready, Wikidata's .gz nearest to it; the build names neither file and notes both."""
    dumps = tmp_path / "dumps"
    assert main(_arguments(server, dumps)) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split()[:3] == ["pages", "2026-01-01", PAGES]
    assert f"{PAGES}, 39.1 kB, SHA1 as listed" in shown.err
    assert sorted(path.name for path in dumps.iterdir()) == [".fetch.lock", "dumps.lock.json", PAGES, WIKIDATA]
    assert _same(dumps, mirror_folder, PAGES) and _same(dumps, mirror_folder, WIKIDATA)
    lock = read_lock(dumps)
    assert lock is not None and all(file.done for file in lock.files)
    assert [(file.kind, file.date) for file in lock.files] == [("pages", "2026-01-01"), ("wikidata", "2026-01-05")]
    output = tmp_path / "build"
    build = ["build", "--wiki", "ja", "--dumps", str(dumps), "--tokenizer", sample.tokenizer, "--output", str(output)]
    assert main([*build, "--verify-inputs"]) == 0
    manifest = read_manifest(output / "articles")
    content = (dumps / PAGES).read_bytes()
    assert manifest.details["fetched"] == {
        PAGES: {
            "date": "2026-01-01",
            "layout": "classic",
            "md5": hashlib.md5(content).hexdigest(),
            "sha1": hashlib.sha1(content).hexdigest(),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    }
    assert manifest.details["verified_sums"] == {PAGES: f"sha256:{hashlib.sha256(content).hexdigest()}"}
    assert server.address not in (output / "articles" / "_manifest.json").read_text()
    assert list(read_manifest(output / "sitelinks").details["fetched"]) == [WIKIDATA]


def test_content_exports_and_tables_of_links_build_as_well(
    sample: Sample, server: MirrorServer, tmp_path: Path
) -> None:
    """Several page ranges as one wiki's pages; names from the wiki's own table; the same rows as from the classic dump."""
    rows = {}
    for layout in ("classic", "content"):
        dumps, output = tmp_path / layout, tmp_path / f"build-{layout}"
        names = ("--sitelinks-from", "langlinks")
        assert main(_arguments(server, dumps, "--layout", layout, *names, "--quiet", wiki="es")) == 0
        build = ["build", "--wiki", "es", "--dumps", str(dumps), *names, "--output", str(output), "--quiet"]
        assert main([*build, "--tokenizer", sample.tokenizer]) == 0
        manifest = read_manifest(output / "shards")
        rows[layout] = (manifest.rows_of("train"), manifest.counters["anchors/emitted"])
        pages = sorted(path.name for path in dumps.glob("*.xml.bz2"))
        assert len(pages) == {"classic": 1, "content": 2}[layout]
    assert rows["classic"] == rows["content"] and rows["classic"][0] > 10


def test_the_same_command_asks_for_nothing_that_is_there(server: MirrorServer, tmp_path: Path) -> None:
    """Not even for the lists, since the dates are pinned; another wiki shares the folder and Wikidata's dump."""
    assert main(_arguments(server, tmp_path, "--quiet")) == 0
    server.log.clear()
    assert main(_arguments(server, tmp_path, "--quiet")) == 0
    assert server.log == []
    assert main(_arguments(server, tmp_path, "--quiet", wiki="es")) == 0
    assert server.requests_of("all.json.gz") == []
    lock = read_lock(tmp_path)
    assert lock is not None
    assert [(file.kind, file.wiki) for file in lock.files] == [
        ("pages", "eswiki"),
        ("pages", "jawiki"),
        ("wikidata", "wikidatawiki"),
    ]


def test_a_dry_run_lists_and_writes_nothing(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files with their sizes; no folder is made."""
    dumps = tmp_path / "dumps"
    assert main(_arguments(server, dumps, "--dry-run", "--wikidata-format", "bz2")) == 0
    out = capsys.readouterr().out
    assert PAGES in out and "wikidata-20260106-all.json.bz2" in out and "to come: 5" in out
    assert not dumps.exists() and server.bytes_of(".bz2") == 0


def test_who_asks_is_told(server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Project and contact in every request; what is no address is refused."""
    assert main(_big(server, tmp_path, "--contact", "me@example.org", "--quiet")) == 0
    agents = {request.headers["User-Agent"] for request in server.log}
    assert len(agents) == 1 and agents.pop().endswith("(LEIA corpus builder; contact: me@example.org)")
    for wrong in ("me", "a@b\nX-Evil: 1"):
        assert main(_big(server, tmp_path, "--contact", wrong)) == 2
        assert "give an e-mail address" in _error(capsys)


def test_at_most_two_connections_are_open(server: MirrorServer, tmp_path: Path) -> None:
    """For any number of files; and the option allows no more."""

    def slow_and_two_at_a_time(request: Request) -> Answer:
        if request.method == "GET" and request.path.endswith((".bz2", ".gz")) and not second.is_set():
            if server.most_open < 2:
                second.wait(LIMIT_S)
            second.set()
        return Answer(slow_s=0.05, piece_bytes=5000)

    second = threading.Event()
    server.faults.append(slow_and_two_at_a_time)
    assert main(_arguments(server, tmp_path, "--layout", "content", "--quiet")) == 0
    assert server.most_open == 2
    assert main(_arguments(server, tmp_path, "--connections", "3")) == 2


# ------------------------------------------------------------------------------------------------- the faults


def test_a_cut_connection_is_gone_on_with(server: MirrorServer, mirror_folder: Path, tmp_path: Path) -> None:
    """Every byte is sent once: the rest is asked for as a range of the same file."""
    server.faults += [_at(BIG, Answer(cut_after=700_000)), _at(BIG, Answer(cut_after=100_000), times=2)]
    lock = _fetch_quickly(server, tmp_path)
    assert lock.files[0].done and _same(tmp_path, mirror_folder, BIG)
    assert server.bytes_of(BIG) == BIG_BYTES
    ranges = [request.headers.get("Range") for request in server.requests_of(BIG)]
    assert ranges == [None, "bytes=700000-", "bytes=800000-"]
    assert all(request.headers["If-Range"].startswith('"') for request in server.requests_of(BIG)[1:])


def test_a_server_that_never_sends_anything_more_is_given_up(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After six tries without a byte between them: exit 5, what came is kept."""
    server.faults += [_at(BIG, Answer(cut_after=700_000)), _at(BIG, Answer(cut_after=0), times=99)]
    with pytest.raises(MissingResource, match="6 times in a row; look at the network, then run the same command again"):
        _fetch_quickly(server, tmp_path)
    assert (tmp_path / f"{BIG}.part").stat().st_size == 700_000 and not (tmp_path / BIG).exists()
    server.faults.clear()
    _fetch_quickly(server, tmp_path)
    assert server.bytes_of(BIG) == BIG_BYTES


@pytest.mark.parametrize("weak", [False, True])
def test_a_file_that_changed_between_two_tries_begins_again(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], weak: bool
) -> None:
    """By its ETag, or its date where the ETag is weak: never a mixture of two files."""
    server.weak_tags = weak
    path = mirror_folder / "swwiki" / DATE / BIG
    whole = path.read_bytes()
    other = bytes(reversed(whole))
    try:
        path.write_bytes(b"BZh9" + other[4:])
        os.utime(path, (1e9, 1e9))
        server.faults.append(_at(BIG, Answer(cut_after=700_000)))
        server.faults.append(lambda request: _put_back(path, whole, request) if request.path.endswith(BIG) else None)
        _fetch_quickly(server, tmp_path)
        assert (tmp_path / BIG).read_bytes() == whole
        assert "has changed on the server" in capsys.readouterr().err
        wanted = formatdate(1e9, usegmt=True) if weak else '"'
        assert server.requests_of(BIG)[1].headers["If-Range"].startswith(wanted)
    finally:
        path.write_bytes(whole)


def _put_back(path: Path, content: bytes, request: Request) -> None:
    if request.method == "GET" and request.before == 1:
        path.write_bytes(content)


def test_a_server_without_ranges_begins_again(server: MirrorServer, mirror_folder: Path, tmp_path: Path) -> None:
    """It costs the bytes that came, and the file is right."""
    server.accepts_ranges = False
    server.faults.append(_at(BIG, Answer(cut_after=700_000)))
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG) and server.bytes_of(BIG) == BIG_BYTES + 700_000


def test_a_part_of_nobody_knows_what_is_not_gone_on_with(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path
) -> None:
    """A .part without a note of its file's ETag, and one longer than the file."""
    (tmp_path / f"{BIG}.part").write_bytes(b"something else")
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)
    (tmp_path / BIG).rename(tmp_path / f"{BIG}.part")
    with (tmp_path / f"{BIG}.part").open("ab") as stream:
        stream.write(b"more")
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)


def test_bytes_that_came_wrong_come_once_more(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bit flipped on the way: said, thrown away, fetched again."""
    wrong = bytearray((mirror_folder / "swwiki" / DATE / BIG).read_bytes())
    wrong[1_000_000] ^= 1
    server.faults.append(_at(BIG, Answer(body=bytes(wrong))))
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)
    assert "SHA1 is " in capsys.readouterr().err


def test_a_wrong_sum_is_refused_and_nothing_is_left_under_the_name(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I11: exit 3 with both sums, after two downloads; a build of the folder is refused too."""
    content = (mirror_folder / "swwiki" / DATE / BIG).read_bytes()
    _write_big_status(mirror_folder, content, sha1="0" * 40)
    try:
        assert main(_big(server, tmp_path)) == 3
    finally:
        _write_big_status(mirror_folder, content)
    line = _error(capsys)
    assert f"{BIG}: SHA1 is {hashlib.sha1(content).hexdigest()}, the list of sums says {'0' * 40}" in line
    assert server.bytes_of(BIG) == 2 * BIG_BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fetch.lock", "dumps.lock.json"]
    build = ["build", "--wiki", "sw", "--dumps", str(tmp_path), "--tokenizer", "x", "--output", str(tmp_path / "out")]
    assert main(build) == 2
    assert f"{BIG} is not whole yet (1 of 1 files are missing)" in _error(capsys)


def test_a_date_that_is_not_ready_lists_those_that_are(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I11, I14: in-progress is said; a date that never was too; so is a wiki without any."""
    assert main(_arguments(server, tmp_path, "--date", "20260120", "--layout", "classic")) == 2
    assert "its articles are not ready (in-progress); dates that are there: 20260101" in _error(capsys)
    assert main(_arguments(server, tmp_path, "--date", "2025-12-01", "--layout", "classic")) == 2
    assert "there is no such dump; dates that are there: 20260120, 20260101" in _error(capsys)
    assert main(_arguments(server, tmp_path, "--date", "2026-02-01", "--layout", "content")) == 2
    assert "is not complete (no SHA256SUMS); dates that are there: 20260101" in _error(capsys)
    assert main(_arguments(server, tmp_path, "--wikidata-date", "20260112")) == 2
    assert "is not complete; dates that are there: 20260112, 20260105" in _error(capsys)
    assert main(_arguments(server, tmp_path, wiki="de")) == 2
    assert "no dump of dewiki is complete" in _error(capsys)
    assert main(_arguments(server, tmp_path, "--date", "yesterday")) == 2
    assert "'yesterday' is no date" in _error(capsys)
    assert not list(tmp_path.iterdir())


def test_a_busy_server_is_waited_for_as_it_asks(
    server: MirrorServer,
    mirror_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """I14: 503 and 429 with Retry-After in seconds and as a date, for lists and for files."""
    waits: list[float] = []
    monkeypatch.setattr(Http, "sleep", lambda self, seconds: waits.append(seconds))
    in_ten_minutes = formatdate(time.time() + 600, usegmt=True)
    server.faults += [
        _at("dumpstatus.json", Answer(status=503, headers={"Retry-After": "17"})),
        _at(BIG, Answer(status=429, headers={"Retry-After": in_ten_minutes})),
    ]
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)
    assert len(waits) == 2 and waits[0] == 17 and 0 < waits[1] <= 600
    said = capsys.readouterr().err
    assert "is busy (503); waiting 17 s, as it asks" in said and "is busy (429); waiting " in said


def test_a_wait_of_nothing_is_a_second(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server that says 0 would be asked without end."""
    waits: list[float] = []
    monkeypatch.setattr(Http, "sleep", lambda self, seconds: waits.append(seconds))
    past = formatdate(time.time() - 600, usegmt=True)
    server.faults += [
        _at(BIG, Answer(status=429, headers={"Retry-After": "0"}), times=2),
        _at("dumpstatus.json", Answer(status=503, headers={"Retry-After": past})),
    ]
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG) and waits == [1.0, 1.0, 1.0]


def test_what_another_fetch_put_into_the_lock_meanwhile_stays(tmp_path: Path) -> None:
    """Planned before it ended: its wiki stays, and a dump that both want is not taken again."""

    def entry(kind: str, wiki: str, name: str, done: bool = False) -> LockedFile:
        places = {"area": "dumps", "path": f"20260101/{name}", "url": f"http://127.0.0.1/{name}"}
        return LockedFile(kind=kind, wiki=wiki, date="2026-01-01", layout="classic", **places, done=done)

    shared = entry("wikidata", "wikidatawiki", "w.json.gz")
    mine, other = entry("pages", "eswiki", "es.xml.bz2"), entry("pages", "jawiki", "ja.xml.bz2", done=True)
    plan = FetchPlan(files=(mine, shared), lock=DumpLock().with_files([mine, shared]))
    write_lock(tmp_path, DumpLock().with_files([other, replace(shared, done=True)]))
    now = _as_it_is_now(plan, tmp_path)
    assert [(file.name, file.done) for file in now.files] == [("es.xml.bz2", False), ("w.json.gz", True)]
    assert {(file.name, file.done) for file in now.lock.files} == {
        ("ja.xml.bz2", True),
        ("es.xml.bz2", False),
        ("w.json.gz", True),
    }


def test_a_whole_file_that_the_lock_does_not_know_is_summed_not_fetched(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path
) -> None:
    """The lock was lost, or the end came before its note; a file that is another one is replaced."""
    _fetch_quickly(server, tmp_path)
    (tmp_path / "dumps.lock.json").unlink()
    before = len([request for request in server.log if request.method == "GET" and request.path.endswith(BIG)])
    lock = _fetch_quickly(server, tmp_path)
    asked = [request for request in server.log if request.method == "GET" and request.path.endswith(BIG)]
    assert len(asked) == before == 1 and all(file.done for file in lock.files)
    (tmp_path / "dumps.lock.json").unlink()
    (tmp_path / BIG).write_bytes(bytes(BIG_BYTES))
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)


def test_the_other_form_of_wikidata_is_not_taken_for_the_one_that_is_asked_for(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 6; without a word on the form, what is there will do."""
    assert main(_arguments(server, tmp_path, "--wikidata-format", "bz2")) == 0
    assert main(_arguments(server, tmp_path)) == 0
    capsys.readouterr()
    assert main(_arguments(server, tmp_path, "--wikidata-format", "gz")) == 6
    assert ".json.bz2" in (line := _error(capsys)) and "not the .gz" in line


def test_a_server_that_asks_for_too_long_a_wait_is_left(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is the user's; what came is kept."""
    server.faults.append(_at(BIG, Answer(status=429, headers={"Retry-After": "7200"}), times=9))
    assert main(_big(server, tmp_path, "--max-wait", "60")) == 5
    assert "busy (429), and asks to wait 7,200 s; run the same command again then" in _error(capsys)


def test_a_server_in_trouble_is_asked_again(server: MirrorServer, mirror_folder: Path, tmp_path: Path) -> None:
    """500, 502 and 503 without a word on when to come again."""
    server.faults += [
        _at(BIG, Answer(status=500)),
        _at(BIG, Answer(status=502), times=2),
        _at(BIG, Answer(status=503), times=3),
    ]
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)


def test_a_refusal_names_the_setting(server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I14: 403 for a User-Agent without a contact."""
    server.faults.append(lambda request: Answer(status=403) if "not given" in request.headers["User-Agent"] else None)
    assert main(_big(server, tmp_path)) == 2
    assert "refused (403)" in (line := _error(capsys)) and "give --contact with your e-mail address" in line
    assert main(_big(server, tmp_path, "--contact", "https://example.org/me")) == 0


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html; charset=utf-8", b"Please log in"),
        ("application/x-bzip2", b"<!DOCTYPE html><html>log in</html>"),
        ("", b"\n <HTML>blocked"),
    ],
)
def test_a_web_page_in_place_of_a_dump_is_not_kept(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, page: bytes
) -> None:
    """A proxy's page, by its type or by its first bytes; for a list of files too."""
    server.faults.append(
        _at(BIG, Answer(body=page + b" " * (BIG_BYTES - len(page)), headers={"Content-Type": kind}), times=9)
    )
    assert main(_big(server, tmp_path)) == 3
    assert f"a web page came in place of {BIG}" in _error(capsys)
    assert not list(tmp_path.glob("*.bz2"))
    server.faults[:] = [_at("dumpstatus.json", Answer(body=page, headers={"Content-Type": kind}), times=9)]
    assert main(_big(server, tmp_path / "other")) == 3
    assert "not a dump's status, it starts with " in _error(capsys)


def test_a_mirror_that_lacks_the_file_or_has_another(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """404 names other mirrors and --update; another size is a mirror that is not up to date."""
    server.faults.append(_at(BIG, Answer(status=404), method="HEAD"))
    assert main(_big(server, tmp_path)) == 2
    assert "not there (404)" in (line := _error(capsys)) and "--mirror (wikimedia, accum, your.org)" in line
    server.faults[:] = [_at(BIG, Answer(body=b"BZh9short"))]
    assert main(_big(server, tmp_path)) == 3
    assert f"has 9 bytes, {BIG_BYTES:,} are listed" in _error(capsys)


@pytest.mark.parametrize("length", ["12", "99999999"])
def test_a_size_that_the_server_alone_says_is_not_believed(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: str
) -> None:
    """Lists of sums have no sizes: a wrong one in the answer to HEAD is shown as the server's, and the sum decides."""
    lie = Answer(headers={"Content-Length": length})
    server.faults.append(_at("-all.json.gz", lie, method="HEAD", times=9))
    wanted = [*_arguments(server, tmp_path / "dumps", "--fetch-only", "wikidata")]
    assert main([*wanted, "--dry-run"]) == 0
    assert "size as the server says" in capsys.readouterr().out
    assert main(wanted) == 0
    assert _same(tmp_path / "dumps", mirror_folder, WIKIDATA)
    lock = read_lock(tmp_path / "dumps")
    assert lock is not None and lock.files[0].size_bytes == (tmp_path / "dumps" / WIKIDATA).stat().st_size
    (tmp_path / "dumps" / "dumps.lock.json").unlink()
    server.forget()
    assert main(wanted) == 0 and server.bytes_of(WIKIDATA) == 0, "the whole file is known by its sum"


def test_a_server_that_knows_no_head(server: MirrorServer, mirror_folder: Path, tmp_path: Path) -> None:
    """Some object stores behind a mirror's name: the file's answer is begun and left."""
    server.faults.append(_at(BIG, Answer(status=405), method="HEAD", times=9))
    _fetch_quickly(server, tmp_path)
    assert _same(tmp_path, mirror_folder, BIG)


def test_a_reader_of_the_list_that_has_gone_ends_no_fetch(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path
) -> None:
    """`leia-beam fetch … | head -1`."""
    command = [sys.executable, "-m", "leia_beam", *_big(server, tmp_path, "--quiet")]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
    assert _same(tmp_path, mirror_folder, BIG)


def test_a_file_that_goes_away_while_it_is_pinned(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock has its date; the server has removed it: what to do is said."""
    server.faults.append(_at(BIG, Answer(status=404), times=9))
    assert main(_big(server, tmp_path)) == 2
    assert "it has gone meanwhile: give another --mirror, or --update for the newest date" in _error(capsys)


def test_a_disk_that_is_too_small_is_found_before(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sizes that are listed: exit 5, no byte is fetched."""
    monkeypatch.setattr(fetching, "free_bytes", lambda folder: 2_000_000)
    assert main(_big(server, tmp_path)) == 5
    assert "3.0 MB are to come, 2.0 MB are free there" in _error(capsys)
    assert server.bytes_of(BIG) == 0


def test_a_disk_that_fills_up_keeps_what_came(
    server: MirrorServer,
    mirror_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program takes the space: exit 5 with the file; with space the same command brings the rest alone."""
    written = [0]
    real = downloading._write

    def write_until_full(stream: object, piece: bytes) -> None:
        if written[0] + len(piece) > 1_500_000:
            raise OSError(28, "No space left on device")
        written[0] += len(piece)
        real(stream, piece)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(downloading, "_write", write_until_full)
        assert main(_big(server, tmp_path)) == 5
    assert f"{BIG}.part: the disk is full; mend that, and the same command goes on" in _error(capsys)
    kept = (tmp_path / f"{BIG}.part").stat().st_size
    assert kept == written[0] > 0
    server.forget()
    assert main(_big(server, tmp_path)) == 0
    assert server.bytes_of(BIG) == BIG_BYTES - kept and _same(tmp_path, mirror_folder, BIG)


def test_a_real_full_disk_is_one_line(server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file system of one megabyte, where we may make one."""
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here (not root, or a container without the right)")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetching, "free_bytes", lambda folder: 10**9)
            assert main(_big(server, disk)) == 5
        assert "the disk is full" in _error(capsys)
        assert 0 < (disk / f"{BIG}.part").stat().st_size < 1 << 20
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ------------------------------------------------------------------------------------------- who is believed


def test_sums_come_from_the_primary_host_not_from_a_mirror(mirror_folder: Path, tmp_path: Path) -> None:
    """S6: a mirror that serves other bytes with fitting sums of its own is found out, unless it is trusted."""
    evil = tmp_path / "evil"
    content = b"BZh9 other bytes" * 1000
    write(evil / "swwiki" / DATE / BIG, content)
    _write_big_status(evil, content)
    with serving(mirror_folder) as primary, serving(evil) as mirror:
        source = Source(
            mirror=mirror_at(mirror.address.replace("127.0.0.1", "localhost")), primary=mirror_at(primary.address)
        )
        object.__setattr__(source.mirror, "dumps", (mirror.address,))
        console = Console("test")

        def from_mirror(believed: bool, folder: Path) -> FetchPlan:
            chosen = _NotLocal(mirror=source.mirror, primary=source.primary, believed=believed, backoff_s=0.0)
            plan = plan_fetch(Wanted(wiki="swwiki", kinds=("pages",)), chosen, folder, console)
            fetch(plan, chosen, folder, console)
            return plan

        with pytest.raises(DamagedInput, match="has 16,000 bytes, 3,000,000 are listed"):
            from_mirror(False, tmp_path / "a")
        assert not any(request.path.endswith(".json") for request in mirror.log)
        plan = from_mirror(True, tmp_path / "b")
        assert plan.files[0].sums_from == mirror.address


class _NotLocal(Source):
    """A source whose mirror is taken for one across the network, though it is on this machine."""

    @property
    def lists_from(self):  # type: ignore[no-untyped-def]
        return self.mirror if self.believed else self.primary


def test_a_mirror_across_the_network_is_not_believed_by_itself() -> None:
    """Nor is one by plain HTTP; one on this machine is, and any that the user trusts."""
    primary = "https://dumps.wikimedia.org"
    for address, believed, expected in (
        ("https://mirror.example.org/dumps", False, primary),
        ("http://mirror.example.org", False, primary),
        ("http://mirror.example.org", True, "http://mirror.example.org"),
        ("http://127.0.0.1:8000", False, "http://127.0.0.1:8000"),
        ("http://localhost:8000", False, "http://localhost:8000"),
        (primary, False, primary),
    ):
        source = Source(mirror=mirror_at(address), believed=believed)
        assert source.lists_from.dumps[0] == expected


def test_a_redirect_to_another_host_is_followed_for_files_alone(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S6: a file's sum tells whether it is the right one; a list of sums is believed, so it must come from who was asked."""
    with serving(mirror_folder) as other:
        there = f"{other.address}/swwiki/{DATE}/{BIG}"
        server.faults.append(_at(BIG, Answer(status=302, headers={"Location": there}), times=9))
        assert main(_big(server, tmp_path / "a", "--quiet")) == 0
        assert _same(tmp_path / "a", mirror_folder, BIG) and other.bytes_of(BIG) == BIG_BYTES
        list_there = f"{other.address}/swwiki/{DATE}/dumpstatus.json"
        server.faults[:] = [_at("dumpstatus.json", Answer(status=301, headers={"Location": list_there}), times=9)]
        assert main(_big(server, tmp_path / "b")) == 5
        assert "another host, whose lists of sums are not believed" in _error(capsys)
    server.faults[:] = [_at(BIG, Answer(status=302, headers={"Location": f"/swwiki/{DATE}/{BIG}"}), times=99)]
    with pytest.raises(MissingResource, match="redirects without end"):
        _fetch_quickly(server, tmp_path / "c")
    server.faults[:] = [_at(BIG, Answer(status=302, headers={"Location": "file:///etc/passwd"}), times=99)]
    with pytest.raises(MissingResource, match="redirects to file:///etc/passwd, which is not followed"):
        _fetch_quickly(server, tmp_path / "d")


def test_https_is_checked_and_never_left(mirror_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S6: a certificate that nobody signed is refused; a redirect from https to http is too."""
    certificate, key = _certificate(tmp_path)
    with serving(mirror_folder) as plain:
        server = MirrorServer(mirror_folder)
        server.use_tls(certificate, key)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            with pytest.raises(MissingResource, match="certificate is not accepted"):
                _fetch_quickly(server, tmp_path / "a", believed=True)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
            assert _fetch_quickly(server, tmp_path / "b", believed=True).files[0].done
            there = f"{plain.address}/swwiki/{DATE}/{BIG}"
            server.faults.append(_at(BIG, Answer(status=302, headers={"Location": there}), times=9))
            with pytest.raises(MissingResource, match="redirects from https to http://"):
                _fetch_quickly(server, tmp_path / "c", believed=True)
            assert plain.log == []
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    pytest.importorskip("cryptography")
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mirror")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key_path


# --------------------------------------------------------------------------------------- kills, pins, updates


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_fetch_costs_no_byte_twice(
    server: MirrorServer, mirror_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """By Ctrl-C or SIGTERM: exit 75 and what is kept; by SIGKILL too the same command fetches the rest alone."""
    server.faults.append(
        lambda request: Answer(first_bytes=600_000, piece_bytes=100, slow_s=0.01) if BIG in request.path else None
    )  # which takes minutes
    command = [sys.executable, "-m", "leia_beam", *_big(server, tmp_path)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    part = tmp_path / f"{BIG}.part"
    while not (part.exists() and part.stat().st_size > 500_000):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=LIMIT_S)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75
        last = said.splitlines()[-1]
        assert last.startswith("leia-beam: interrupted; 0 of 1 files are whole, ") and last.endswith(
            f"are kept in {tmp_path}; the same command goes on from there"
        )
        assert "Traceback" not in said
    server.faults.clear()
    kept = part.stat().st_size
    assert 500_000 < kept < BIG_BYTES
    server.forget()
    assert main(_big(server, tmp_path, "--quiet")) == 0
    assert server.bytes_of(BIG) == BIG_BYTES - kept
    assert _same(tmp_path, mirror_folder, BIG)


NEWER = "20260201"
NEWER_CONTENT = b"BZh9 newer" * 100


@pytest.fixture
def newer(mirror_folder: Path) -> Iterator[Callable[[], str]]:
    """Puts a newer dump on the mirror, until the test ends; its name."""

    def put() -> str:
        name = BIG.replace(DATE, NEWER)
        write(mirror_folder / "swwiki" / NEWER / name, NEWER_CONTENT)
        facts = {"size": len(NEWER_CONTENT), "sha1": hashlib.sha1(NEWER_CONTENT).hexdigest()}
        jobs = {"articlesmultistreamdump": {"status": "done", "updated": "", "files": {name: facts}}}
        write_status(mirror_folder, "swwiki", NEWER, jobs)
        return name

    yield put
    shutil.rmtree(mirror_folder / "swwiki" / NEWER, ignore_errors=True)


def test_an_update_that_is_interrupted_leaves_the_old_dump_in_the_lock(
    server: MirrorServer, newer: Callable[[], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build has the old one until the new one is whole; the same command goes on with what came of it."""
    assert main(_big(server, tmp_path, "--quiet")) == 0
    old = read_lock(tmp_path)
    assert old is not None
    name = newer()
    server.faults += [_at(name, Answer(cut_after=700)), _at(name, Answer(status=403), times=99)]
    capsys.readouterr()
    assert main(_big(server, tmp_path, "--update")) != 0
    assert name in _error(capsys) and (tmp_path / f"{name}.part").stat().st_size == 700
    lock = read_lock(tmp_path)
    assert lock is not None and lock.files == old.files and [file.name for file in lock.pending] == [name]
    assert fetched_paths(str(tmp_path), "pages", "swwiki") == [str(tmp_path / BIG)]
    assert main(_big(server, tmp_path)) == 0  # without --update, the old one is what is wanted
    assert f"note: the update to {name} is not whole; --update goes on" in capsys.readouterr().err
    server.faults.clear()
    server.forget()
    assert main(_big(server, tmp_path, "--update")) == 0
    assert server.bytes_of(name) == len(NEWER_CONTENT) - 700
    assert fetched_paths(str(tmp_path), "pages", "swwiki") == [str(tmp_path / name)]
    lock = read_lock(tmp_path)
    assert lock is not None and lock.pending == ()


def test_latest_stays_what_it_was(
    server: MirrorServer,
    newer: Callable[[], str],
    mirror_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A newer dump changes nothing for the same command; --update takes it, a date that is another is refused."""
    assert main(_big(server, tmp_path, "--quiet")) == 0
    name = newer()
    assert main(_big(server, tmp_path, "--quiet")) == 0
    assert not (tmp_path / name).exists()
    capsys.readouterr()
    assert main(_big(server, tmp_path, "--date", NEWER)) == 6
    assert "holds swwiki of 20260101" in (line := _error(capsys)) and "--update to replace it" in line
    server.forget()
    assert main(_big(server, tmp_path, "--update")) == 0
    assert (tmp_path / name).read_bytes() == NEWER_CONTENT
    assert f"{BIG} is of another date and no longer needed" in capsys.readouterr().err
    assert server.bytes_of(BIG) == 0
    shutil.rmtree(mirror_folder / "swwiki" / NEWER)
    assert main(_big(server, tmp_path, "--quiet")) == 0


def test_two_fetches_do_not_write_into_one_folder(
    server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one is told to wait."""
    with fetching._claimed(tmp_path):
        assert main(_big(server, tmp_path)) == 5
    assert "another leia-beam fetch is writing there" in _error(capsys)


def test_a_dump_that_is_no_longer_as_it_was_fetched_is_fetched_again_and_not_built(
    sample: Sample, server: MirrorServer, mirror_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock has its size: a file that was cut is found by a build, and the same fetch brings it back."""
    assert main(_arguments(server, tmp_path, "--quiet")) == 0
    os.truncate(tmp_path / PAGES, 1000)
    build = ["build", "--wiki", "ja", "--dumps", str(tmp_path), "--tokenizer", sample.tokenizer]
    assert main([*build, "--output", str(tmp_path / "out")]) == 3
    assert "1,000 bytes, but 39,145 when it was fetched (dumps.lock.json)" in _error(capsys)
    assert main(_arguments(server, tmp_path, "--quiet")) == 0
    assert _same(tmp_path, mirror_folder, PAGES)
    (tmp_path / "dumps.lock.json").write_text('{"format": "leia-dumps-lock", "version": 1, "files": [{}]}')
    assert main(_arguments(server, tmp_path)) == 3
    assert "not a lock that leia-beam fetch wrote" in _error(capsys)


def test_a_build_without_dumps_says_how_to_get_them(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither --pages nor --dumps; a folder that was not fetched; one that has another wiki's."""
    build = ["build", "--wiki", "ja", "--tokenizer", sample.tokenizer, "--output", str(tmp_path / "out")]
    assert main(build) == 2
    assert "--pages (or --dumps, a folder that fetch filled)" in _error(capsys)
    assert main([*build, "--dumps", str(tmp_path)]) == 2
    assert "run leia-beam fetch --output" in _error(capsys)


def test_an_address_that_nobody_answers_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port, and what is no address."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and listens not, so that nobody else does
        source = Source(mirror=mirror_at(f"http://127.0.0.1:{nobody.getsockname()[1]}"), backoff_s=0.0)
        with pytest.raises(MissingResource, match=r"no answer \(.*refused.*\), 6 times in a row"):
            plan_fetch(Wanted(wiki="jawiki", kinds=("pages",)), source, tmp_path, Console("test", quiet=True))
    with pytest.raises(UsageError, match=r"--mirror wikimedai: neither an address .*; did you mean 'wikimedia'\?"):
        mirror_at("wikimedai")


def test_progress_says_how_far_all_files_are(server: MirrorServer, tmp_path: Path) -> None:
    """One line for all, of all bytes, in JSON for collectors."""
    code = (
        "import sys, leia_beam.console as c; c.LINE_EVERY_S = 0; c.Console.__init__.__kwdefaults__['line_every_s'] = 0\n"
        "from leia_beam.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    server.faults.append(lambda request: Answer(slow_s=0.02, piece_bytes=200_000) if BIG in request.path else None)
    command = [sys.executable, "-c", code, *_big(server, tmp_path, "--log-json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_PROXY": "127.0.0.1"})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    progress = [line for line in lines if line["event"] == "progress"]
    assert len(progress) > 5 and progress[-1]["done"] == progress[-1]["total"] == BIG_BYTES
    assert all(line["stage"] == "fetch" and BIG in line["message"] for line in progress)
    assert any(line["left_s"] for line in progress)


def test_a_recipe_fetches_and_builds_with_two_commands(
    sample: Sample, server: MirrorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the recipe says where the dumps go and are taken from; fetch's own options stand in `corpus` too."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"variables: {{language: es}}\nfolder: {tmp_path}/work/${{language}}\n"
        f"corpus:\n  wiki: ${{language}}\n  mirror: {server.address}\n  date: 2026-01-01\n  layout: content\n"
        f"  tokenizer: {sample.tokenizer}\n"
    )
    build = ["build", "-c", str(recipe)]
    assert main(build) == 2
    assert "no dumps.lock.json there; run leia-beam fetch" in _error(capsys)
    assert main(["fetch", "-c", str(recipe), "--quiet"]) == 0
    assert main([*build, "--quiet"]) == 0
    assert read_manifest(tmp_path / "work/es/corpus/shards").rows_of("train") > 10
    capsys.readouterr()
    assert main([*build, "--print-config"]) == 0
    assert f"dumps: {tmp_path}/work/es/dumps  # derived from folder" in capsys.readouterr().out
    # a folder that several languages share, for Wikidata's sake
    shared = ("--set", f"corpus.dumps={tmp_path}/dumps")
    for language in ("es", "ja"):
        assert main(["fetch", "-c", str(recipe), *shared, "--set", f"language={language}", "--quiet"]) == 0
    assert main([*build, *shared, "--set", "language=ja", "--quiet"]) == 0
    assert len(server.requests_of("all.json.gz")) == 2
