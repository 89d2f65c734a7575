"""Storage on gs://, s3:// and any other of Beam's file systems, for dumps and for a build's folder.

An object store has no rename: a file is put under its final name by one upload, so a name alone says nothing, and a unit
is done only by its commit record (commits). gs:// and s3:// are spoken to by their own clients, made from Beam's options
(object_stores); other file systems through Beam. Local paths are served by LocalStorage, which renames.
"""

from __future__ import annotations

import io
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from leia_beam.errors import MissingResource, UsageError
from leia_beam.object_stores import GcsStore, ObjectStore, S3Store, split_path
from leia_beam.ranged_files import NO_PACKAGE, RangedFile, StoreFault, error_of, tried
from leia_beam.storage import FileState, LocalStorage, Storage

_UPLOAD_BYTES = 8 << 20
_PATTERN_CHARACTERS = "*?["
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 120


def is_remote(path: str) -> bool:
    """Whether a path names a file system of Beam's.

    >>> is_remote("gs://dumps/x.bz2"), is_remote("/data/x.bz2")
    (True, False)
    """
    return "://" in path


def storage_of(path: str, beam_options: Sequence[str] = ()) -> Storage:
    """The storage that a path lies on. `beam_options` are Beam's own, such as `--s3_endpoint_url=…`."""
    return storage_for([path], beam_options)


def storage_for(paths: Sequence[str], beam_options: Sequence[str] = (), copies: str | None = None) -> Storage:
    """A storage of all these paths. `copies` is where copies of remote files are kept on a machine."""
    if not any(is_remote(path) for path in paths):
        return LocalStorage()
    return BeamStorage(storage_options(beam_options), copies)


_STORAGE_OPTIONS = ("s3_", "hdfs_", "azure_", "blob_service_endpoint")
_GCS_OPTIONS = ("no_auth", "project", "impersonate_service_account", "gcp_oauth_scopes")


def storage_options(beam_options: Sequence[str]) -> tuple[str, ...]:
    """Those of Beam's options that a file system reads: no other one is handed to workers with a storage.

    >>> storage_options(["--s3_region_name", "eu-west-1", "--no_auth", "--setup_file=setup.py"])
    ('--no_auth', '--s3_region_name=eu-west-1')
    """
    given = PipelineOptions(list(beam_options)).get_all_options(drop_default=True)
    chosen = {name: value for name, value in given.items() if name.startswith(_STORAGE_OPTIONS) or name in _GCS_OPTIONS}
    return tuple(
        line
        for name, value in sorted(chosen.items())
        for line in ([f"--{name}"] if value is True else [f"--{name}={item}" for item in _listed(value)])
    )


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class BeamStorage:
    """See Storage. A value holds options alone, so that it reaches workers whole; local paths are served too."""

    options: tuple[str, ...] = ()
    copies: str | None = None

    def stat(self, path: str) -> FileState | None:
        return self._of(path).stat(path)

    def open(self, path: str) -> BinaryIO:
        return self._of(path).open(path)

    def open_range(self, path: str, start: int, end: int, version: str = "") -> BinaryIO:
        return self._of(path).open_range(path, start, end, version)

    def table_file(self, path: str) -> str | BinaryIO:
        return self._of(path).open(path) if is_remote(path) else path

    def copies_folder(self, path: str) -> str | None:
        if not is_remote(path):
            return None
        return self.copies or os.path.join(tempfile.gettempdir(), f"leia-copies-{os.getuid()}")

    def find(self, pattern: str) -> list[str]:
        return self._of(pattern).find(pattern)

    def read(self, path: str) -> bytes | None:
        return self._of(path).read(path)

    def size(self, path: str) -> int | None:
        return self._of(path).size(path)

    def list(self, folder: str) -> list[str]:
        return self._of(folder).list(folder)

    def sizes(self, folder: str) -> dict[str, int]:
        return self._of(folder).sizes(folder)

    def publish(self, local_path: str, path: str) -> None:
        self._of(path).publish(local_path, path)

    def write(self, path: str, content: bytes) -> None:
        self._of(path).write(path, content)

    def remove(self, path: str) -> None:
        self._of(path).remove(path)

    def _of(self, path: str) -> _Files:
        if not is_remote(path):
            return cast(_Files, LocalStorage())
        return _files_of(path.partition("://")[0], self.options)


@lru_cache(maxsize=16)
def _files_of(scheme: str, options: tuple[str, ...]) -> _Files:
    """How a scheme's files are reached from this process; its connections are kept."""
    if scheme == "gs":
        return _ObjectFiles(_gcs_store(options))
    if scheme == "s3":
        return _ObjectFiles(_s3_store(options))
    return _BeamFiles(options)


def _gcs_store(options: tuple[str, ...]) -> ObjectStore:
    try:
        from apache_beam.io.gcp.gcsio import create_storage_client
    except ImportError as error:
        fault = StoreFault("its package is missing; install it with the extra gcp", kind=NO_PACKAGE)
        raise error_of(fault, "gs://", "read") from error
    given = PipelineOptions(list(options))
    # Without credentials Beam looks for some for twenty seconds, whatever --no_auth says.
    return GcsStore(create_storage_client(given, use_credentials=not given.view_as(GoogleCloudOptions).no_auth))


def _s3_store(options: tuple[str, ...]) -> ObjectStore:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        fault = StoreFault("its package is missing; install it with the extra aws", kind=NO_PACKAGE)
        raise error_of(fault, "s3://", "read") from error
    given = PipelineOptions(list(options)).view_as(S3Options)
    config = Config(connect_timeout=_CONNECT_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S, retries={"total_max_attempts": 1})
    client = boto3.session.Session().client(
        service_name="s3",
        region_name=given.s3_region_name,
        api_version=given.s3_api_version,
        use_ssl=not given.s3_disable_ssl,
        verify=given.s3_verify,
        endpoint_url=given.s3_endpoint_url,
        aws_access_key_id=given.s3_access_key_id,
        aws_secret_access_key=given.s3_secret_access_key,
        aws_session_token=given.s3_session_token,
        config=config,
    )
    return S3Store(client)


class _Files(ABC):
    """The files of one file system; see Storage for what the methods do."""

    @abstractmethod
    def stat(self, path: str) -> FileState | None: ...

    @abstractmethod
    def open(self, path: str) -> BinaryIO: ...

    @abstractmethod
    def open_range(self, path: str, start: int, end: int, version: str) -> BinaryIO: ...

    @abstractmethod
    def find(self, pattern: str) -> list[str]: ...

    @abstractmethod
    def read(self, path: str) -> bytes | None: ...

    @abstractmethod
    def list(self, folder: str) -> list[str]: ...

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]: ...

    @abstractmethod
    def publish(self, local_path: str, path: str) -> None: ...

    @abstractmethod
    def write(self, path: str, content: bytes) -> None: ...

    @abstractmethod
    def remove(self, path: str) -> None: ...

    def size(self, path: str) -> int | None:
        found = self.stat(path)
        return found.size_bytes if found is not None else None


class _ObjectFiles(_Files):
    """Files that are objects of a store."""

    def __init__(self, store: ObjectStore):
        self._store = store

    def stat(self, path: str) -> FileState | None:
        return tried(lambda: self._store.state(*split_path(path)), path, "read")

    def open(self, path: str) -> BinaryIO:
        return self._opened(path, None, "")

    def open_range(self, path: str, start: int, end: int, version: str) -> BinaryIO:
        return self._opened(path, (start, end), version)

    def _opened(self, path: str, range_: tuple[int, int] | None, version: str) -> BinaryIO:
        state = self.stat(path)
        if state is None:
            raise MissingResource(f"{path}: cannot be read (no such object)")
        bucket, key = split_path(path)

        def fetch(start: int, end: int) -> bytes:
            return self._store.fetch(bucket, key, start, end, version)

        return cast(BinaryIO, RangedFile(path, state.size_bytes, fetch, range_))

    def find(self, pattern: str) -> list[str]:
        if not any(character in pattern for character in _PATTERN_CHARACTERS):
            return [pattern]
        scheme = pattern.partition("://")[0]
        bucket, key_pattern = split_path(pattern)
        fixed = key_pattern[: min(key_pattern.find(c) for c in _PATTERN_CHARACTERS if c in key_pattern)]
        depth = key_pattern.count("/")
        return sorted(
            f"{scheme}://{bucket}/{key}"
            for key, _ in self._entries(pattern, bucket, fixed, deep=True)
            if key.count("/") == depth and fnmatchcase(key, key_pattern)
        )

    def read(self, path: str) -> bytes | None:
        return tried(lambda: self._store.whole(*split_path(path)), path, "read")

    def list(self, folder: str) -> list[str]:
        bucket, key = split_path(folder.rstrip("/") + "/")
        entries = self._entries(folder, bucket, key, deep=False)
        return sorted({name.removeprefix(key).rstrip("/") for name, _ in entries} - {""})

    def sizes(self, folder: str) -> dict[str, int]:
        bucket, key = split_path(folder.rstrip("/") + "/")
        return {name.removeprefix(key): size for name, size in self._entries(folder, bucket, key, deep=True)}

    def publish(self, local_path: str, path: str) -> None:
        with open(local_path, "rb") as source:
            self._upload(source, os.fstat(source.fileno()).st_size, path)

    def write(self, path: str, content: bytes) -> None:
        self._upload(io.BytesIO(content), len(content), path)

    def remove(self, path: str) -> None:
        bucket, key = split_path(path)
        below = key.rstrip("/") + "/"
        entries = self._entries(path, bucket, key.rstrip("/"), deep=True)
        keys = [name for name, _ in entries if name == key or name.startswith(below)]
        if keys:
            tried(lambda: self._store.delete(bucket, keys), path, "removed")

    def _entries(self, path: str, bucket: str, prefix: str, *, deep: bool) -> Sequence[tuple[str, int]]:
        return tried(lambda: tuple(self._store.entries(bucket, prefix, deep=deep)), path, "listed")

    def _upload(self, source: BinaryIO, size_bytes: int, path: str) -> None:
        bucket, key = split_path(path)
        tried(lambda: self._store.upload(bucket, key, source, size_bytes), path, "written")


class _BeamFiles(_Files):
    """Files of a file system that is reached through Beam."""

    def __init__(self, options: tuple[str, ...]):
        self._options = options

    def stat(self, path: str) -> FileState | None:
        with self._errors(path, "read"):
            if not FileSystems.exists(path):
                return None
            system = FileSystems.get_filesystem(path)
            found = system.metadata(path)
            return FileState(
                found.size_in_bytes, f"{system.checksum(path)}, changed at {found.last_updated_in_seconds} s"
            )

    def open(self, path: str) -> BinaryIO:
        with self._errors(path, "read"):
            file: BinaryIO = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            return file

    def open_range(self, path: str, start: int, end: int, version: str) -> BinaryIO:
        file = self.open(path)
        file.seek(start)
        return file

    def find(self, pattern: str) -> list[str]:
        if not any(character in pattern for character in _PATTERN_CHARACTERS):
            return [pattern]
        with self._errors(pattern, "listed"):
            return sorted(entry.path for entry in FileSystems.match([pattern])[0].metadata_list)

    def read(self, path: str) -> bytes | None:
        with self._errors(path, "read"):
            if not FileSystems.exists(path):
                return None
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                content: bytes = file.read()
                return content

    def list(self, folder: str) -> list[str]:
        return sorted({path.partition("/")[0] for path in self.sizes(folder)})

    def sizes(self, folder: str) -> dict[str, int]:
        with self._errors(folder, "listed"):
            entries = FileSystems.match([folder.rstrip("/") + "/**"])[0].metadata_list
        return {entry.path.removeprefix(folder.rstrip("/") + "/"): entry.size_in_bytes for entry in entries}

    def publish(self, local_path: str, path: str) -> None:
        with open(local_path, "rb") as source:
            self._upload(source, path)

    def write(self, path: str, content: bytes) -> None:
        self._upload(io.BytesIO(content), path)

    def remove(self, path: str) -> None:
        with self._errors(path, "removed"):
            entries = FileSystems.match([path, path.rstrip("/") + "/**"])
            found = sorted({entry.path for matched in entries for entry in matched.metadata_list})
            if found:
                FileSystems.delete(found)

    def _upload(self, source: BinaryIO, path: str) -> None:
        size_bytes = 0
        with self._errors(path, "written"):
            target = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            try:
                while piece := source.read(_UPLOAD_BYTES):
                    target.write(piece)
                    size_bytes += len(piece)
                target.close()
            except BaseException:
                _abandon(target, path)
                raise
        found = self.size(path)
        if found != size_bytes:
            raise MissingResource(
                f"{path}: {found} bytes after {size_bytes:,} were written; run the same command again"
            )

    @contextmanager
    def _errors(self, path: str, done: str) -> Iterator[None]:
        """What a file system raises as one line, with the options set that it needs."""
        FileSystems.set_options(PipelineOptions(list(self._options)))
        try:
            yield
        except (UsageError, MissingResource):
            raise
        except ValueError as error:  # no such file system, or its package is missing
            raise UsageError(f"{path}: {str(error).splitlines()[0]}; install the extra gcp or aws for it") from error
        except (BeamIOError, OSError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MissingResource(f"{path}: cannot be {done} ({first_line}); run the same command again") from error


def _abandon(target: Any, path: str) -> None:
    """End a broken upload here and take away what it left.

    A stream of Beam's that is still open is finished by the garbage collector, at a time of its own: what was cut
    short would then stand where the next attempt has written the whole file.
    """
    with suppress(Exception):
        target.close()
    with suppress(Exception):  # where closing failed, the collector would try it again
        io.IOBase.close(getattr(target, "raw", target))
    with suppress(Exception):
        FileSystems.delete([path])
