"""From content to files that are there whole or not at all: sums, fsync, and replacement by rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leia_beam.errors import MissingResource, UsageError


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Put everything under a folder, and its names, on the disk."""
    for path in sorted(folder.rglob("*")):
        fsync_file(path)
    fsync_file(folder)


def fsync_file(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file at once and durably."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
    fsync_file(temporary)
    os.replace(temporary, path)
    fsync_file(path.parent)


def rename_folder(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name."""
    os.rename(temporary, final)
    fsync_file(final.parent)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line.

    Raises: MissingResource for a full disk or quota; UsageError for a place that cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MissingResource(f"{where}: {error.strerror}; make room and run the same command again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UsageError(f"{where}: cannot be written to ({error.strerror})") from error
        raise
