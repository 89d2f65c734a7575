"""What a byte range of a dump owns: records with their places, and a report of what the range read.

The rule is one for all formats: a delimiter belongs to the range that holds its first byte; a record belongs to the range
that owns the delimiter before it, the first record of a file to the range at byte 0. So ranges partition the records,
whatever the cuts are, and what one range ends with is where the next one begins.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT_BYTES_OF_OVERSIZED = 200


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the decompressed stream that compares between ranges: a block's first bit, a byte offset in its bytes.

    A place is named by the block of the byte before it: the place between two blocks is (first block, its length),
    never (second block, 0). Only the start of the file has offset 0.
    """

    block_bit: int
    offset: int


class Record(NamedTuple):
    """The bytes between two delimiters; of a record of more than `max_record_bytes` the first 200 alone."""

    place: Place
    data: bytes
    size_bytes: int


@dataclass(slots=True)
class RangeReport:
    """What a range read; final when the iterator of `read_records` is exhausted.

    Over ranges that cover a file: each block and each stream end is in one report, one report has `ends_file`, and the
    `end` of each report that has one is the `start` of the next that has one.
    """

    start: Place | None = None
    """Just after the first delimiter that the range owns (or the start of the file); None where it owns none."""
    end: Place | None = None
    """Just after the delimiter that ends the last owned record, or the end of the file."""
    blocks_owned: int = 0
    compressed_bytes: int = 0
    """Size of the owned blocks in the file (without stream headers and ends)."""
    decoded_bytes: int = 0
    """Size of what the owned blocks decode to."""
    false_magics: int = 0
    """Block magics that were tried as the first block and do not decode: chance, or a damaged block."""
    ends_file: bool = False
    """The range owns the last delimiter and read to the end of the last stream."""
    bad_blocks: list[tuple[int, int]] = field(default_factory=list)
    """(first bit, bit after the last) of what was skipped because it does not decode; the records it touches are lost."""
    salvaged: str | None = None
    """Why the file ends early, where that was let pass; the records before the end are whole."""
    warnings: list[str] = field(default_factory=list)
    block_crcs: list[tuple[int, int]] = field(default_factory=list)
    """(first bit, stored CRC) of each owned block."""
    stream_ends: list[tuple[int, int]] = field(default_factory=list)
    """(first bit, stored combined CRC) of each stream end between an owned block and the block after it."""


def split_points(size_bytes: int, range_bytes: int) -> list[tuple[int, int]]:
    """Ranges [start, end) of equal size (to a byte), none larger than `range_bytes`, that cover the file.

    >>> split_points(10, 4)
    [(0, 3), (3, 6), (6, 10)]
    >>> split_points(0, 4)
    [(0, 0)]
    """
    if range_bytes < 1:
        raise ValueError(f"range_bytes must be at least 1, not {range_bytes}")
    if size_bytes < 0:
        raise ValueError(f"size_bytes must not be negative, not {size_bytes}")
    count = max(1, -(-size_bytes // range_bytes))
    edges = [size_bytes * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
