"""From a dump's path to the records of any byte range of it, whatever its compression.

The format is told by content, not by name. A .bz2 file is cut at its blocks (bz2_blocks), an uncompressed one by bytes;
a .gz file cannot be cut and is one range, read by isal (889 MB/s a core where bzip2 gives 40). The rule is the same for
each: a record belongs to the range that owns the delimiter before it, and the first record to the range at byte 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isal import igzip, isal_zlib

from leia_beam.bz2_blocks import read_records
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.ranges import KEPT_BYTES_OF_OVERSIZED, Place, RangeReport, Record, split_points

BZ2, GZIP, PLAIN = "bz2", "gzip", "plain"
CHUNK_BYTES = 1 << 20

_UNREAD_FORMATS = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """A dump file as it was when the build began. `format` is bz2, gzip or plain."""

    path: str
    format: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The base name, which is all of the path that a manifest holds."""
        return Path(self.path).name


def find_dump(path: str) -> Dump:
    """The dump at a path.

    Raises: UsageError if there is no such file; DamagedInput if it is empty or of a format that is not read.
    """
    file_path = Path(path)
    if not file_path.is_file():
        kind = "is a folder" if file_path.is_dir() else "no such file"
        raise UsageError(f"{path}: {kind}; give a dump file")
    size_bytes = file_path.stat().st_size
    with file_path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DamagedInput(f"{path}: empty file (0 bytes); download it again")
    for magic, name in _UNREAD_FORMATS.items():
        if head.startswith(magic):
            raise DamagedInput(f"{path}: {name} data is not read; give .bz2, .gz or an uncompressed dump")
    if head.startswith(b"BZh"):
        format_ = BZ2
    elif head.startswith(b"\x1f\x8b"):
        format_ = GZIP
    elif head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith((b"<html", b"<!doctype html")):
        raise DamagedInput(f"{path}: an HTML page, perhaps an error page of the server; download it again")
    elif path.endswith((".bz2", ".gz")):
        raise DamagedInput(
            f"{path}: not {path.rpartition('.')[2]} data, it starts with {head[:16]!r}; download it again"
        )
    else:
        format_ = PLAIN
    return Dump(path=path, format=format_, size_bytes=size_bytes)


def byte_ranges(dump: Dump, range_bytes: int) -> list[tuple[int, int]]:
    """The ranges [start, end) into which a dump is cut: each of at most `range_bytes`, or one where it cannot be cut."""
    return [(0, dump.size_bytes)] if dump.format == GZIP else split_points(dump.size_bytes, range_bytes)


def read_range(
    dump: Dump, start: int, end: int, delimiter: bytes, report: RangeReport, max_record_bytes: int
) -> Iterator[Record]:
    """The records that a range owns, without their delimiter. `report` is final when the iterator is exhausted.

    Raises: DamagedInput where the dump is damaged, ends early, or has changed since the build began.
    """
    if Path(dump.path).stat().st_size != dump.size_bytes:
        raise DamagedInput(
            f"{dump.path}: {Path(dump.path).stat().st_size:,} bytes, but {dump.size_bytes:,} when the build began; "
            "wait until its download is complete"
        )
    with open(dump.path, "rb") as file:
        if dump.format == BZ2:
            yield from read_records(
                file,
                dump.path,
                start,
                end,
                delimiter,
                report,
                chunk_bytes=CHUNK_BYTES,
                max_record_bytes=max_record_bytes,
            )
        elif dump.format == GZIP:
            yield from _records(_gzip_reader(file, dump), 0, None, delimiter, report, max_record_bytes)
        else:
            file.seek(start)
            yield from _records(file.read, start, end, delimiter, report, max_record_bytes)
    report.compressed_bytes = report.compressed_bytes or end - start


def _gzip_reader(file: BinaryIO, dump: Dump) -> Callable[[int], bytes]:
    stream = igzip.IGzipFile(fileobj=file)

    def read(size: int) -> bytes:
        try:
            return stream.read(size)
        except (EOFError, OSError, isal_zlib.error) as error:
            raise DamagedInput(
                f"{dump.path}: gzip stream damaged or ends early near byte {file.tell():,} of {dump.size_bytes:,} "
                f"({error}); download it again"
            ) from error

    return read


class _Stream:
    """A window over a stream of bytes: the bytes from `begin` on are kept, more are read on demand."""

    def __init__(self, read: Callable[[int], bytes], start: int):
        self._read = read
        self._data = b""
        self._base = start
        self.at_end = False

    @property
    def end(self) -> int:
        return self._base + len(self._data)

    def read_more(self, begin: int) -> None:
        """One chunk more; what lies before byte `begin` is let go."""
        chunk = self._read(CHUNK_BYTES)
        self.at_end = not chunk
        self._data = self._data[begin - self._base :] + chunk
        self._base = begin

    def find(self, delimiter: bytes, begin: int) -> int:
        at = self._data.find(delimiter, begin - self._base)
        return at if at < 0 else at + self._base

    def bytes_between(self, begin: int, end: int) -> bytes:
        return self._data[begin - self._base : end - self._base]


def _records(
    read: Callable[[int], bytes],
    start: int,
    end: int | None,
    delimiter: bytes,
    report: RangeReport,
    max_record_bytes: int,
) -> Iterator[Record]:
    """Records of a stream that `read` gives from byte `start` on; `end` None: to the end of the stream."""
    stream = _Stream(read, start)
    record_start = 0 if start == 0 else None  # of the open record; None before the first delimiter of the range
    head = b""  # the first bytes of an open record that is too large to keep
    scan_from = kept_from = start
    if record_start is not None:
        report.start = report.end = Place(0, record_start)
    while True:
        at = stream.find(delimiter, scan_from)
        if at < 0:
            if stream.at_end:
                break
            scan_from = max(scan_from, stream.end - len(delimiter) + 1)
            if record_start is None:
                if end is not None and scan_from >= end:
                    return
                kept_from = scan_from
            elif scan_from - record_start > max_record_bytes:
                head = head or stream.bytes_between(record_start, record_start + KEPT_BYTES_OF_OVERSIZED)
                kept_from = scan_from
            stream.read_more(kept_from)
            continue
        next_start = at + len(delimiter)
        if record_start is not None:
            yield _record(stream, record_start, at, head, max_record_bytes)
            report.end = Place(0, next_start)
        if end is not None and at >= end:
            return
        record_start = scan_from = kept_from = next_start
        head = b""
        report.start = report.start or Place(0, record_start)
        report.end = Place(0, record_start)
    if record_start is not None:
        report.ends_file = True
        report.end = Place(0, stream.end)
        if stream.end > record_start:
            yield _record(stream, record_start, stream.end, head, max_record_bytes)


def _record(stream: _Stream, begin: int, end: int, head: bytes, max_record_bytes: int) -> Record:
    size_bytes = end - begin
    kept_end = end if size_bytes <= max_record_bytes else min(end, begin + KEPT_BYTES_OF_OVERSIZED)
    return Record(Place(0, begin), head or stream.bytes_between(begin, kept_end), size_bytes)
