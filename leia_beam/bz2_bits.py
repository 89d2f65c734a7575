"""From the bits of a bzip2 file to its magics and to single decoded blocks.

A block begins, at any bit, with the 48 bits 0x314159265359 and has the CRC of what it decodes to. It is decoded by the
standard library: its bits are shifted to a byte edge and given an end of stream. (indexed_bzip2 is 0.92 to 1.27 times as
fast, by the data, but starts a thread for each block and does not tell of bytes behind the stream's end:
benchmarks/README.md.) A magic is believed only where the bits up to the next one decode to the CRC.
"""

from __future__ import annotations

import bz2
from collections import deque
from typing import BinaryIO, NamedTuple

BLOCK_MAGIC = 0x314159265359
STREAM_END_MAGIC = 0x177245385090
MAGIC_BITS = 48
CRC_BITS = 32
STREAM_END_BITS = MAGIC_BITS + CRC_BITS
HEADER_BYTES = 4
# 900,000 symbols of at most 20 bits, 18,002 selectors of at most 6, and the tables; rounded up.
MAX_BLOCK_BITS = 8 * 2_600_000


class Block(NamedTuple):
    """A decoded block: its bits are [bit, end_bit) of the file."""

    bit: int
    end_bit: int
    crc: int
    data: bytes
    is_bad: bool = False
    """Does not decode: `data` is empty, and what followed in it is lost."""


def fold_crc(stream_crc: int, block_crc: int) -> int:
    """The combined CRC of a stream after one more block: rotate by a bit, then xor."""
    return ((stream_crc << 1 | stream_crc >> 31) & 0xFFFFFFFF) ^ block_crc


def is_header(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4] in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9")


class MagicPattern(NamedTuple):
    """A magic at one of eight bit offsets: its whole bytes, and the masked bytes around them."""

    shift: int
    whole: bytes
    first_mask: int
    first: int
    last_mask: int
    last: int


def _magic_patterns(magic: int) -> tuple[MagicPattern, ...]:
    patterns = [MagicPattern(0, magic.to_bytes(6, "big"), 0, 0, 0, 0)]
    for shift in range(1, 8):
        spread = (magic << (8 - shift)).to_bytes(7, "big")
        last_mask = 0xFF << (8 - shift) & 0xFF
        patterns.append(MagicPattern(shift, spread[1:6], 0xFF >> shift, spread[0], last_mask, spread[6]))
    return tuple(patterns)


BLOCK_PATTERNS = _magic_patterns(BLOCK_MAGIC)
STREAM_END_PATTERNS = _magic_patterns(STREAM_END_MAGIC)


def find_magics(data: bytes | bytearray, patterns: tuple[MagicPattern, ...] = BLOCK_PATTERNS) -> list[int]:
    """The bits of `data` at which a whole magic begins, ascending."""
    found: list[int] = []
    for shift, whole, first_mask, first, last_mask, last in patterns:
        before = 1 if shift else 0
        at = data.find(whole, before)
        while at >= 0:
            if not shift:
                found.append(at * 8)
            elif at + 5 < len(data) and data[at - 1] & first_mask == first and data[at + 5] & last_mask == last:
                found.append((at - 1) * 8 + shift)
            at = data.find(whole, at + 1)
    found.sort()
    return found


class Window:
    """The compressed bytes [base, end) of a file, which grow at the end and are dropped at the front."""

    def __init__(self, file: BinaryIO, start: int, chunk_bytes: int):
        self.at_end = False
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._base = start
        self._buffer = bytearray()
        self._magics: deque[int] = deque()  # bits of the block magics that were found and not passed
        file.seek(start)

    @property
    def end(self) -> int:
        """The byte up to which the file was read: its size where `at_end`."""
        return self._base + len(self._buffer)

    def reach(self, byte: int) -> bool:
        """Read until [.., byte) is there; False where the file ends before."""
        while self.end < byte and self._read_chunk():
            pass
        return self.end >= byte

    def reach_bit(self, bit: int) -> bool:
        return self.reach((bit + 7) // 8)

    def drop(self, byte: int) -> None:
        """Forget what lies before `byte`."""
        byte = min(byte, self.end)
        if byte > self._base:
            del self._buffer[: byte - self._base]
            self._base = byte

    def bytes_at(self, byte: int, size: int) -> bytes:
        at = byte - self._base
        return bytes(self._buffer[at : at + size])

    def rest(self, byte: int) -> bytes:
        """What was read from `byte` on."""
        return bytes(self._buffer[byte - self._base :])

    def bits(self, bit: int, count: int) -> int:
        """`count` bits from `bit` on as a number; they must have been read."""
        first, last = bit // 8 - self._base, (bit + count + 7) // 8 - self._base
        number = int.from_bytes(self._buffer[first:last], "big") >> (-(bit + count) % 8)
        return number & ((1 << count) - 1)

    def next_magic(self, bit: int, limit_bit: int) -> int | None:
        """The first block magic that begins in [bit, limit_bit); bits before `bit` are not asked for again."""
        while True:
            while self._magics and self._magics[0] < bit:
                self._magics.popleft()
            if self._magics:
                return self._magics[0] if self._magics[0] < limit_bit else None
            if self.end * 8 >= limit_bit + MAGIC_BITS or not self._read_chunk():
                return None

    def magics_in(self, bit: int, limit_bit: int, patterns: tuple[MagicPattern, ...]) -> list[int]:
        """All magics that begin in [bit, limit_bit)."""
        self.reach_bit(limit_bit + MAGIC_BITS)
        first = bit // 8
        found = find_magics(self.bytes_at(first, limit_bit // 8 + 7 - first), patterns)
        return [first * 8 + at for at in found if bit <= first * 8 + at < limit_bit]

    def _read_chunk(self) -> bool:
        chunk = b"" if self.at_end else self._file.read(self._chunk_bytes)
        if not chunk:
            self.at_end = True
            return False
        known_bit = self.end * 8 - MAGIC_BITS  # a magic that begins later was not whole before
        scan_from = max(0, len(self._buffer) - 6)
        self._buffer += chunk
        scan_bit = (self._base + scan_from) * 8
        self._magics += [scan_bit + at for at in find_magics(self._buffer[scan_from:]) if scan_bit + at > known_bit]
        return True


def decode_block(window: Window, bit: int) -> Block | None:
    """The block whose magic is at `bit`; None where the bits up to no possible end decode to its CRC."""
    next_magic = window.next_magic(bit + 1, bit + MAX_BLOCK_BITS)
    if next_magic is not None:
        stream_end = _stream_end_before(window, bit, next_magic)
        block = _decode_bits(window, bit, next_magic if stream_end is None else stream_end)
        if block is not None:
            return block
    # The last block of a file, empty streams behind it, a false magic in it, or damage.
    end_bit = _find_end(window, bit, possible_ends(window, bit))
    return None if end_bit is None else _decode_bits(window, bit, end_bit)


def _stream_end_before(window: Window, bit: int, magic_bit: int) -> int | None:
    """The first bit of a stream end after `bit` with a stream header between it and the magic at `magic_bit`."""
    header_byte = magic_bit // 8 - HEADER_BYTES
    if magic_bit % 8 or header_byte * 8 <= bit or not is_header(window.bytes_at(header_byte, HEADER_BYTES)):
        return None
    for padding in range(8):
        end_bit = header_byte * 8 - padding - STREAM_END_BITS
        if end_bit > bit and window.bits(end_bit, MAGIC_BITS) == STREAM_END_MAGIC:
            return end_bit
    return None


def possible_ends(window: Window, bit: int) -> list[int]:
    """The bits of all magics, of blocks and of stream ends, at which a block that begins at `bit` could end."""
    after, limit = bit + STREAM_END_BITS + 1, bit + MAX_BLOCK_BITS
    return sorted(window.magics_in(after, limit, BLOCK_PATTERNS) + window.magics_in(after, limit, STREAM_END_PATTERNS))


def _find_end(window: Window, bit: int, ends: list[int]) -> int | None:
    """The one of `ends` at which the block really ends, in one pass over its bits however many false ones there are.

    A decoder gives no output before it has read the last bit of a block: so the block ends at the first of `ends` up to
    which it has to be fed for that.
    """
    if not ends:
        return None
    size = (ends[-1] - bit + 7) // 8 * 8
    if not window.reach_bit(bit + size):
        return None
    shifted = window.bits(bit, size).to_bytes(size // 8, "big")
    decoder = bz2.BZ2Decompressor()
    decoder.decompress(b"BZh9")
    fed = 0
    for end_bit in ends:
        upto = (end_bit - bit + 7) // 8
        try:
            if decoder.decompress(shifted[fed:upto]):
                return end_bit
        except OSError:
            return None
        fed = upto
    return None


def _decode_bits(window: Window, bit: int, end_bit: int) -> Block | None:
    """Decode the bits [bit, end_bit) as a stream of one block; None where they are not exactly one whole block."""
    count = end_bit - bit
    if count <= STREAM_END_BITS:
        return None
    crc = window.bits(bit + MAGIC_BITS, CRC_BITS)
    stream = (window.bits(bit, count) << STREAM_END_BITS | STREAM_END_MAGIC << CRC_BITS | crc) << (-count % 8)
    decoder = bz2.BZ2Decompressor()
    try:
        data = decoder.decompress(b"BZh9" + stream.to_bytes((count + STREAM_END_BITS + 7) // 8, "big"))
    except OSError:
        return None
    return Block(bit, end_bit, crc, data) if decoder.eof and not decoder.unused_data else None
