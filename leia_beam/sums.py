"""From a dump and the list of sums that lies beside it to whether the download is what was offered.

Wikimedia puts `sha1sums.txt` (by name: `jawiki-20260101-sha1sums.txt`) beside its dumps, others sha256sums or md5sums; a
line is a sum in hex, two characters, a name. The algorithm is told by the length of the sum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from leia_beam.dumps import Dump
from leia_beam.errors import DamagedInput, UsageError

_LIST_NAME = re.compile(r"(?:sha1|sha256|md5)sums?", re.IGNORECASE)
_LINE = re.compile(r"([0-9a-fA-F]{32,64}) [ *](?:.*/)?([^/]+)")
_ALGORITHMS = {64: "sha256", 40: "sha1", 32: "md5"}
_READ_BYTES = 8 << 20


def stated_sum(dump: Dump) -> str:
    """'sha1:…' as a list of sums beside the dump has it; the strongest where there are several.

    Raises: UsageError if there is none.
    """
    folder = dump.path.rpartition("/")[0] or "."
    found = {
        algorithm: stated
        for name in dump.storage.list(folder)
        if _LIST_NAME.search(name)
        for algorithm, stated, file_name in _sums_in(dump.storage.read(f"{folder}/{name}") or b"")
        if file_name == dump.name
    }
    for algorithm in _ALGORITHMS.values():
        if algorithm in found:
            return f"{algorithm}:{found[algorithm]}"
    raise UsageError(
        f"--verify-inputs: no list of sums in {folder} names {dump.name}; download sha1sums.txt beside the dump"
    )


def _sums_in(content: bytes) -> Iterator[tuple[str, str, str]]:
    """(algorithm, sum, name) of each line."""
    for line in content.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line.strip())
        algorithm = _ALGORITHMS.get(len(match.group(1))) if match else None
        if match and algorithm:
            yield algorithm, match.group(1).lower(), match.group(2)


def check_sum(dump: Dump, stated: str) -> None:
    """Read the whole dump and compare.

    Raises: DamagedInput with both sums.
    """
    algorithm, _, wanted = stated.partition(":")
    digest = hashlib.new(algorithm)
    with dump.storage.open(dump.path) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    if digest.hexdigest() != wanted:
        raise DamagedInput(
            f"{dump.path}: {algorithm.upper()} is {digest.hexdigest()}, the list of sums beside it says {wanted}; "
            "download it again"
        )
