"""From a path to texts: files of plain text, of JSON lines or of Parquet, document by document, with what identifies them.

A document is a line's text in .jsonl, a row's in .parquet. In .txt it is a block of lines between blank ones, by choice each
line that is not blank, or the whole file. Both kinds of lines may be compressed (.gz, .bz2, .xz, .zst). Nothing is skipped
but documents without any letter, which are counted; memory is that of the longest document.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_train.files import sha256_of
from leia_train.mix_sources import MixSource

LONGEST_BYTES = 8 << 20
"""No document is longer: a file without any blank line would be one, and a tokenizer takes 200 times a text's size."""
_PLAIN, _JSON_LINES, _PARQUET = "plain text", "JSON lines", "Parquet"
_KINDS = {".txt": _PLAIN, ".text": _PLAIN, ".jsonl": _JSON_LINES, ".ndjson": _JSON_LINES, ".parquet": _PARQUET}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_ROWS_AT_ONCE = 256
_ZSTD_SLICE_BYTES = 1 << 12
"""Its decoder knows no bound: 4 KiB cannot stand for more than 128 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """A file and its content's sum."""

    path: Path
    kind: str
    compression: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSource:
    """The texts of a source: its files in their order, and how documents are found in them."""

    name: str
    files: tuple[TextFile, ...]
    column: str
    documents: str

    @property
    def fingerprint(self) -> str:
        """What the documents and their order depend on: no names of files."""
        content = [self.column, self.documents, [(file.kind, file.compression, file.sha256) for file in self.files]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def open_texts(source: MixSource) -> TextSource:
    """The files of a source, in the order of their names, with their sums.

    Raises: UsageError for a path without any; DamagedInput for an empty file.
    """
    files = []
    for path in _paths(source):
        kind, compression = _kind_of(path)
        size_bytes = path.stat().st_size
        if size_bytes == 0:
            raise DamagedInput(f"--mix {source.name}: {path} is empty; copy it again, or leave it out")
        files.append(
            TextFile(path=path, kind=kind, compression=compression, size_bytes=size_bytes, sha256=_sum_of(path))
        )
    return TextSource(name=source.name, files=tuple(files), column=source.column, documents=source.documents)


def _paths(source: MixSource) -> list[Path]:
    path = Path(source.path)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = [
            file
            for file in path.rglob("*")
            if file.is_file() and _kind_of(file)[0] and not _is_hidden(file.relative_to(path))
        ]
        found.sort(key=lambda file: file.relative_to(path).parts)
        if not found:
            raise UsageError(f"--mix {source.name}: {path} holds no {', '.join(_KINDS)} and no finished shards")
    else:
        found = sorted(Path(name) for name in glob.glob(source.path, recursive=True) if Path(name).is_file())
    if not found:
        raise UsageError(
            f"--mix {source.name}: {source.path}: no such file or folder, and no file fits it as a pattern"
        )
    for file in found:
        if not _kind_of(file)[0]:
            raise UsageError(
                f"--mix {source.name}: {file}: its name must end with one of {', '.join(_KINDS)}, all but Parquet also "
                f"with {', '.join(_COMPRESSIONS)} behind it"
            )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _kind_of(path: Path) -> tuple[str, str]:
    """The kind and the compression that a name says; '' for none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes[-1] if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    kind = _KINDS.get(suffixes[-2 if compression else -1], "") if len(suffixes) > bool(compression) else ""
    return ("", "") if kind == _PARQUET and compression else (kind, compression)


def _sum_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def read_records(source: TextSource, file: TextFile, first: int = 0) -> Iterator[tuple[str, int]]:
    """The records of a file from number `first` on, each with the byte of the file up to which about it was read by then.

    A record without a letter is no document.

    Raises: DamagedInput for what is damaged, with the place; UsageError for a column that is not there.
    """
    if file.kind == _PARQUET:
        for row, rows, text in _parquet_texts(file.path, source.column, first):
            yield text, file.size_bytes * row // rows
        return
    with _opened(file) as (raw, stream):
        if file.kind == _JSON_LINES:
            records = _json_texts(file.path, stream, source.column)
        elif source.documents == "line":
            records = (line for _, line in _lines(file.path, stream))
        elif source.documents == "file":
            records = iter(["\n".join(line for _, line in _within_bound(file.path, stream))])
        else:
            records = _blocks(file.path, stream)
        for text in islice(records, first, None):
            yield text, raw.tell()


@contextmanager
def _opened(file: TextFile) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The bytes of a file, and what they are decompressed.

    Raises: DamagedInput where it ends early or is no file of its compression.
    """
    try:
        with file.path.open("rb") as raw:
            yield raw, _decompressed(raw, file.compression)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DamagedInput(f"{file.path}: damaged, or ends early ({error}); copy it again") from error
    except OSError as error:
        if file.compression != ".bz2" or error.errno is not None:
            raise
        raise DamagedInput(f"{file.path}: damaged ({error}); copy it again") from error


def _decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    if compression == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if compression == ".bz2":
        return io.BufferedReader(bz2.BZ2File(raw))
    if compression == ".xz":
        return io.BufferedReader(lzma.LZMAFile(raw))
    if compression == ".zst":
        return io.BufferedReader(_ZstdStream(raw))
    return raw


class _ZstdStream(io.RawIOBase):
    """The bytes of zstd frames, one after the other; an end within a frame is an EOFError, as for the other kinds."""

    def __init__(self, raw: BinaryIO):
        try:
            import zstandard
        except ImportError as error:
            raise MissingResource("reading .zst needs the package zstandard (pip install zstandard)") from error
        self._raw, self._zstd = raw, zstandard
        self._frame: Any = None
        self._input, self._output = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._raw.read(_ZSTD_SLICE_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the file ends within a zstd frame")
                return 0
            self._frame = self._frame or self._zstd.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            try:
                self._output = self._frame.decompress(self._input)
            except self._zstd.ZstdError as error:
                raise EOFError(str(error)) from error
            self._input = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._output))
        buffer[:count], self._output = self._output[:count], self._output[count:]
        return count


def _lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The byte (of the decompressed file) at which each line begins, and the line without its end.

    Raises: DamagedInput for what is no UTF-8; UsageError for a line of more than LONGEST_BYTES.
    """
    offset = 0
    while line := stream.readline(LONGEST_BYTES + 1):
        if len(line) > LONGEST_BYTES:
            raise UsageError(
                f"{path}: the line at byte {offset:,} is longer than {LONGEST_BYTES >> 20} MiB; cut it into documents"
            )
        begin = len(codecs.BOM_UTF8) if offset == 0 and line.startswith(codecs.BOM_UTF8) else 0
        try:
            text = line[begin:].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedInput(
                f"{path}: no UTF-8 at byte {offset + begin + error.start:,}; convert it, or copy it again"
            ) from error
        if "\0" in text:
            raise DamagedInput(
                f"{path}: the line at byte {offset:,} holds a NUL, so it is no text; convert it to UTF-8"
            )
        yield offset, text.rstrip("\r\n")
        offset += len(line)


def _within_bound(path: Path, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of one document.

    Raises: UsageError where it is longer than LONGEST_BYTES.
    """
    for offset, line in _lines(path, stream):
        if offset > LONGEST_BYTES:
            raise UsageError(
                f"{path}: is longer than {LONGEST_BYTES >> 20} MiB; take documents=block or documents=line"
            )
        yield offset, line


def _blocks(path: Path, stream: BinaryIO) -> Iterator[str]:
    """The lines between blank ones.

    Raises: UsageError where there are none for LONGEST_BYTES.
    """
    block: list[str] = []
    begin = 0
    for offset, line in _lines(path, stream):
        if not line.strip():
            if block:
                yield "\n".join(block)
            block = []
            continue
        begin = begin if block else offset
        if offset - begin > LONGEST_BYTES:
            raise UsageError(
                f"{path}: no blank line for {LONGEST_BYTES >> 20} MiB from byte {begin:,} on; where each line is a "
                "document, add documents=line to --mix"
            )
        block.append(line)
    if block:
        yield "\n".join(block)


def _json_texts(path: Path, stream: BinaryIO, column: str) -> Iterator[str]:
    for number, (offset, line) in enumerate(_lines(path, stream), 1):
        if not line.strip():
            yield ""
            continue
        where = f"{path}: line {number:,} (byte {offset:,})"
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            raise DamagedInput(f"{where}: not a JSON object ({error}); copy the file again") from error
        if column not in row:
            raise UsageError(f"{where}: has no {column!r} ({_listed(row)}); add column=NAME to --mix")
        yield _checked(row[column], where, column)


def _listed(names: Any) -> str:
    return "it has " + ", ".join(map(str, islice(names, 10)))


def _checked(value: object, where: str, column: str) -> str:
    """A value as text; null is none.

    Raises: DamagedInput.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DamagedInput(f"{where}: {column!r} is no text ({type(value).__name__})")
    if len(value) > LONGEST_BYTES:
        raise UsageError(f"{where}: is longer than {LONGEST_BYTES >> 20} MiB; cut it into documents")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DamagedInput(f"{where}: {column!r} holds half of a surrogate pair, which is no text") from error
    return value


def _parquet_texts(path: Path, column: str, first: int) -> Iterator[tuple[int, int, str]]:
    """Each row's number from `first` on, the number of all rows, and its text."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            schema = parquet.schema_arrow
            if column not in schema.names:
                raise UsageError(
                    f"{path}: has no column {column!r} ({_listed(schema.names)}); add column=NAME to --mix"
                )
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise UsageError(f"{path}: column {column!r} holds {kind}, not text; add column=NAME to --mix")
            row, groups = 0, list[int]()
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if groups or row + rows > first:
                    groups.append(group)
                else:
                    row += rows
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[column], use_threads=False):
                for value in batch.column(0):
                    row += 1
                    if row > first:
                        text = _checked(value.as_py(), f"{path}: row {row:,}", column)
                        yield row, parquet.metadata.num_rows, text
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DamagedInput(f"{path}: not readable as Parquet ({error}); copy it again") from error
