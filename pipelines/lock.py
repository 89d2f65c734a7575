"""One launcher at a time for a stage of a build in a local folder; a second one is told who is there.

Two would not damage the bytes: a unit's files are its own whoever writes them. But the second could clear the folder of
the first, and both would do all the work. The lock goes with a launcher that is killed, also while its cluster works on. An
object store has no locks: there both launchers end with the same bytes.
"""

from __future__ import annotations

import os
from types import TracebackType

from leia_beam.sources import is_remote
from leia_beam.stage_locks import lock_path, take_lock


class StageLock:
    """Entered while a stage runs.

    Raises: MissingResource if another launcher has it.
    """

    def __init__(self, output: str, stage: str):
        self._path = None if is_remote(output) else lock_path(output, stage)
        self._handle: int | None = None

    def __enter__(self) -> StageLock:
        self._handle = None if self._path is None else take_lock(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
