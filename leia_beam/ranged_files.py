"""From requests for byte ranges of a remote object to a file that the readers of dumps and tables can read.

Beam's own file for gs:// fetches 16 MiB whatever is asked for, so a range of 33 MiB fetched 48. Here a range is fetched in
steps that never reach past its end, and what a reader needs beyond it (the rest of its last record) in small ones. What
may pass on a second try is tried again, each time after a longer wait.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from leia_beam.errors import DamagedInput, LeiaError, MissingResource, UsageError

FIRST_STEP_BYTES = 256 << 10
LARGEST_STEP_BYTES = 8 << 20
TAIL_STEP_BYTES = 64 << 10
WAITS_S: Sequence[float] = (0.5, 1, 2, 4, 8, 16)
"""How long is waited before each further try: half a minute in all."""

T = TypeVar("T")
Fetch = Callable[[int, int], bytes]
"""(first byte, behind the last byte) → exactly these bytes."""


class StoreFault(Exception):
    """What a store answered, as a phrase. `passing` faults may be gone at the next try."""

    def __init__(self, reason: str, *, passing: bool = False, kind: str = ""):
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.kind = kind


NO_BUCKET, REFUSED, CHANGED, NO_PACKAGE = "no bucket", "refused", "changed", "no package"


def error_of(fault: StoreFault, path: str, done: str) -> LeiaError:
    """What a fault means to a user, in one line. `done` is what could not be done: 'read', 'written', …"""
    if fault.kind == NO_BUCKET:
        return UsageError(f"{path}: no such bucket; make it, or correct the name")
    if fault.kind == REFUSED:
        return MissingResource(
            f"{path}: access refused, it cannot be {done} ({fault.reason}); give this account the right to, or other "
            "credentials"
        )
    if fault.kind == CHANGED:
        return DamagedInput(f"{path}: replaced while it was read ({fault.reason}); build with --overwrite")
    if fault.kind == NO_PACKAGE:
        return UsageError(f"{path}: {fault.reason}")
    advice = "nothing was left half-written; " if done == "written" else ""
    return MissingResource(f"{path}: cannot be {done} ({fault.reason}); {advice}run the same command again")


def tried(action: Callable[[], T], path: str, done: str) -> T:
    """What an action gives, tried again while its fault may pass.

    Raises: the LeiaError of the last fault.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return action()
        except StoreFault as fault:
            if not fault.passing or wait_s is None:
                raise error_of(fault, path, done) from fault
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


class RangedFile(io.RawIOBase):
    """A remote object to read and seek in; `name` is its path.

    Without a range each read fetches what it asks for. With the range [start, end) reads fetch ahead up to `end`, in
    steps that grow from 256 KiB to 8 MiB, and give less than was asked for at `end` and beyond, where a step is 64 KiB.
    """

    def __init__(self, name: str, size_bytes: int, fetch: Fetch, range_: tuple[int, int] | None = None):
        super().__init__()
        self.name = name
        self._size_bytes = size_bytes
        self._fetch = fetch
        self._range_end = None if range_ is None else min(range_[1], size_bytes)
        self._position = 0 if range_ is None else range_[0]
        self._step = FIRST_STEP_BYTES
        self._held = memoryview(b"")
        self._held_from = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes; none only at the end of the object."""
        wanted = self._size_bytes if size is None or size < 0 else size
        wanted = min(wanted, self._size_bytes - self._position)
        if wanted <= 0:
            return b""
        at = self._position - self._held_from
        if not 0 <= at < len(self._held):
            first = self._position
            self._held = memoryview(self._fetched(first, self._end_of_step(first, wanted)))
            self._held_from, at = first, 0
        found = bytes(self._held[at : at + wanted])
        self._position += len(found)
        if self._range_end is None:
            self._held = memoryview(b"")
        return found

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(LARGEST_STEP_BYTES), b""))

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # io's own type for it is private
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def _end_of_step(self, first: int, wanted: int) -> int:
        if self._range_end is None:
            return first + wanted
        if first >= self._range_end:
            return min(first + TAIL_STEP_BYTES, self._size_bytes)
        step, self._step = self._step, min(2 * self._step, LARGEST_STEP_BYTES)
        return min(first + step, self._range_end)

    def _fetched(self, first: int, end: int) -> bytes:
        def fetch() -> bytes:
            found = self._fetch(first, end)
            if len(found) != end - first:
                raise StoreFault(f"{len(found):,} bytes came of {end - first:,} from byte {first:,} on", passing=True)
            return found

        return tried(fetch, self.name, "read")
