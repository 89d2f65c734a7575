"""From folders of finished shards to what a store is built from: files as the manifest says, and the build's tokenizer.

Every file is checked against its manifest (size, SHA-256) each time a run starts; its rows and columns are when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, check_file, read_manifest
from leia_train.files import sha256_of


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildTokenizer:
    """The tokenizer that made the shards: its files' content, and what the manifest says of it."""

    name: str
    tokenizer_json: bytes
    config_json: bytes | None
    fingerprint: str
    probe_fingerprint: str
    vocabulary_size: int
    document_start_ids: tuple[int, ...]
    document_end_ids: tuple[int, ...]
    """What the build put behind each article: () unless it was asked to."""
    eos_id: int | None


def padding_id(tokenizer: BuildTokenizer) -> int | None:
    """The id of the padding token that the tokenizer's own configuration names; EOS where it names none."""
    config: dict[str, Any] = json.loads(tokenizer.config_json) if tokenizer.config_json else {}
    token = config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = Tokenizer.from_buffer(tokenizer.tokenizer_json).token_to_id(token) if isinstance(token, str) else None
    return tokenizer.eos_id if found is None else found


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFolder:
    """One folder of shards, after all of its files were found to be as its manifest says."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    files: tuple[tuple[StageFile, Path], ...]
    tokenizer: BuildTokenizer


def open_shards(folders: Sequence[str]) -> list[ShardFolder]:
    """The folders, with every file checked.

    Raises: UsageError for unfinished folders, another stage, schema or tokenizer; DamagedInput for a changed file.
    """
    opened = [_open_folder(Path(folder)) for folder in folders]
    first = opened[0]
    for other in opened[1:]:
        if other.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise UsageError(
                f"{other.path}: built with tokenizer {other.tokenizer.name} ({other.tokenizer.fingerprint[:12]}…), "
                f"{first.path} with {first.tokenizer.name} ({first.tokenizer.fingerprint[:12]}…); "
                "build both with the same --tokenizer"
            )
    return opened


def _open_folder(folder: Path) -> ShardFolder:
    manifest = read_manifest(folder)
    where = folder / MANIFEST_NAME
    if manifest.stage != "shards":
        raise UsageError(f"{where}: a build's stage {manifest.stage!r}, not shards; give the folder OUTPUT/shards")
    return ShardFolder(
        path=folder,
        manifest=manifest,
        manifest_sha256=sha256_of(where),
        files=tuple((file, check_file(folder, file)) for file in manifest.files_of("train")),
        tokenizer=read_build_tokenizer(folder, manifest),
    )


def read_build_tokenizer(folder: Path, manifest: Manifest) -> BuildTokenizer:
    """The tokenizer that made the shards of a folder.

    Raises: DamagedInput.
    """
    where = folder / MANIFEST_NAME
    try:
        details = manifest.details["tokenizer"]
        return BuildTokenizer(
            name=str(details["name"]),
            tokenizer_json=_read_checked(folder / details["path"], details["sha256"]),
            config_json=_read_checked(folder / details["config_path"], details["config_sha256"])
            if details["config_path"]
            else None,
            fingerprint=str(details["fingerprint"]),
            probe_fingerprint=str(details["probe_fingerprint"]),
            vocabulary_size=int(details["vocabulary_size"]),
            document_start_ids=tuple(int(token_id) for token_id in details["document_start_ids"]),
            document_end_ids=tuple(int(token_id) for token_id in details["document_end_ids"]),
            eos_id=None if details["eos_id"] is None else int(details["eos_id"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedInput(
            f"{where}: details.tokenizer is not as expected ({error!r}); build the shards again"
        ) from error


def _read_checked(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise DamagedInput(f"{path}: missing, but the manifest lists it; copy the shards' whole folder")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DamagedInput(f"{path}: SHA-256 mismatch, {found[:12]}… instead of {sha256[:12]}…; build it again")
    return content
