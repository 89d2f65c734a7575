"""From a dump's path to the records of any byte range of it, whatever its compression.

The format is told by content, not by name. A .bz2 file is cut at its blocks (bz2_blocks), an uncompressed one by bytes.
A .gz or .zst file, or text in UTF-16, can only be read from its start: its ranges of compressed bytes are read one after
another by one reader, each with files and a commit record of its own, so that a run that died goes on behind what is
done: that is decoded again, which costs little (benchmarks/bench_decoders.py), but not parsed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from leia_beam.bz2_blocks import read_records
from leia_beam.errors import DamagedInput, MissingResource, TruncatedInput, UsageError
from leia_beam.ranges import RangeReport, Record, split_points
from leia_beam.scanning import AT_FILE_START, RecordScanner
from leia_beam.storage import LocalStorage, Storage
from leia_beam.streams import BZ2, CHUNK_BYTES, GZIP, PIECE_BYTES, PLAIN, UTF_8, UTF_16, ZSTD, SequentialStream

_HEAD_BYTES = 512
_UNREAD_FORMATS = {
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """A dump file as it was when the build began.

    `format` is bz2, gzip, zstd or plain; `encoding` is utf-8 or utf-16. `version` is what its storage says of this
    content: another one means that the file was replaced or has grown.
    """

    path: str
    format: str
    size_bytes: int
    encoding: str = UTF_8
    version: str = ""
    verified_sum: str = ""
    """'sha1:…' where the whole file was found to have it."""
    origin: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """What is noted of where it came from (dump_lock): date, layout, sums, by name."""
    storage: Storage = field(default_factory=LocalStorage, compare=False)

    @property
    def name(self) -> str:
        """The base name, which is all of the path that a manifest holds."""
        return self.path.rpartition("/")[2]

    @property
    def is_sequential(self) -> bool:
        """Whether it can only be read from its start."""
        return self.format in (GZIP, ZSTD) or self.encoding == UTF_16

    def check_unchanged(self) -> None:
        """Find that the file is what it was when the build began.

        Raises: DamagedInput.
        """
        found = self.storage.stat(self.path)
        if found is None:
            raise DamagedInput(f"{self.path}: has gone since the build began; put it back")
        if found.size_bytes != self.size_bytes:
            raise DamagedInput(
                f"{self.path}: {found.size_bytes:,} bytes, but {self.size_bytes:,} when the build began; "
                "wait until its download is complete, then build with --overwrite"
            )
        if self.version and found.version != self.version:
            raise DamagedInput(
                f"{self.path}: replaced since the build began (now {found.version}, then {self.version}); "
                "build with --overwrite"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How damage is met: see `bz2_blocks.read_records`."""

    max_record_bytes: int
    max_bad_blocks: int = 0
    salvage: bool = False


def find_dump(path: str, storage: Storage | None = None) -> Dump:
    """The dump at a path.

    Raises: UsageError if there is no such file; DamagedInput if it is empty or of a format that is not read.
    """
    storage = storage or LocalStorage()
    found = storage.stat(path)
    if found is None:
        raise UsageError(f"{path}: no such file; give a dump file")
    with storage.open(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise DamagedInput(f"{path}: empty file (0 bytes); download it again")
    dump = Dump(
        path=path,
        format=_format_of(head, path),
        size_bytes=found.size_bytes,
        version=found.version,
        storage=storage,
    )
    is_utf_16 = decoded_head(dump).startswith((b"\xff\xfe", b"\xfe\xff"))
    return replace(dump, encoding=UTF_16) if is_utf_16 else dump


def _format_of(head: bytes, path: str) -> str:
    for magic, name in _UNREAD_FORMATS.items():
        if head.startswith(magic):
            raise DamagedInput(f"{path}: {name} data is not read; give .bz2, .gz, .zst or an uncompressed dump")
    for magic, format_ in ((b"BZh", BZ2), (b"\x1f\x8b", GZIP), (b"\x28\xb5\x2f\xfd", ZSTD)):
        if head.startswith(magic):
            return format_
    start = head[:16]
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith((b"<html", b"<!doctype html")):
        raise DamagedInput(
            f"{path}: starts with {start!r}, looks like an HTML page, perhaps an error page of the server; "
            "download it again"
        )
    if path.endswith((".bz2", ".gz", ".zst")):
        raise DamagedInput(f"{path}: not {path.rpartition('.')[2]} data, it starts with {start!r}; download it again")
    return PLAIN


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """A disk or a connection that fails is no damage of the dump: it may pass on retry."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise MissingResource(f"{path}: cannot be read ({reason}); run the same command again") from error


def decoded_head(dump: Dump) -> bytes:
    """The first decoded bytes of a dump, up to some hundred kilobytes; none where it cannot be decoded.

    Whoever reads it says what is wrong with it, and where.
    """
    with _reading(dump.path), dump.storage.open(dump.path) as file:
        stream = SequentialStream(file, dump.path, dump.format, dump.encoding, chunks_ahead=1)
        try:
            while (data := stream.take()) is not None:
                if data:
                    return data
        except DamagedInput:
            pass
        finally:
            stream.close()
    return b""


def provenance(dumps: Iterable[Dump]) -> dict[str, dict[str, Any]]:
    """What a manifest says of where dumps came from, and of sums that were verified; nothing where nothing is known."""
    dumps = tuple(dumps)
    found: dict[str, dict[str, Any]] = {
        "verified_sums": {dump.name: dump.verified_sum for dump in dumps if dump.verified_sum},
        "fetched": {dump.name: dict(dump.origin) for dump in dumps if dump.origin},
    }
    return {name: content for name, content in found.items() if content}


def byte_ranges(dump: Dump, range_bytes: int) -> list[tuple[int, int]]:
    """The ranges [start, end) into which a dump is cut, each of at most `range_bytes`.

    Those of a sequential one end at whole pieces, so a range is at least 256 KiB; text in UTF-16 is one range.
    """
    if dump.encoding == UTF_16:
        return [(0, dump.size_bytes)]
    if not dump.is_sequential:
        return split_points(dump.size_bytes, range_bytes)
    pieces = -(-dump.size_bytes // PIECE_BYTES)
    ranges = split_points(pieces, max(1, range_bytes // PIECE_BYTES))
    return [(start * PIECE_BYTES, min(end * PIECE_BYTES, dump.size_bytes)) for start, end in ranges]


class DumpReader:
    """Reads ranges of one dump. Those of a sequential one are read in the file's order, in one go.

    Raises, while records are read: DamagedInput where the dump is damaged, ends early, or has changed since the build
    began; TruncatedInput where it ends early.
    """

    def __init__(self, dump: Dump, delimiter: bytes, options: ReadOptions):
        self._dump = dump
        self._delimiter = delimiter
        self._options = options
        self._file: BinaryIO | None = None
        self._sequence: _Sequence | None = None

    def __enter__(self) -> DumpReader:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and stop decoding ahead."""
        if self._sequence is not None:
            self._sequence.close()
        if self._file is not None:
            self._file.close()
        self._file = self._sequence = None

    def records(self, start: int, end: int, report: RangeReport) -> Iterator[Record]:
        """The records that a range owns, without their delimiter. `report` is final when the iterator is exhausted."""
        with _reading(self._dump.path):
            yield from self._records(start, end, report)

    def _records(self, start: int, end: int, report: RangeReport) -> Iterator[Record]:
        dump = self._dump
        dump.check_unchanged()
        if dump.is_sequential:
            yield from self._sequential_records(start, end, report)
            report.compressed_bytes = report.compressed_bytes or end - start
            return
        self.close()
        self._file = dump.storage.open_range(dump.path, start, end, dump.version)
        if dump.format == BZ2:
            yield from read_records(
                self._file,
                dump.path,
                start,
                end,
                self._delimiter,
                report,
                chunk_bytes=CHUNK_BYTES,
                max_record_bytes=self._options.max_record_bytes,
                max_bad_blocks=self._options.max_bad_blocks,
                salvage=self._options.salvage,
            )
        else:
            yield from self._plain_records(self._file, start, end, report)
        report.compressed_bytes = report.compressed_bytes or end - start

    def _plain_records(self, file: BinaryIO, start: int, end: int, report: RangeReport) -> Iterator[Record]:
        file.seek(start)
        opened_by = AT_FILE_START if start == 0 else None
        scanner = RecordScanner(lambda: file.read(CHUNK_BYTES) or None, start, opened_by, self._delimiter)
        yield from scanner.records(lambda: end, report, self._options.max_record_bytes)

    def _sequential_records(self, start: int, end: int, report: RangeReport) -> Iterator[Record]:
        if self._sequence is None or not self._sequence.can_reach(start):
            self.close()
            self._file = self._dump.storage.open_range(self._dump.path, 0, self._dump.size_bytes, self._dump.version)
            self._sequence = _Sequence(self._file, self._dump, self._delimiter)
        try:
            yield from self._sequence.records(start, end, report, self._options.max_record_bytes)
        except TruncatedInput as error:
            if not self._options.salvage:
                raise
            report.salvaged = str(error)


class _Sequence:
    """A stream that is read range after range; ranges may be left out but not come again."""

    def __init__(self, file: BinaryIO, dump: Dump, delimiter: bytes):
        self._stream = SequentialStream(file, dump.path, dump.format, dump.encoding)
        self._delimiter = delimiter
        self._scanner: RecordScanner | None = None
        self._read_up_to = 0  # byte of the file up to which ranges were read
        self._marks: deque[tuple[int, int]] = deque()  # (byte of the file, offset in the decoded stream), as they came

    def can_reach(self, start: int) -> bool:
        """Whether the range that begins at `start` is still to come."""
        return start == self._read_up_to or self._stream.compressed_position <= start

    def records(self, start: int, end: int, report: RangeReport, max_record_bytes: int) -> Iterator[Record]:
        """The records of the range [start, end) of the compressed bytes."""
        if self._scanner is None or start != self._read_up_to:
            self._pass_over(start)
            opened_by = AT_FILE_START if start == 0 else None
            self._scanner = RecordScanner(self._read, self._stream.position, opened_by, self._delimiter)
        self._read_up_to = end
        yield from self._scanner.records(lambda: self._offset_of(end), report, max_record_bytes)
        if report.ends_file:
            report.warnings += self._stream.warnings

    def close(self) -> None:
        self._stream.close()

    def _pass_over(self, start: int) -> None:
        """Decode without looking up to the byte `start` of the file."""
        while self._stream.compressed_position < start and self._stream.take() is not None:
            pass

    def _read(self) -> bytes | None:
        data = self._stream.take()
        mark = (self._stream.compressed_position, self._stream.position)
        if not self._marks or mark[0] > self._marks[-1][0]:
            self._marks.append(mark)
        return data

    def _offset_of(self, byte: int) -> int | None:
        """Where what the file's bytes before `byte` decode to ends; None as long as they were not all read."""
        while self._marks and self._marks[0][0] < byte:
            self._marks.popleft()
        return self._marks[0][1] if self._marks else None
