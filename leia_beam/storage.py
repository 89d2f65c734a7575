"""From a finished local file to a final name that no reader ever sees half-written.

Local disk: a copy under a hidden name of its own beside the final name, fsync, rename, fsync of the folder. The class
has the few operations that a build needs; an object store offers the same ones with one upload for `publish`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO, Protocol

from leia_beam.errors import MissingResource, UsageError


@dataclass(frozen=True, slots=True)
class FileState:
    """What a storage says of a file; `version` differs where the content may differ (a time, a generation, an etag)."""

    size_bytes: int
    version: str


class Storage(Protocol):
    """Where a build's folder or a dump lies. Paths are as the user gave them, joined with '/'. Values of it pickle."""

    def __hash__(self) -> int:
        """Equal storages hash alike, so that what was opened through one is found again."""

    def stat(self, path: str) -> FileState | None:
        """Size and version, or None if there is no such file."""

    def open(self, path: str) -> BinaryIO:
        """A file to read and seek in."""

    def open_range(self, path: str, start: int, end: int, version: str = "") -> BinaryIO:
        """A file that stands at `start`, for reading on to `end` and a little further.

        A read may give less than was asked for. Of a remote file hardly more is fetched than is read, and nothing of
        another version than the one given.
        """

    def table_file(self, path: str) -> str | BinaryIO:
        """What a reader of Parquet is given: the path of a local file, else a file."""

    def copies_folder(self, path: str) -> str | None:
        """Where on this machine copies of remote files are kept for all its processes; None where `path` is local."""

    def find(self, pattern: str) -> list[str]:
        """The files that a path with wildcards means, sorted; a path without any means itself."""

    def read(self, path: str) -> bytes | None:
        """The content of a small file, or None if there is none."""

    def size(self, path: str) -> int | None:
        """The size in bytes, or None if there is no such file."""

    def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none if there is no such folder."""

    def sizes(self, folder: str) -> dict[str, int]:
        """The size in bytes of each file below a folder, by its path in the folder."""

    def publish(self, local_path: str, path: str) -> None:
        """Put a finished local file under its final name, at once and durably."""

    def write(self, path: str, content: bytes) -> None:
        """The same for a small content."""

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that is in it; nothing if there is none."""


@dataclass(frozen=True)
class LocalStorage:
    """Storage on a local or mounted file system."""

    def stat(self, path: str) -> FileState | None:
        try:
            state = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MissingResource(f"{path}: cannot be read ({error.strerror or error})") from error
        if not stat.S_ISREG(state.st_mode):
            raise UsageError(
                f"{path}: is {'a folder' if stat.S_ISDIR(state.st_mode) else 'no regular file'}; give a file"
            )
        return FileState(state.st_size, f"changed at {state.st_mtime_ns} ns")

    def open(self, path: str) -> BinaryIO:
        try:
            return open(path, "rb")
        except OSError as error:
            raise MissingResource(f"{path}: cannot be read ({error.strerror or error})") from error

    def open_range(self, path: str, start: int, end: int, version: str = "") -> BinaryIO:
        file = self.open(path)
        file.seek(start)
        return file

    def table_file(self, path: str) -> str | BinaryIO:
        return path

    def copies_folder(self, path: str) -> str | None:
        return None

    def find(self, pattern: str) -> list[str]:
        if os.path.lexists(pattern) or not has_magic(pattern):
            return [pattern]
        return sorted(path for path in glob(pattern) if os.path.isfile(path))

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MissingResource(f"{path}: cannot be read ({error.strerror or error})") from error

    def size(self, path: str) -> int | None:
        try:
            return os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        found = {}
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                with contextlib.suppress(FileNotFoundError):  # a temporary file of a running build
                    found[os.path.relpath(path, folder)] = os.stat(path).st_size
        return found

    def publish(self, local_path: str, path: str) -> None:
        with environment_errors(path):
            temporary = self._temporary(path)
            try:
                shutil.copyfile(local_path, temporary)
                self._commit(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def write(self, path: str, content: bytes) -> None:
        with environment_errors(path):
            temporary = self._temporary(path)
            try:
                temporary.write_bytes(content)
                self._commit(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        with environment_errors(path):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)

    @staticmethod
    def _temporary(path: str) -> Path:
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")

    @staticmethod
    def _commit(temporary: Path, path: str) -> None:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class environment_errors:
    """A full disk, a read-only folder, a taken name: one line and exit code 5, where a traceback would stand."""

    def __init__(self, path: str):
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        advice = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "free some space and run the same command again",
            errno.EROFS: "give another --output",
            errno.EACCES: "give another --output, or the right to write there",
            errno.EPERM: "give another --output, or the right to write there",
            errno.ENOTDIR: "give another --output: a part of this path is a file",
            errno.EISDIR: "give another --output: a folder has this name",
        }.get(error.errno or 0, "nothing was left half-written; run the same command again")
        raise MissingResource(f"{self._path}: cannot be written ({error.strerror or error}); {advice}") from error


def sha256_of(local_path: str) -> str:
    """SHA-256 of a local file, in hex."""
    with open(local_path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
