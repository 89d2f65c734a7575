"""From the checksums of the blocks that single units own to the checksum of each bzip2 stream, without a second read.

A stream ends with a combined CRC: for each block, rotate by a bit, then xor. That composes: from what n blocks give,
starting at zero, follows what they make of any CRC before them. So a unit keeps a few numbers, and over all units of a
file every stream is proved whole: a block that is lost, doubled, swapped or changed anywhere is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leia_beam.bz2_bits import fold_crc


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """What the blocks of a unit give: those up to its first stream end, that end, and those behind its last end.

    The streams between its first and last end are checked where they are read. Without a stream end all blocks are head.
    """

    head_blocks: int
    head_crc: int
    end_crc: int | None
    tail_blocks: int
    tail_crc: int


def stream_check(block_crcs: Sequence[tuple[int, int]], stream_ends: Sequence[tuple[int, int]]) -> StreamCheck:
    """From (bit, CRC) of a unit's blocks and of the stream ends behind them.

    >>> stream_check([(1, 5), (2, 6), (4, 7)], [(3, 12)])
    StreamCheck(head_blocks=2, head_crc=12, end_crc=12, tail_blocks=1, tail_crc=7)
    """
    first = stream_ends[0][0] if stream_ends else None
    last = stream_ends[-1][0] if stream_ends else None
    head = [crc for bit, crc in block_crcs if first is None or bit < first]
    tail = [crc for bit, crc in block_crcs if last is not None and bit > last]
    return StreamCheck(
        head_blocks=len(head),
        head_crc=_folded(head),
        end_crc=stream_ends[0][1] if stream_ends else None,
        tail_blocks=len(tail),
        tail_crc=_folded(tail),
    )


def first_broken(checks: Iterable[StreamCheck]) -> int | None:
    """Which of a file's units, in order, holds the first stream end that its blocks do not give; None if all fit."""
    crc = 0
    for number, check in enumerate(checks):
        crc = _rotated(crc, check.head_blocks) ^ check.head_crc
        if check.end_crc is not None:
            if crc != check.end_crc:
                return number
            crc = check.tail_crc
    return None


def _folded(crcs: Iterable[int]) -> int:
    combined = 0
    for crc in crcs:
        combined = fold_crc(combined, crc)
    return combined


def _rotated(crc: int, bits: int) -> int:
    bits %= 32
    return (crc << bits | crc >> (32 - bits)) & 0xFFFFFFFF
