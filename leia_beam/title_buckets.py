"""From the number of a wiki's titles to the buckets that they lie in, each a unit of the three steps of `entities`."""

from __future__ import annotations

from leia_beam.units import Unit

VERSIONS = ("leia-lm", "pyarrow", "marisa-trie", "unicodedata")
"""Packages that what stands in a bucket depends on."""
MAX_BUCKETS = 256
TITLES_PER_BUCKET = 1 << 16
BYTES_A_TITLE = 64
"""About what a title takes in the files of a step."""


def default_bucket_count(titles: int) -> int:
    """A power of two with about 65,536 titles a bucket, at most 256; a function of the input, never of the workers."""
    count = 1
    while count < MAX_BUCKETS and count * TITLES_PER_BUCKET < titles:
        count *= 2
    return count


def bucket_units(count: int, size_bytes: int = 0) -> list[Unit]:
    """`size_bytes` is about what all have to read, from which the number of processes is found."""
    size = size_bytes // count
    return [
        Unit(number=number, count=count, name=f"bucket {number}", size_bytes=size, end=size) for number in range(count)
    ]
