"""From a dump and the list of sums that lies beside it to whether the download is what was offered.

Wikimedia puts `sha1sums.txt` (by name: `jawiki-20260101-sha1sums.txt`) beside its dumps, others sha256sums or md5sums; a
line is a sum in hex, two characters, a name. The algorithm is told by the length of the sum. What leia-beam fetch noted in
its lock counts as such a list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from leia_beam.console import Counter, Tell
from leia_beam.dump_lock import LOCK_NAME, parse_lock
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
        for algorithm, stated, file_name in sums_in(dump.storage.read(f"{folder}/{name}") or b"")
        if file_name == dump.name
    }
    lock = dump.storage.read(f"{folder}/{LOCK_NAME}")
    fetched = parse_lock(lock, f"{folder}/{LOCK_NAME}").named(dump.name) if lock is not None else None
    if fetched is not None:
        found = {**found, **fetched.all_sums}
    for algorithm in _ALGORITHMS.values():
        if algorithm in found:
            return f"{algorithm}:{found[algorithm]}"
    raise UsageError(
        f"--verify-inputs: no list of sums in {folder} names {dump.name}; download sha1sums.txt beside the dump"
    )


def sums_in(content: bytes) -> Iterator[tuple[str, str, str]]:
    """(algorithm, sum, name) of each line."""
    for line in content.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line.strip())
        algorithm = _ALGORITHMS.get(len(match.group(1))) if match else None
        if match and algorithm:
            yield algorithm, match.group(1).lower(), match.group(2)


def check_sum(dump: Dump, stated: str, tell: Tell | None = None) -> None:
    """Read the whole dump and compare; `tell` is told how far it is.

    Raises: DamagedInput with both sums.
    """
    algorithm, _, wanted = stated.partition(":")
    digest = hashlib.new(algorithm)
    progress = Counter(tell, "verify", dump.size_bytes, "bytes")
    with dump.storage.open(dump.path) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            progress.advance(len(piece))
    if digest.hexdigest() != wanted:
        raise DamagedInput(
            f"{dump.path}: {algorithm.upper()} is {digest.hexdigest()}, the list of sums beside it says {wanted}; "
            "download it again"
        )
