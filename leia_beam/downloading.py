"""From one file of a lock to that file on disk: gone on with where it stopped, summed while it comes, renamed when it is whole.

What came stands in NAME.part. It is gone on with by a range request, under the condition that the server's file is still the
same (If-Range with the ETag or the date of the first answer), else it begins again. When all is there its strongest listed
sum must be right; a wrong one is downloaded once more, and then refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import requests

from leia_beam.dump_lock import LockedFile
from leia_beam.errors import DamagedInput, MissingResource
from leia_beam.http_requests import Head, Http, pieces

PART_SUFFIX = ".part"
_READ_BYTES = 8 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Watcher:
    """Who is told of a download.

    `note` keeps a file's state (in the lock), `came` is told of bytes: fewer than none where some were thrown away.
    """

    note: Callable[[LockedFile], None]
    came: Callable[[int], None]
    warn: Callable[[str], None]


def present_bytes(folder: Path, file: LockedFile) -> int:
    """How much of a file is on disk, as far as its name and size tell."""
    path = folder / file.name
    if file.done and path.is_file() and path.stat().st_size == file.size_bytes:
        return path.stat().st_size
    part = _part(folder, file)
    return part.stat().st_size if part.is_file() and _condition(file) else 0


def is_there(folder: Path, file: LockedFile) -> bool:
    """Whether a file was fetched, and has its size still."""
    path = folder / file.name
    return file.done and path.is_file() and path.stat().st_size == file.size_bytes


def download(http: Http, folder: Path, file: LockedFile, watcher: Watcher) -> LockedFile:
    """Bring one file to its place; what the lock then says of it.

    Raises: DamagedInput for what is no dump or has another sum than the listed; MissingResource where the network or the disk
    fails; NotFound; UsageError for a refusal; Stopped.
    """
    return _Download(http, folder, file, watcher).run()


class _Download:
    """One file, over as many answers of the server as it takes."""

    def __init__(self, http: Http, folder: Path, file: LockedFile, watcher: Watcher):
        self._http, self._folder, self._file, self._watcher = http, folder, file, watcher
        self._part = _part(folder, file)
        self._digests = _Digests(file)

    def run(self) -> LockedFile:
        algorithm, listed = self._digests.listed
        if self._is_there_unnoted():
            return self._note_done(self._digests.hex()["sha256"])
        for again in (False, True):
            self._bring_part()
            found = self._digests.hex()
            if found[algorithm] == listed:
                return self._put_in_place(found)
            self._throw_away()
            message = f"{self._file.name}: {algorithm.upper()} is {found[algorithm]}, the list of sums says {listed}"
            if not again:
                self._watcher.warn(f"{message}; downloading it once more")
        raise DamagedInput(f"{message}, after two downloads from {self._file.url}; try later, or another --mirror")

    def _is_there_unnoted(self) -> bool:
        """Whether the whole file is in its place: the lock was lost, or the end came between the renaming and the note."""
        path = self._folder / self._file.name
        if not path.is_file() or self._file.listed_bytes not in (None, path.stat().st_size):
            return False
        self._digests.forget()
        with _disk(path):
            self._digests.read(path, path.stat().st_size)
        algorithm, listed = self._digests.listed
        return self._digests.hex()[algorithm] == listed

    def _put_in_place(self, found: dict[str, str]) -> LockedFile:
        path = self._folder / self._file.name
        with _disk(path):
            with self._part.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(self._part, path)
            _sync_folder(self._folder)
        return self._note_done(found["sha256"])

    def _note_done(self, sha256: str) -> LockedFile:
        """All came and has the sum that is listed, so its size is known too."""
        return self._note(size_bytes=self._digests.size, size_is_listed=True, sha256=sha256, done=True)

    def _note(self, **changed: Any) -> LockedFile:
        self._file = replace(self._file, **changed)
        self._watcher.note(self._file)
        return self._file

    def _throw_away(self) -> None:
        """Begin again."""
        if self._part.is_file():
            self._watcher.came(-self._part.stat().st_size)
            self._part.unlink()
        self._digests.forget()

    def _bring_part(self) -> None:
        """Download until the part is whole, and summed."""
        if not _condition(self._file) and self._part.is_file():
            size_bytes = self._part.stat().st_size
            self._watcher.warn(
                f"{self._file.name}: beginning again; {size_bytes:,} bytes came from elsewhere, or from a server that does not "
                "say whether its file is still the same"
            )
            self._part.unlink()
        have = self._part.stat().st_size if self._part.is_file() else 0
        self._digests.forget()
        with _disk(self._part):
            self._digests.read(self._part, have)
        attempt = 0
        while self._file.size_bytes is None or self._digests.size != self._file.size_bytes:
            before = self._digests.size
            try:
                self._go_on()
            except ConnectionError as error:
                attempt = 0 if self._digests.size > before else attempt
                self._http.wait_after(self._file.url, attempt, str(error))
                attempt += 1

    def _go_on(self) -> None:
        """One answer of the server, to its end.

        Raises: ConnectionError where it ends early.
        """
        file, have = self._file, self._digests.size
        condition = _condition(file)
        headers = {"Range": f"bytes={have}-", "If-Range": condition} if have and condition else {}
        with self._http.answer(file.url, headers=headers) as (response, head):
            if response.status_code == 416:
                if not headers:
                    raise MissingResource(f"{file.url}: the server refuses the whole file (416); give another --mirror")
                self._throw_away()
                self._note(etag="", last_modified="")
                return
            total = head.size_bytes
            if response.status_code == 206:
                start, total = _content_range(response.headers.get("Content-Range", ""))
                if not headers or start != have:
                    raise MissingResource(
                        f"{file.url}: asked for the bytes from {have:,} on, the server sends those from {start:,}; give "
                        "another --mirror"
                    )
            elif have:
                self._watcher.warn(
                    f"{file.name}: has changed on the server, or it sends no parts of files; beginning again"
                )
                self._throw_away()
            _check_head(file, head, total)
            self._note(
                size_bytes=file.listed_bytes if total is None else total,
                etag=head.etag,
                last_modified=head.last_modified,
            )
            self._receive(response)
        if self._file.size_bytes is None:
            self._note(size_bytes=self._digests.size)  # the server did not say: the sum will
        elif self._digests.size != self._file.size_bytes:
            raise ConnectionError(f"{self._digests.size:,} of {self._file.size_bytes:,} bytes came")

    def _receive(self, response: requests.Response) -> None:
        """The body, to the end of the part."""
        with _disk(self._part), self._part.open("ab" if self._digests.size else "wb", buffering=0) as stream:
            for piece in pieces(response):
                if self._digests.size == 0:
                    _check_start(self._file, piece)
                _write(stream, piece)
                self._digests.update(piece)
                self._watcher.came(len(piece))


class _Digests:
    """The sums of what came so far."""

    def __init__(self, file: LockedFile):
        strongest = file.strongest_sum
        if strongest is None:
            raise MissingResource(
                f"{file.name}: no list of sums on {file.sums_from or 'the server'} has it, so nobody could tell whether it "
                "came whole; try again later, or another --date"
            )
        self.listed = strongest
        self._names = {"sha256", strongest[0]}
        self.forget()

    def forget(self) -> None:
        """Begin again."""
        self._hashes = {name: hashlib.new(name) for name in self._names}
        self.size = 0

    def update(self, piece: bytes) -> None:
        for each in self._hashes.values():
            each.update(piece)
        self.size += len(piece)

    def read(self, path: Path, size: int) -> None:
        """Sum what an earlier run left."""
        if size:
            with path.open("rb") as stream:
                while piece := stream.read(_READ_BYTES):
                    self.update(piece)

    def hex(self) -> dict[str, str]:
        return {name: each.hexdigest() for name, each in self._hashes.items()}


def _part(folder: Path, file: LockedFile) -> Path:
    return folder / f"{file.name}{PART_SUFFIX}"


def _condition(file: LockedFile) -> str:
    """What tells that the server's file is still the same; a weak ETag cannot (RFC 9110)."""
    return file.etag if file.etag and not file.etag.startswith("W/") else file.last_modified


def _content_range(value: str) -> tuple[int, int | None]:
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return -1, None
    return int(match.group(1)), None if match.group(2) == "*" else int(match.group(2))


def _check_head(file: LockedFile, head: Head, total: int | None) -> None:
    """Raises: DamagedInput where a server answers with something else than the file."""
    if head.content_type in ("text/html", "application/xhtml+xml"):
        raise DamagedInput(
            f"{file.url}: a web page came in place of {file.name} ({head.content_type}): a proxy, a login, or the mirror's "
            "own error page; look at the address in a browser, or give another --mirror"
        )
    if file.listed_bytes is not None and total is not None and total != file.listed_bytes:
        raise DamagedInput(
            f"{file.url}: has {total:,} bytes, {file.listed_bytes:,} are listed; the mirror is not up to date, or the file "
            "was replaced: give another --mirror, or --update"
        )


def _check_start(file: LockedFile, piece: bytes) -> None:
    if piece.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith((b"<html", b"<!doctype html")):
        raise DamagedInput(
            f"{file.url}: a web page came in place of {file.name}, it starts with {piece[:20]!r}: a proxy, a login, or the "
            "mirror's own error page; look at the address in a browser, or give another --mirror"
        )


def _write(stream: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[stream.write(view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line.

    Raises: MissingResource.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        what = "the disk is full" if error.errno in _FULL else f"cannot be written ({error.strerror or error})"
        raise MissingResource(
            f"{path}: {what}; mend that, and the same command goes on where it stopped, or give another --output"
        ) from error
