"""From a finished stage's folder to what it promises: its files with their sums, its options, its counters.

A manifest is a pure function of input contents, options and versions: no times, hosts, workers or absolute paths are in
it, so that two builds of the same input can be compared as bytes. Readers take their files from it, never from a glob.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.schema import check_version
from leia_beam.sealed_json import seal, unseal

MANIFEST_NAME = "_manifest.json"
FORMAT = "leia-manifest"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFile:
    """One file of a stage: `path` is relative to the stage's folder, with forward slashes."""

    path: str
    table: str
    unit: int
    rows: int
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path or "\0" in self.path:
            raise UsageError(f"manifest names a file outside its folder: {self.path!r}; do not use this build")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a finished stage holds. `details` is the stage's own: for shards the tokenizer's identity."""

    stage: str
    fingerprint: str
    schema_version: str
    versions: Mapping[str, str]
    inputs: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any]
    files: tuple[StageFile, ...]
    counters: Mapping[str, int]
    reject_samples: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def files_of(self, table: str) -> list[StageFile]:
        """The files of one table, in the order of their units."""
        return [file for file in self.files if file.table == table]

    def rows_of(self, table: str) -> int:
        """The number of rows of one table."""
        return sum(file.rows for file in self.files_of(table))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it stands on disk, with a checksum over itself."""
    content = {
        "format": FORMAT,
        "stage": manifest.stage,
        "fingerprint": manifest.fingerprint,
        "schema_version": manifest.schema_version,
        "versions": dict(manifest.versions),
        "inputs": [dict(entry) for entry in manifest.inputs],
        "options": dict(manifest.options),
        "files": [{name: getattr(file, name) for name in StageFile.__slots__} for file in manifest.files],
        "counters": dict(manifest.counters),
        "reject_samples": [dict(sample) for sample in manifest.reject_samples],
        "warnings": list(manifest.warnings),
        "details": dict(manifest.details),
    }
    return seal(content)


def parse_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from its bytes; `where` names it in messages.

    Raises: DamagedInput if it is no manifest or a bit of it is another; UsageError if it is of another schema version.
    """
    try:
        loaded = json.loads(content)
        if loaded["format"] != FORMAT:
            raise ValueError(f"format is {loaded['format']!r}")
        check_version(loaded["schema_version"], where)
        loaded = unseal(content)
        return Manifest(
            stage=loaded["stage"],
            fingerprint=loaded["fingerprint"],
            schema_version=loaded["schema_version"],
            versions=loaded["versions"],
            inputs=tuple(loaded["inputs"]),
            options=loaded["options"],
            files=tuple(StageFile(**entry) for entry in loaded["files"]),
            counters=loaded["counters"],
            reject_samples=tuple(loaded["reject_samples"]),
            warnings=tuple(loaded["warnings"]),
            details=loaded["details"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedInput(
            f"{where}: not a manifest of a stage ({error}); copy it again, or run `leia-beam finish`"
        ) from error


def read_manifest(stage_folder: str | Path) -> Manifest:
    """The manifest of a finished stage.

    Raises: UsageError if there is none: the stage is not finished.
    """
    path = Path(stage_folder) / MANIFEST_NAME
    if not path.is_file():
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder; give the folder of a build, in which its stages lie")
        inner = path.parent / "shards"
        hint = f"; did you mean {inner}?" if (inner / MANIFEST_NAME).is_file() else ""
        raise UsageError(f"{path}: no such file; the stage is not finished (run the same build command again){hint}")
    return parse_manifest(path.read_bytes(), str(path))


def check_file(stage_folder: str | Path, file: StageFile) -> Path:
    """The path of a file of the stage, after its size and SHA-256 were found to be as recorded.

    Raises: DamagedInput with both values; UsageError if it is a link that leads out of the folder.
    """
    path = Path(stage_folder) / file.path
    if not path.resolve().is_relative_to(Path(stage_folder).resolve()):
        raise UsageError(
            f"{path}: is a link to a file outside of its folder; copy the folder with the files themselves"
        )
    if not path.is_file():
        raise DamagedInput(f"{path}: missing, but the manifest lists it; copy the build again or run the build again")
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        raise DamagedInput(
            f"{path}: {size_bytes:,} bytes, the manifest says {file.size_bytes:,}; build it again, with --overwrite"
        )
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise DamagedInput(
            f"{path}: SHA-256 mismatch, {found[:12]}… instead of {file.sha256[:12]}…; build it again, with --overwrite"
        )
    return path
