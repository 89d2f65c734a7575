"""From a file that can only be read from its start (gzip, zstd, UTF-16 of any compression) to its decoded bytes in order.

The compressed file is decoded in pieces of 256 KiB that begin at multiples of 256 KiB, so where the bytes of a piece end
does not depend on how the file is cut into ranges. A second thread decodes ahead: isal lets go of the interpreter lock, so
decoding and parsing share two cores. Memory: a few chunks of 1 MiB.
"""

from __future__ import annotations

import bz2
import codecs
import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from isal import igzip_lib

from leia_beam.errors import DamagedInput, TruncatedInput, UsageError

PIECE_BYTES = 256 << 10
CHUNK_BYTES = 1 << 20
CHUNKS_AHEAD = 4
BZ2, GZIP, ZSTD, PLAIN = "bz2", "gzip", "zstd", "plain"
UTF_8, UTF_16 = "utf-8", "utf-16"

_ZSTD_SLICE_BYTES = 1 << 10
"""What zstd is given at a time: its decoder knows no bound, and 1 KiB cannot stand for more than 32 MiB."""
_MAGIC = {BZ2: b"BZh", GZIP: b"\x1f\x8b", ZSTD: b"\x28\xb5\x2f\xfd"}


class Chunk(NamedTuple):
    """Decoded bytes; `compressed_end` is the byte of the file up to which all is out, or None in mid-piece."""

    data: bytes
    compressed_end: int | None


class _Decoder(Protocol):
    """One member of a compressed file, as the standard library's decompressors have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZstdDecoder:
    """One zstd frame behind the same face."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UsageError("reading .zst needs the package zstandard (pip install zstandard)") from error
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        self._pending = b""
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        self._pending += data
        pieces: list[bytes] = []
        size = at = 0
        while at < len(self._pending) and not self.eof and (max_length < 0 or size < max_length):
            piece = self._frame.decompress(self._pending[at : at + _ZSTD_SLICE_BYTES])
            at += _ZSTD_SLICE_BYTES
            pieces.append(piece)
            size += len(piece)
            self.eof = self._frame.eof
        if self.eof:
            self.unused_data = self._frame.unused_data + self._pending[at:]
        self._pending = self._pending[at:]
        self.needs_input = not self._pending
        return b"".join(pieces)


def _decoder(format_: str) -> _Decoder:
    if format_ == GZIP:
        decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return decoder
    if format_ == ZSTD:
        return _ZstdDecoder()
    return bz2.BZ2Decompressor()


_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
_DECODER_ERRORS = (OSError, ValueError, EOFError, _ISAL_ERROR)


class SequentialStream:
    """The decoded bytes of a file from its start, chunk after chunk. Close it, or its thread waits for ever.

    `position` and `compressed_position` are those of the chunks that were taken; `warnings` tell of what stands after
    the last member.
    """

    def __init__(self, file: BinaryIO, name: str, format_: str, encoding: str, chunks_ahead: int = CHUNKS_AHEAD):
        self.position = 0
        self.compressed_position = 0
        self.warnings: list[str] = []
        self._file, self._name, self._format, self._encoding = file, name, format_, encoding
        self._queue: queue.Queue[Chunk | BaseException | None] = queue.Queue(chunks_ahead)
        self._closing = threading.Event()
        self._ended: BaseException | bool | None = False
        self._thread = threading.Thread(target=self._decode_ahead, name=f"decode {name}", daemon=True)
        self._thread.start()

    def take(self) -> bytes | None:
        """The next chunk's bytes, which may be none; None at the end of the file.

        Raises: DamagedInput, TruncatedInput, now and at every later call.
        """
        if self._ended is False:
            entry = self._queue.get()
            if isinstance(entry, Chunk):
                self.position += len(entry.data)
                if entry.compressed_end is not None:
                    self.compressed_position = entry.compressed_end
                return entry.data
            self._ended = entry
        if isinstance(self._ended, BaseException):
            raise self._ended
        return None

    def close(self) -> None:
        """Stop decoding ahead."""
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _decode_ahead(self) -> None:
        try:
            for chunk in self._chunks():
                self._queue.put(chunk)
                if self._closing.is_set():
                    return
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 (handed to the thread that reads)
            self._queue.put(error)

    def _chunks(self) -> Iterator[Chunk]:
        chunks = self._plain_chunks() if self._format == PLAIN else self._decoded_chunks()
        return self._recoded(chunks) if self._encoding == UTF_16 else chunks

    def _pieces(self) -> Iterator[tuple[bytes, int]]:
        """The file's pieces, each with the byte where it ends."""
        end = 0
        while piece := self._file.read(PIECE_BYTES):
            while len(piece) < PIECE_BYTES and (more := self._file.read(PIECE_BYTES - len(piece))):
                piece += more  # a raw or remote file may give less than was asked for
            end += len(piece)
            yield piece, end

    def _plain_chunks(self) -> Iterator[Chunk]:
        for piece, end in self._pieces():
            yield Chunk(piece, end)

    def _decoded_chunks(self) -> Iterator[Chunk]:
        decoder = _decoder(self._format)
        head = b""  # bytes after a member, too few to tell whether another one begins
        end = 0
        pieces = self._pieces()
        for piece, end in pieces:
            data, head = head + piece, b""
            while data:
                if decoder.eof:
                    magic = _MAGIC[self._format]
                    if not data.startswith(magic):
                        if magic.startswith(data):
                            head = data
                            break
                        self._warn_of_tail(end - len(data), data, pieces)
                        return
                    decoder = _decoder(self._format)
                yield from self._out_of(decoder, data, end)
                data = decoder.unused_data if decoder.eof else b""
            yield Chunk(b"", end)
        if not decoder.eof:
            raise TruncatedInput(
                f"{self._name}: {self._format} stream ends early at byte {end:,}; download it again, or keep what is "
                "whole with --salvage"
            )
        if head:
            self._warn_of_tail(end - len(head), head, iter(()))

    def _out_of(self, decoder: _Decoder, data: bytes, end: int) -> Iterator[Chunk]:
        """All that a piece decodes to, in chunks."""
        try:
            out = decoder.decompress(data, CHUNK_BYTES)
            while True:
                if out:
                    yield Chunk(out, None)
                if decoder.eof or decoder.needs_input:
                    return
                out = decoder.decompress(b"", CHUNK_BYTES)
        except _DECODER_ERRORS as error:
            raise DamagedInput(
                f"{self._name}: {self._format} data is damaged near byte {max(0, end - len(data)):,} ({error}); "
                "download it again and compare its checksum"
            ) from error

    def _warn_of_tail(self, byte: int, data: bytes, pieces: Iterator[tuple[bytes, int]]) -> None:
        size, zeros = len(data), data.count(0)
        for piece, _ in pieces:
            size, zeros = size + len(piece), zeros + piece.count(0)
        kind = "zero padding" if zeros == size else f"data that is no {self._format}"
        self.warnings.append(f"{self._name}: {size:,} bytes of {kind} after the last member at byte {byte:,}; ignored")

    def _recoded(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """UTF-16 as UTF-8."""
        decoder = codecs.getincrementaldecoder(UTF_16)()
        position = 0
        try:
            for data, end in chunks:
                position += len(data)
                yield Chunk(decoder.decode(data).encode(), end)
            decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise DamagedInput(
                f"{self._name}: not UTF-16 near byte {position:,} of the text ({error}); download it again"
            ) from error
