"""Storage on any of Beam's file systems: gs://, s3://, hdfs:// and others, for dumps and for a build's folder.

An object store has no rename: a file is put under its final name by one upload, so a name alone says nothing, and a unit
is done only by its commit record (commits). Local paths are served by LocalStorage, which renames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from leia_beam.errors import MissingResource, UsageError
from leia_beam.storage import FileState, LocalStorage, Storage

_UPLOAD_BYTES = 8 << 20


def is_remote(path: str) -> bool:
    """Whether a path names a file system of Beam's.

    >>> is_remote("gs://dumps/x.bz2"), is_remote("/data/x.bz2")
    (True, False)
    """
    return "://" in path


def storage_of(path: str, beam_options: Sequence[str] = ()) -> Storage:
    """The storage that a path lies on. `beam_options` are Beam's own, such as `--s3_endpoint_url=…`."""
    return BeamStorage(tuple(beam_options)) if is_remote(path) else LocalStorage()


class BeamStorage:
    """See Storage. A value holds the options alone, so that it reaches workers whole."""

    def __init__(self, options: tuple[str, ...] = ()):
        self._options = options

    def __reduce__(self) -> tuple[type[BeamStorage], tuple[tuple[str, ...]]]:
        return BeamStorage, (self._options,)

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

    def find(self, pattern: str) -> list[str]:
        if not any(character in pattern for character in "*?["):
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

    def size(self, path: str) -> int | None:
        found = self.stat(path)
        return found.size_bytes if found is not None else None

    def list(self, folder: str) -> list[str]:
        with self._errors(folder, "listed"):
            entries = FileSystems.match([folder.rstrip("/") + "/**"])[0].metadata_list
        inside = (entry.path.removeprefix(folder.rstrip("/") + "/") for entry in entries)
        return sorted({path.partition("/")[0] for path in inside})

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
            while piece := source.read(_UPLOAD_BYTES):
                target.write(piece)
                size_bytes += len(piece)
            target.close()
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
