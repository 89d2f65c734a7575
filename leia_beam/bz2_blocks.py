"""From any .bz2 file and a byte range of it to the records that the range owns, each with its exact place.

A bzip2 stream is a chain of blocks of up to 900 kB; each begins, at any bit, with the 48 bits 0x314159265359 and has
the CRC of what it decodes to. So a reader can begin at any block, and a file of one stream is cut like one of many:

- a byte range [start, end) owns the blocks whose first bit lies in it;
- a delimiter belongs to the block that holds its first byte, also where it straddles two blocks;
- a record belongs to the block that owns the delimiter before it, the first record of the file to the range at byte 0;
- a range reads past its end only to finish its last record.

So the ranges partition the records whatever the cuts are. Nothing is lost between two ranges: whoever owns a record
walks from block to block without a gap, so each block, each link between two blocks and the end of the file is checked
by the owner of the record that lies across it. A magic is believed only where the bits up to the next magic decode to
the block's CRC; a damaged first block of a range looks like a false magic there, and is an error in the range whose
record reaches into it. Files made to deceive (a whole block hidden in a block) show as places that do not meet.

Blocks are decoded one by one with the standard library: the bits of a block are shifted to a byte edge and given an end
of stream. Scanning, shifting and cutting into records cost 3-8 % of the time of `bzip2 -dc` in all
(benchmarks/bench_bz2_blocks.py).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from leia_beam.bz2_bits import (
    BLOCK_MAGIC,
    CRC_BITS,
    HEADER_BYTES,
    MAGIC_BITS,
    MAX_BLOCK_BITS,
    STREAM_END_BITS,
    STREAM_END_MAGIC,
    STREAM_END_PATTERNS,
    Block,
    Window,
    decode_block,
    fold_crc,
    is_header,
    possible_ends,
)
from leia_beam.errors import DamagedInput, TruncatedInput
from leia_beam.ranges import KEPT_BYTES_OF_OVERSIZED, Place, RangeReport, Record

_AGAIN = "download it again and compare its checksum"
_LOOKS_LIKE = (
    (b"\x1f\x8b", "gzip data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZ0", "data of bzip 1, which is another format"),
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"<!doctype html", "an HTML page, perhaps an error page of the server"),
    (b"<html", "an HTML page, perhaps an error page of the server"),
    (b"<", "uncompressed XML"),
    (b"{", "uncompressed JSON"),
    (b"[", "uncompressed JSON"),
    (b"\0\0\0\0", "zeros, as in a download that was never filled"),
)


def read_records(
    file: BinaryIO,
    file_name: str,
    start: int,
    end: int,
    delimiter: bytes,
    report: RangeReport,
    *,
    chunk_bytes: int = 1 << 20,
    max_record_bytes: int | None = None,
    max_bad_blocks: int = 0,
    salvage: bool = False,
) -> Iterator[Record]:
    """The records that the byte range [start, end) of a .bz2 file owns, in order, without their delimiter.

    What stands after the file's last delimiter is a record too where it is not empty. Memory: one block, its compressed
    bytes, and one record (of at most `max_record_bytes`). The range (0, 0) is that of an empty file.

    Up to `max_bad_blocks` blocks that do not decode are skipped: the records that they touch are lost, all others are
    given, and the report lists the blocks. With `salvage`, a file that ends early gives what is whole in it.

    Raises DamagedInput where the file is no bzip2 file, is damaged or ends early, as far as this range reads.
    """
    if not (0 <= start < end or start == end == 0):
        raise ValueError(f"a range needs 0 <= start < end, not start {start:,} and end {end:,}")
    if not delimiter or any(delimiter.startswith(delimiter[i:]) for i in range(1, len(delimiter))):
        raise ValueError(f"a delimiter must not be empty nor overlap itself, which {delimiter!r} does")
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be at least 1, not {chunk_bytes}")
    if max_record_bytes is not None and max_record_bytes < 0:
        raise ValueError(f"max_record_bytes must not be negative, not {max_record_bytes}")
    limit = sys.maxsize if max_record_bytes is None else max_record_bytes
    chain = _Chain(Window(file, start, chunk_bytes), file_name, end * 8, report, max_bad_blocks)
    records = _owned_records(chain, start, end, delimiter, limit, report)
    return _salvaged(records, report) if salvage else records


def _salvaged(records: Iterator[Record], report: RangeReport) -> Iterator[Record]:
    """The records up to where the file ends early."""
    try:
        yield from records
    except TruncatedInput as error:
        report.salvaged = str(error)


def _owned_records(
    chain: _Chain, start: int, end: int, delimiter: bytes, limit: int, report: RangeReport
) -> Iterator[Record]:
    """Walk the blocks from the range's first on; `record` is the owned record that is open at a block's first byte."""
    record: _OpenRecord | None = None
    if start > 0:
        if not chain.begin_at_block(start, end):
            return
    else:
        chain.begin_at_header()
        if end == 0:
            return
        first_bit = chain.peek_bit()
        if first_bit is not None:
            record = _OpenRecord(Place(first_bit, 0), limit)
            report.start = report.end = record.place
    begin = 0  # where the open record goes on in the block: behind a delimiter that began in the block before
    is_lost = False  # the open record reached into a block that does not decode; the next one begins at a delimiter
    while (bit := chain.peek_bit()) is not None:
        owned = bit < end * 8
        if not owned and record is None and not is_lost:
            return
        if chain.block().is_bad:
            record, is_lost, begin = None, report.start is not None, 0
            chain.advance()
            continue
        data = chain.block().data
        text = data
        if _ends_in_part_of(data, delimiter):
            text += chain.peek_after_block(len(delimiter) - 1)
        at = text.find(delimiter, begin)
        if at < 0:
            if record is not None:
                record.add(data[begin:])
            begin = max(0, begin - len(data))
            chain.advance()
            continue
        if record is not None:
            record.add(text[begin:at])
            report.end = chain.place_at(at + len(delimiter))
            yield record.close()
        if not owned:
            report.end = chain.place_at(at + len(delimiter))
            return
        is_lost = False
        begin = at + len(delimiter)
        if report.start is None:
            report.start = chain.place_at(begin)
        yield from _whole_records(bit, text, begin, delimiter, limit)
        begin = text.rfind(delimiter) + len(delimiter)
        report.end = chain.place_at(begin)
        record = _OpenRecord(report.end, limit)
        record.add(data[begin:])
        begin = max(0, begin - len(data))
        chain.advance()
    if record is not None or is_lost or start == 0:
        report.ends_file = True
        report.warnings += chain.warnings
    if record is not None or is_lost:
        report.end = chain.end_place()
    if record is not None and record.size_bytes:
        yield record.close()


def _whole_records(bit: int, text: bytes, begin: int, delimiter: bytes, limit: int) -> Iterator[Record]:
    """The records that begin at `begin` or later in the block at `bit` and whose delimiter begins in it too."""
    while (at := text.find(delimiter, begin)) >= 0:
        size = at - begin
        kept = at if size <= limit else min(at, begin + KEPT_BYTES_OF_OVERSIZED)
        yield Record(Place(bit, begin), text[begin:kept], size)
        begin = at + len(delimiter)


def _ends_in_part_of(data: bytes, delimiter: bytes) -> bool:
    """Whether the last bytes of `data` are the first bytes of the delimiter, so that it may go on in the next block."""
    return any(data.endswith(delimiter[:n]) for n in range(1, len(delimiter)))


class _OpenRecord:
    """A record that goes on in the next block: all of its bytes up to the limit, its first 200 beyond."""

    __slots__ = ("_limit", "_pieces", "place", "size_bytes")

    def __init__(self, place: Place, limit: int):
        self.place = place
        self.size_bytes = 0
        self._limit = limit
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes <= self._limit:
            self._pieces.append(piece)
        else:
            self._pieces.append(piece[:KEPT_BYTES_OF_OVERSIZED])
            self._pieces = [b"".join(self._pieces)[:KEPT_BYTES_OF_OVERSIZED]]

    def close(self) -> Record:
        return Record(self.place, b"".join(self._pieces), self.size_bytes)


class _Chain:
    """The blocks of a file from one of them on, each decoded when it is asked for and linked without a gap."""

    def __init__(self, window: Window, file_name: str, owned_end_bit: int, report: RangeReport, max_bad_blocks: int):
        self.warnings: list[str] = []
        self._window = window
        self._file_name = file_name
        self._owned_end_bit = owned_end_bit
        self._report = report
        self._max_bad_blocks = max_bad_blocks
        self._blocks: deque[Block] = deque()  # decoded, not yet passed
        self._next_bit: int | None = None  # of the first block that is not decoded; None: the file ends
        self._unlinked_bit: int | None = None  # where the last decoded block ended, until the next one is looked for
        self._last: tuple[int, int] = (0, 0)  # of the last decoded block: first bit, size of its data
        self._last_is_owned = True
        self._stream_crc: int | None = None  # of the blocks so far, where the stream was read from its start

    def begin_at_header(self) -> None:
        """Begin at byte 0 with the header of the first stream."""
        if not self._window.reach(HEADER_BYTES) or not is_header(self._window.bytes_at(0, HEADER_BYTES)):
            self._refuse_first_bytes()
        self._stream_crc = 0
        self._unlinked_bit = HEADER_BYTES * 8

    def begin_at_block(self, start: int, end: int) -> bool:
        """Begin at the first block that the range [start, end) owns; False where it owns none."""
        window = self._window
        bit = start * 8
        while bit < end * 8 and not (window.at_end and bit >= window.end * 8):
            step_end = min(end * 8, bit + MAX_BLOCK_BITS)
            found = window.next_magic(bit, step_end)
            if found is None:
                bit = step_end
                window.drop(bit // 8)
                continue
            block = decode_block(window, found)
            if block is not None:
                self._append(block)
                return True
            self._report.false_magics += 1
            bit = found + 1
        return False

    def peek_bit(self) -> int | None:
        """The first bit of the current block, which is not decoded for it; None at the end of the file."""
        return self._blocks[0].bit if self._blocks else self._undecoded_bit()

    def block(self) -> Block:
        """The current block."""
        if not self._blocks:
            self._decode_next()
        return self._blocks[0]

    def advance(self) -> None:
        self._blocks.popleft()

    def peek_after_block(self, size: int) -> bytes:
        """The `size` decoded bytes that follow the current block; fewer at the end of the file."""
        found = b""
        index = 1
        while len(found) < size:
            if index == len(self._blocks):
                if self._undecoded_bit() is None:
                    break
                self._decode_next()
            if self._blocks[index].is_bad:
                break
            found += self._blocks[index].data[: size - len(found)]
            index += 1
        return found

    def place_at(self, offset: int) -> Place:
        """The place `offset` bytes after the current block's first byte, in it or in blocks that were peeked at."""
        for block in self._blocks:
            if offset <= len(block.data):
                return Place(block.bit, offset)
            offset -= len(block.data)
        raise AssertionError("a place beyond what was read")

    def end_place(self) -> Place:
        """The place after the last block that was decoded."""
        return Place(*self._last)

    def _undecoded_bit(self) -> int | None:
        if self._unlinked_bit is not None:
            bit, self._unlinked_bit = self._unlinked_bit, None
            self._next_bit = self._follow(bit)
        return self._next_bit

    def _decode_next(self) -> None:
        bit = self._undecoded_bit()
        assert bit is not None
        self._window.drop(bit // 8)
        block = decode_block(self._window, bit)
        self._append(self._skip_block(bit) if block is None else block)

    def _skip_block(self, bit: int) -> Block:
        """What stands for a block that does not decode: its bits up to the next block or stream end."""
        may_skip = len(self._report.bad_blocks) < self._max_bad_blocks
        ends = possible_ends(self._window, bit) if may_skip else []
        end_bit = next((end for end in ends if self._goes_on_at(end)), None)
        if end_bit is None:
            self._refuse_block(bit)
        self._report.bad_blocks.append((bit, end_bit))
        return Block(bit, end_bit, 0, b"", is_bad=True)

    def _goes_on_at(self, bit: int) -> bool:
        """Whether a block begins at `bit`, or a stream ends there and another one follows or the file ends."""
        window = self._window
        if not window.reach_bit(bit + STREAM_END_BITS):
            return False
        if window.bits(bit, MAGIC_BITS) == BLOCK_MAGIC:
            return True
        byte = (bit + STREAM_END_BITS + 7) // 8
        return not window.reach(byte + 1) or is_header(window.bytes_at(byte, HEADER_BYTES))

    def _append(self, block: Block) -> None:
        self._blocks.append(block)
        self._unlinked_bit = block.end_bit
        self._last = (block.bit, len(block.data))
        self._last_is_owned = block.bit < self._owned_end_bit
        if block.is_bad:
            self._stream_crc = None
            return
        if self._stream_crc is not None:
            self._stream_crc = fold_crc(self._stream_crc, block.crc)
        if self._last_is_owned:
            self._report.blocks_owned += 1
            self._report.compressed_bytes += block.end_bit // 8 - block.bit // 8
            self._report.decoded_bytes += len(block.data)
            self._report.block_crcs.append((block.bit, block.crc))

    def _follow(self, bit: int) -> int | None:
        """The first bit of the block that follows what ends at `bit`, over stream ends and headers; None: the end."""
        window = self._window
        while True:
            if not window.reach_bit(bit + MAGIC_BITS):
                self._raise_ends_early(bit, "where a block or the end of the stream should stand")
            magic = window.bits(bit, MAGIC_BITS)
            if magic == BLOCK_MAGIC:
                return bit
            if magic != STREAM_END_MAGIC:
                self._raise(f"damaged at byte {bit // 8:,}: neither a bzip2 block nor the end of a stream; {_AGAIN}")
            if not window.reach_bit(bit + STREAM_END_BITS):
                self._raise_ends_early(bit, "inside the end of the stream")
            self._end_stream(bit, window.bits(bit + MAGIC_BITS, CRC_BITS))
            header_byte = (bit + STREAM_END_BITS + 7) // 8
            if not self._begins_stream(header_byte):
                return None
            self._stream_crc = 0
            bit = (header_byte + HEADER_BYTES) * 8

    def _end_stream(self, bit: int, stored_crc: int) -> None:
        if self._last_is_owned:
            self._report.stream_ends.append((bit, stored_crc))
        if self._stream_crc not in (None, stored_crc):
            self._raise(
                f"damaged: the stream that ends at byte {bit // 8:,} has checksum {stored_crc:08x},"
                f" its blocks give {self._stream_crc:08x}; {_AGAIN}"
            )

    def _begins_stream(self, byte: int) -> bool:
        """Whether a stream begins at `byte`; False at the end of the file and before bytes that are no stream."""
        window = self._window
        window.drop(byte)
        if window.reach(byte + HEADER_BYTES):
            if is_header(window.bytes_at(byte, HEADER_BYTES)):
                return True
        elif b"BZh".startswith(rest := window.bytes_at(byte, HEADER_BYTES)):
            if rest:
                self._raise_ends_early(byte * 8, "inside the header of a stream")
            return False
        self._pass_over_tail(byte)
        return False

    def _pass_over_tail(self, byte: int) -> None:
        """Warn of what stands after the last stream.

        An error where it has a magic: it was a stream whose beginning is damaged, or has blocks that other ranges read.
        """
        window = self._window
        only_zeros = True
        done = byte
        while window.reach(done + 1):
            piece = window.rest(done)
            only_zeros = only_zeros and piece.count(0) == len(piece)
            done += len(piece)
            found = window.next_magic(byte * 8, done * 8)
            if found is None:
                found = next(iter(window.magics_in((done - len(piece)) * 8, done * 8, STREAM_END_PATTERNS)), None)
            if found is not None:
                self._raise(
                    f"damaged: bytes that are no bzip2 at byte {byte:,}, after the end of a stream,"
                    f" then bzip2 data at byte {found // 8:,}; {_AGAIN}"
                )
            window.drop(done)
        kind = "zero padding" if only_zeros else "data that is no bzip2"
        self.warnings.append(
            f"{self._file_name}: {done - byte:,} bytes of {kind} after the last stream at byte {byte:,}; ignored"
        )

    def _refuse_first_bytes(self) -> NoReturn:
        first = self._window.rest(0)[:64]
        if not first:
            self._raise("is empty (0 bytes), no bzip2 file; download it again")
        if b"BZh".startswith(first):
            self._raise_ends_early(0, "inside the header of the first stream")
        head = first.lstrip().lower() if first.strip() else first
        for signature, what in _LOOKS_LIKE:
            if first.startswith(signature) or head.startswith(signature):
                self._raise(f"is no bzip2 file: it looks like {what} (byte 0: {first[:16]!r}); download it again")
        self._raise(f"is no bzip2 file: byte 0 has {first[:16]!r} instead of b'BZh'; download it again")

    def _refuse_block(self, bit: int) -> NoReturn:
        if self._window.at_end and not possible_ends(self._window, bit):
            self._raise_truncated(
                f"ends early at byte {self._window.end:,}: the bzip2 block that begins at byte {bit // 8:,} is not whole"
            )
        self._raise(f"damaged: the bzip2 block at byte {bit // 8:,} (bit {bit:,}) does not decode; {_AGAIN}")

    def _raise_ends_early(self, bit: int, where: str) -> NoReturn:
        self._raise_truncated(f"ends early at byte {self._window.end:,}, {where} (byte {bit // 8:,})")

    def _raise_truncated(self, what: str) -> NoReturn:
        raise TruncatedInput(f"{self._file_name}: {what}; download it again, or keep what is whole with --salvage")

    def _raise(self, what: str) -> NoReturn:
        raise DamagedInput(f"{self._file_name}: {what}")
