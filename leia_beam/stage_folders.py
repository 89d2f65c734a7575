"""From a finished stage's folder, wherever it lies, to its manifest and to copies of its files on this machine's disk.

Tables that are mapped into memory (tries, the entity table) have to lie on a local disk. They are fetched once a
machine, whatever the number of its worker processes: under a lock, into a folder named by the manifest's SHA-256, each
file compared with the sum that the manifest has of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from leia_beam.errors import DamagedInput, MissingResource, UsageError
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, parse_manifest
from leia_beam.storage import Storage, environment_errors

_COPY_BYTES = 8 << 20


def stage_manifest(storage: Storage, folder: str) -> Manifest:
    """The manifest of a finished stage.

    Raises: UsageError if there is none: the stage is not finished.
    """
    return parse_manifest(_manifest_content(storage, folder), f"{folder}/{MANIFEST_NAME}")


def _manifest_content(storage: Storage, folder: str) -> bytes:
    content = storage.read(f"{folder}/{MANIFEST_NAME}")
    if content is None:
        raise UsageError(
            f"{folder}/{MANIFEST_NAME}: no such file; the stage is not finished (run the same build command again)"
        )
    return content


def manifest_sum(content: bytes) -> str:
    """SHA-256 of a manifest, in hex: what a stage is known by to those that read it."""
    return hashlib.sha256(content).hexdigest()


def local_copy(storage: Storage, folder: str, tables: Sequence[str]) -> str:
    """A folder of this machine with the manifest of a stage and its files of some tables; `folder` itself if local.

    Raises: UsageError if the stage is not finished; DamagedInput if a file is not what the manifest says.
    """
    copies = storage.copies_folder(folder)
    if copies is None:
        return folder
    content = _manifest_content(storage, folder)
    manifest = parse_manifest(content, f"{folder}/{MANIFEST_NAME}")
    own = os.path.join(copies, manifest_sum(content))
    wanted = [file for table in tables for file in manifest.files_of(table)]
    with environment_errors(own):
        _make_private(copies)
        with _locked(f"{own}.lock"):
            os.makedirs(own, exist_ok=True)
            for file in wanted:
                _fetch(storage, f"{folder}/{file.path}", os.path.join(own, file.path), file)
            path = os.path.join(own, MANIFEST_NAME)
            if not os.path.exists(path):
                _put(path, content)
    return own


def _make_private(folder: str) -> None:
    """A folder that nobody else can put files into."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise MissingResource(f"{folder}: others may write there, so copies are not kept in it; remove it")


@contextmanager
def _locked(path: str) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(storage: Storage, path: str, local_path: str, file: StageFile) -> None:
    """Copy a file unless it is there: under its name stands nothing but what was compared with its sum."""
    if os.path.exists(local_path) and os.path.getsize(local_path) == file.size_bytes:
        return
    os.makedirs(os.path.dirname(local_path), exist_ok=True)
    temporary = f"{local_path}.{uuid.uuid4().hex}.tmp"
    digest = hashlib.sha256()
    try:
        with storage.open_range(path, 0, file.size_bytes) as source, open(temporary, "wb") as target:
            while piece := source.read(_COPY_BYTES):
                digest.update(piece)
                target.write(piece)
        if digest.hexdigest() != file.sha256:
            raise DamagedInput(
                f"{path}: SHA-256 mismatch, {digest.hexdigest()[:12]}… instead of {file.sha256[:12]}…; build it again"
            )
        os.replace(temporary, local_path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _put(path: str, content: bytes) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
