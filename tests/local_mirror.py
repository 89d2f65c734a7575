"""A mirror of dumps on this machine, made from the bundled sample: `python tests/local_mirror.py DIR` lays it out and serves it.

It has what a real one has: two dates of each wiki, of which the newer is not ready, `dumpstatus.json` and lists of sums; the
content exports in two page ranges; Wikidata as .json.gz and .json.bz2; tables of links between languages. Served on 127.0.0.1
with range requests, ETags and dates. Tests set faults on the server's `faults`.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import importlib.util
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

SAMPLE = Path(__file__).resolve().parent / "data" / "sample"
WIKIS = ("jawiki", "eswiki")
DATE, DASHED_DATE = "20260101", "2026-01-01"
UNREADY_DATE, UNREADY_DASHED_DATE = "20260120", "2026-02-01"
WIKIDATA_FOLDER, WIKIDATA_DATE = "20260105", "20260106"
"""The file's name may have another date than its folder."""
LIMIT_S = 600
"""Of a wait that ends at once but for a fault: a loaded machine is none."""
CONTENT_SET = "other/mediawiki_content_current"
LANGLINKS_TABLE = """DROP TABLE IF EXISTS `langlinks`;
CREATE TABLE `langlinks` (
  `ll_from` int(8) unsigned NOT NULL DEFAULT 0,
  `ll_lang` varbinary(35) NOT NULL DEFAULT '',
  `ll_title` varbinary(255) NOT NULL DEFAULT '',
  PRIMARY KEY (`ll_from`,`ll_lang`)
) ENGINE=InnoDB DEFAULT CHARSET=binary;
"""
_LANGLINKS_HEAD = f"-- MySQL dump 10.19  Distrib 10.3.38-MariaDB, for debian-linux-gnu (x86_64)\n{LANGLINKS_TABLE}"


# ------------------------------------------------------------------------------------------------ its files


def write_mirror(folder: Path) -> Path:
    """Lay the mirror out in a folder."""
    pack = _pack()
    items = (SAMPLE / "wikidata" / "items.txt").read_text(encoding="utf-8")
    entities = pack.parse_entities(items)
    for wiki in WIKIS:
        source = (SAMPLE / wiki / "pages.wiki").read_text(encoding="utf-8")
        siteinfo = json.loads((SAMPLE / wiki / "siteinfo.json").read_text(encoding="utf-8"))
        _write_classic(
            folder, wiki, pack.pack_pages(source, siteinfo), _langlinks(pack.parse_pages(source), entities, wiki)
        )
        _write_content(folder, wiki, _content_parts(pack, source, siteinfo))
    _write_wikidata(folder, bz2.decompress(pack.pack_wikidata(items)))
    return folder


def _pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_pack", SAMPLE / "pack.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("sample_pack", module)
    spec.loader.exec_module(module)
    return module


def _write_classic(folder: Path, wiki: str, pages: bytes, langlinks: bytes) -> None:
    prefix = f"{wiki}-{DATE}"
    files = {
        f"{prefix}-pages-articles-multistream.xml.bz2": pages,
        f"{prefix}-langlinks.sql.gz": langlinks,
    }
    index = {f"{prefix}-pages-articles-multistream-index.txt.bz2": bz2.compress(b"")}
    for name, content in {**files, **index}.items():
        write(folder / wiki / DATE / name, content)
    names = list(files)
    jobs = {
        "articlesmultistreamdump": _job({names[0]: pages, **index}, wiki, DATE),
        "langlinkstable": _job({names[1]: langlinks}, wiki, DATE),
        "metahistorybz2dump": {"status": "waiting", "updated": "", "files": {}},
    }
    write_status(folder, wiki, DATE, jobs)
    for algorithm in ("sha1", "md5"):
        lines = [f"{hashlib.new(algorithm, content).hexdigest()}  {name}\n" for name, content in files.items()]
        write(folder / wiki / DATE / f"{prefix}-{algorithm}sums.txt", "".join(lines).encode())
    unready = {"articlesmultistreamdump": {"status": "in-progress", "updated": "2026-01-20 08:00:00", "files": {}}}
    write_status(folder, wiki, UNREADY_DATE, unready)


def write_status(folder: Path, wiki: str, date: str, jobs: dict[str, Any]) -> None:
    """The dumpstatus.json of a date."""
    write(folder / wiki / date / "dumpstatus.json", json.dumps({"version": "0.8", "jobs": jobs}).encode())


def _job(files: dict[str, bytes], wiki: str, date: str) -> dict[str, Any]:
    described = {
        name: {
            "size": len(content),
            "url": f"/{wiki}/{date}/{name}",
            "md5": hashlib.md5(content).hexdigest(),
            "sha1": hashlib.sha1(content).hexdigest(),
        }
        for name, content in files.items()
    }
    return {"status": "done", "updated": f"{DASHED_DATE} 12:00:00", "files": described}


def _write_content(folder: Path, wiki: str, parts: Sequence[tuple[int, int, bytes]]) -> None:
    base = folder / CONTENT_SET / wiki / DASHED_DATE / "xml" / "bzip2"
    files = {f"{wiki}-{DASHED_DATE}-p{first}p{last}.xml.bz2": content for first, last, content in parts}
    for name, content in files.items():
        write(base / name, content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    write(base / "SHA256SUMS", "".join(lines).encode())
    unready = folder / CONTENT_SET / wiki / UNREADY_DASHED_DATE / "xml" / "bzip2"
    write(unready / f"{wiki}-{UNREADY_DASHED_DATE}-p1p9.xml.bz2", parts[0][2])


def _content_parts(pack: ModuleType, source: str, siteinfo: dict[str, Any]) -> list[tuple[int, int, bytes]]:
    """(first page id, last, content): two documents, each whole by itself."""
    pages = pack.parse_pages(source)
    half = len(pages) // 2
    return [
        (
            part[0].page_id,
            part[-1].page_id,
            bz2.compress(
                (pack.header_xml(siteinfo) + "".join(map(pack.page_xml, part)) + "</mediawiki>\n").encode("utf-8")
            ),
        )
        for part in (pages[:half], pages[half:])
    ]


def _langlinks(pages: Sequence[Any], entities: Sequence[Any], wiki: str) -> bytes:
    """The table of links between languages that the items' sitelinks come to."""
    ids = {page.title: page.page_id for page in pages}
    rows = sorted(
        (ids[title], site.removesuffix("wiki").replace("_", "-"), other)
        for entity in entities
        if (title := entity.sitelinks.get(wiki, ("",))[0]) in ids
        for site, (other, _) in entity.sitelinks.items()
        if site.endswith("wiki") and site != wiki
    )
    values = ",".join(f"({page_id},'{language}',{_quoted(other)})" for page_id, language, other in rows)
    text = f"{_LANGLINKS_HEAD}INSERT INTO `langlinks` VALUES {values};\n-- Dump completed on 2026-01-01  1:02:03\n"
    return gzip.compress(text.encode("utf-8"), mtime=0)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _write_wikidata(folder: Path, lines: bytes) -> None:
    base = folder / "wikidatawiki" / "entities" / WIKIDATA_FOLDER
    files = {
        f"wikidata-{WIKIDATA_DATE}-all.json.gz": gzip.compress(lines, mtime=0),
        f"wikidata-{WIKIDATA_DATE}-all.json.bz2": bz2.compress(lines),
    }
    for name, content in files.items():
        write(base / name, content)
    for algorithm in ("sha1", "md5"):
        text = "".join(f"{hashlib.new(algorithm, content).hexdigest()}  {name}\n" for name, content in files.items())
        write(base / f"wikidata-{WIKIDATA_DATE}-{algorithm}sums.txt", text.encode())
    newer = folder / "wikidatawiki" / "entities" / "20260112"
    write(newer / "wikidata-20260112-all.json.gz", b"not listed yet: still being made")


def write(path: Path, content: bytes) -> None:
    """A file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# ----------------------------------------------------------------------------------------------- its server


@dataclass
class Answer:
    """What a fault makes of an answer: another status, headers, body, or an end after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    slow_s: float = 0.0
    """After each piece of the body."""
    piece_bytes: int = 1 << 16
    first_bytes: int | None = None
    """Of the first piece, if it is another size."""


Fault = Callable[["Request"], "Answer | None"]
"""What a server does with a request; None: what it does anyway."""


@dataclass(frozen=True)
class Request:
    """A request, and how many for the same path came before it."""

    method: str
    path: str
    headers: dict[str, str]
    before: int


class MirrorServer(ThreadingHTTPServer):
    """Serves a folder. `log` has each request; `sent` the bytes of each path's bodies; `faults` are asked in their order.

    What is counted is counted before the client can know of it: `sent` before the bytes go, and an answer is over for
    `open_now` before its last bytes go. `answering` are the answers that are at work, also for clients that went away.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder = folder
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.sent: dict[str, int] = {}
        self.open_now = self.most_open = self.answering = 0
        self.accepts_ranges = True
        self.weak_tags = False
        self.scheme = "http"
        self.mutex = threading.Lock()
        self.idle = threading.Condition(self.mutex)

    @property
    def address(self) -> str:
        """Its base address."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def use_tls(self, certificate: Path, key: Path) -> None:
        """Speak HTTPS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    def requests_of(self, name: str, method: str = "GET") -> list[Request]:
        """The requests for files of a name."""
        return [request for request in self.log if request.method == method and request.path.endswith(name)]

    def bytes_of(self, name: str) -> int:
        """How many bytes of bodies were sent for files of a name."""
        return sum(count for path, count in self.sent.items() if path.endswith(name))

    def forget(self) -> None:
        """Count bytes from nothing, once no answer is at work: it may send to a client that went away."""
        with self.idle:
            assert self.idle.wait_for(lambda: self.answering == 0, timeout=LIMIT_S), "an answer that does not end"
            self.sent.clear()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MirrorServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        server = self.server
        with server.mutex:
            before = sum(1 for each in server.log if (each.method, each.path) == (self.command, path))
            request = Request(self.command, path, dict(self.headers.items()), before)
            server.log.append(request)
            server.answering += 1
            server.open_now += 1
            server.most_open = max(server.most_open, server.open_now)
        self._is_open = True
        try:
            answer = next((found for fault in server.faults if (found := fault(request)) is not None), None)
            self._send(path, answer)
        finally:
            self._over()
            with server.idle:
                server.answering -= 1
                server.idle.notify_all()

    def _over(self) -> None:
        """The answer is no longer open: nothing of it is left but bytes that are being sent."""
        with self.server.mutex:
            self.server.open_now -= self._is_open
            self._is_open = False

    def _send(self, path: str, answer: Answer | None) -> None:
        status, headers, body = self._usual(path)
        if answer is not None:
            if answer.status != 200 or answer.body is not None:
                status, headers, body = answer.status, {}, answer.body or b""
            headers = {**headers, **answer.headers}
        answer = answer or Answer()
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        whole = len(body)
        body = body if answer.cut_after is None else body[: answer.cut_after]
        if self.command == "HEAD" or not body:
            self._over()
        self.end_headers()
        if self.command == "HEAD":
            return
        start, end = 0, answer.first_bytes or answer.piece_bytes
        while start < len(body):
            piece = body[start:end]
            with self.server.mutex:
                self.server.sent[path] = self.server.sent.get(path, 0) + len(piece)
            if end >= len(body):
                self._over()
            self.wfile.write(piece)
            if answer.slow_s:
                time.sleep(answer.slow_s)
            start, end = end, end + answer.piece_bytes
        if len(body) < whole:
            self.close_connection = True

    def _usual(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the folder's file, or of a folder's list."""
        place = (self.server.folder / path.lstrip("/")).resolve()
        if not place.is_relative_to(self.server.folder.resolve()) or not place.exists():
            return 404, {"Content-Type": "text/html"}, b"<html>404 Not Found</html>"
        if place.is_dir():
            links = "".join(
                f'<a href="{each.name}{"/" if each.is_dir() else ""}">{each.name}</a>\n'
                for each in sorted(place.iterdir())
            )
            return 200, {"Content-Type": "text/html"}, f'<html><a href="../">../</a>\n{links}</html>'.encode()
        body = place.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        modified = formatdate(place.stat().st_mtime, usegmt=True)
        headers = {
            "Content-Type": "application/octet-stream",
            "ETag": f"W/{tag}" if self.server.weak_tags else tag,
            "Last-Modified": modified,
        }
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not self.server.accepts_ranges:
            return 200, headers, body
        if self.headers.get("If-Range", tag) not in (tag, modified):
            return 200, headers, body
        start = int(match.group(1))
        if start >= len(body):
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return 206, headers, body[start:]


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[MirrorServer]:
    """A server of a folder, in a thread."""
    server = MirrorServer(folder, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: lay the mirror out, serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A mirror of dumps on this machine, from the bundled sample.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to lay it out in, made if missing")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: any free one)")
    parser.add_argument("--no-serve", action="store_true", help="lay it out alone")
    options = parser.parse_args(arguments)
    write_mirror(options.folder)
    if options.no_serve:
        return
    with serving(options.folder, options.port) as server:
        print(server.address, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
