"""One launcher at a time for a stage of a build in a local folder; a second one is told who is there.

Two would not damage the bytes: a unit's files are its own whoever writes them. But the second could clear the folder of
the first, and both would do all the work. The lock is the operating system's, so it goes with a launcher that is killed,
also while its cluster works on. An object store has no locks: there both launchers end with the same bytes.
"""

from __future__ import annotations

import fcntl
import os
import platform
from types import TracebackType

from leia_beam.errors import MissingResource
from leia_beam.sources import is_remote
from leia_beam.storage import environment_errors


class StageLock:
    """Entered while a stage runs.

    Raises: MissingResource if another launcher has it.
    """

    def __init__(self, output: str, stage: str):
        self._path = None if is_remote(output) else f"{output.rstrip('/')}/_run/{stage}.lock"
        self._handle: int | None = None

    def __enter__(self) -> StageLock:
        if self._path is None:
            return self
        with environment_errors(self._path):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            raise MissingResource(
                f"{self._path}: {holder} is at work on this stage; wait for its end and run the same command again"
            ) from error
        except OSError:  # a file system without locks
            os.close(handle)
            return self
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
