"""From a stage's lock file to who holds it: builds hold one while a stage runs, and so does whoever removes files.

The lock is the operating system's (flock), so it goes with a process that is killed. A file system without locks, such as
some of networks, has none: there two processes are not told of each other.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leia_beam.errors import MissingResource
from leia_beam.storage import environment_errors

NOTES_FOLDER = "_run"
_SUFFIX = ".lock"


def lock_path(output: str, stage: str) -> str:
    """Where the lock of a stage of a build lies."""
    return f"{output.rstrip('/')}/{NOTES_FOLDER}/{stage}{_SUFFIX}"


def take_lock(path: str) -> int | None:
    """Hold a lock until what is returned is closed; None where the file system has no locks.

    Raises: MissingResource where another process holds it, with which one.
    """
    with environment_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
        os.close(handle)
        raise MissingResource(
            f"{path}: {holder} is at work on this stage; wait for its end and run the same command again"
        ) from error
    except OSError:
        os.close(handle)
        return None
    os.truncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    return handle


@contextmanager
def all_locked(output: Path) -> Iterator[None]:
    """Hold the locks of all stages that were ever run into a build's folder.

    Raises: MissingResource where a build is at work there.
    """
    handles: list[int] = []
    try:
        for path in sorted((output / NOTES_FOLDER).glob(f"*{_SUFFIX}")):
            handle = take_lock(str(path))
            handles += [] if handle is None else [handle]
        yield
    finally:
        for handle in handles:
            os.close(handle)
