"""From the options of a run's data to its plan: shards and sources are found and checked, then their stores are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from leia_beam.console import Tell
from leia_beam.errors import UsageError
from leia_beam.manifest import MANIFEST_NAME
from leia_train.data_config import DataConfig
from leia_train.files import disk_errors, sha256_of
from leia_train.insertion import Markers
from leia_train.mix_sources import MixSource
from leia_train.mixture import MixedPlan, sources_of
from leia_train.plan import TrainingPlan
from leia_train.runs import SOURCES
from leia_train.shard_folders import BuildTokenizer, ShardFolder, open_shards
from leia_train.store import Store, fingerprint_of, open_store, store_fingerprint
from leia_train.text_sources import TextSource, open_texts
from leia_train.text_store import open_text_store

_OF_SHARDS = ("strategy", "probability", "names", "entities")
_OF_TEXTS = ("column", "documents")


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedData:
    """Shards and sources whose files are as they should be; a source without a share is not looked at."""

    data: DataConfig
    folders: list[ShardFolder]
    sources: tuple[tuple[MixSource, ShardFolder | TextSource], ...]

    @property
    def tokenizer(self) -> BuildTokenizer:
        """Of the shards, which is the same in all folders."""
        return self.folders[0].tokenizer

    def identity(self) -> dict[str, Any]:
        """The fingerprints of what is read, for the identity of a run."""
        found: dict[str, Any] = {"data_fingerprint": store_fingerprint(self.folders)}
        sources = {source.name: _fingerprint(opened) for source, opened in self.sources}
        return {**found, SOURCES: sources} if sources else found


def open_data(data: DataConfig) -> OpenedData:
    """What a run reads, with every file checked.

    Raises: UsageError; DamagedInput.
    """
    folders = open_shards(data.shards)
    sources = tuple((source, _open_source(source, folders[0])) for source in data.sources if source.share)
    return OpenedData(data=data, folders=folders, sources=sources)


def is_of_shards(source: MixSource) -> bool:
    """Whether a source's path is a folder of finished shards.

    Raises: UsageError for a build's folder.
    """
    path = Path(source.path)
    if not path.is_dir() or (path / MANIFEST_NAME).is_file():
        return path.is_dir()
    if (path / "shards" / MANIFEST_NAME).is_file():
        raise UsageError(f"--mix {source.name}: {path} is a build's folder; give {path / 'shards'}")
    return False


def source_fingerprints(data: DataConfig) -> dict[str, Any]:
    """What `identity` says of the sources, from the shards' manifests alone and from sums that are remembered.

    Raises: UsageError where a source is not there.
    """
    found = {source.name: source_fingerprint(source) for source in data.sources if source.share}
    return {SOURCES: found} if found else {}


@lru_cache(maxsize=64)
def source_fingerprint(source: MixSource) -> str:
    """What a source holds, whatever its share and settings.

    Raises: UsageError where it is not there.
    """
    if is_of_shards(source):
        return fingerprint_of([sha256_of(Path(source.path) / MANIFEST_NAME)])
    return open_texts(source).fingerprint


def _fingerprint(opened: ShardFolder | TextSource) -> str:
    return opened.fingerprint if isinstance(opened, TextSource) else store_fingerprint([opened])


def _open_source(source: MixSource, first: ShardFolder) -> ShardFolder | TextSource:
    is_shards = is_of_shards(source)
    for setting in _OF_TEXTS if is_shards else _OF_SHARDS:
        if getattr(source, setting) != MixSource.__dataclass_fields__[setting].default:
            what = "shards, which have no such setting" if is_shards else "text, which has no entities to insert at"
            raise UsageError(f"--mix {source.name}: {setting}={getattr(source, setting)} is given for {what}")
    if not is_shards:
        return open_texts(source)
    (folder,) = open_shards([source.path])
    if folder.tokenizer.fingerprint != first.tokenizer.fingerprint:
        raise UsageError(
            f"--mix {source.name}: {folder.path} was built with tokenizer {folder.tokenizer.name}, {first.path} with "
            f"{first.tokenizer.name}; build both with the same --tokenizer"
        )
    return folder


def make_plan(
    opened: OpenedData, seed: int, markers: Markers | None, output: Path, tell: Tell | None = None
) -> MixedPlan:
    """The plan of a run that writes to `output`; stores that are missing are written."""
    data = opened.data
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        store = open_store(opened.folders, output, tell)
        stores = {source.name: _source_store(opened, files, output, tell) for source, files in opened.sources}
    return mixed_plan(store, stores, data, seed, markers)


def mixed_plan(
    store: Store, stores: Mapping[str, Store | None], data: DataConfig, seed: int, markers: Markers | None
) -> MixedPlan:
    """The plan of a run on the shards' store and those of its sources; a source without a share is left out."""
    main = TrainingPlan(store, data, seed, markers)
    others: list[tuple[MixSource, TrainingPlan | None]] = []
    for source in data.sources:
        if not source.share:
            continue
        of_source = stores[source.name]
        flag = f"--mix {source.name}"
        plan = None
        if of_source is not None:
            plan = TrainingPlan(of_source, data.of_source(source), seed, markers, flag)
        others.append((source, plan))
    return MixedPlan(sources_of(main, others))


def _source_store(opened: OpenedData, files: ShardFolder | TextSource, output: Path, tell: Tell | None) -> Store:
    if isinstance(files, ShardFolder):
        return open_store([files], output, tell)
    return open_text_store(files, opened.tokenizer, Path(opened.data.mix_store or output), tell)
