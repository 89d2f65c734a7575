"""From finished shards to flat memory-mapped columns that any process reads at random.

The columns are written once into OUTPUT/store-<first 8 of the fingerprint>. The store has sums of its own: a damaged one is
built again. It holds the tokenizer too, so that what a finished run saw can be counted from its folder alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leia_beam.console import Tell
from leia_beam.errors import DamagedInput, UsageError
from leia_train.draws import wiki_key
from leia_train.files import fsync_folder, sha256_of
from leia_train.insertion import EDGE_BITS, Documents, offsets_of, ranges
from leia_train.shard_folders import BuildTokenizer, ShardFolder
from leia_train.store_columns import CATEGORIES, COLUMNS, map_column, write_columns

STORE_VERSION = 3
_DESCRIPTION = "_store.json"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_LONG_PIECE = 64
"""Tokens from which on copying a slice (0.3 µs) is faster than an index for each of them (5 to 8 ns)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """A column of words: for each entity (E,) the number of its word."""

    codes: NDArray[np.uint16]
    words: tuple[str, ...]


Picked = NDArray[np.int64] | slice
"""Some entities of the store: their indices, or a range."""
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where each of some pieces of an array begins, and its length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityNames:
    """Which tokens are the names of entities: `spans` finds those of some, so that nothing is kept for each."""

    tokens: NDArray[np.int32]
    spans: Callable[[Picked], Spans]


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """All articles of all shards, D articles with E entities, memory-mapped."""

    fingerprint: str
    tokenizer: BuildTokenizer
    documents: Documents
    entity_ordinals: NDArray[np.int32]  # (E,)
    page_ids: NDArray[np.int64]  # (D,)
    wiki_indices: NDArray[np.int32]  # (D,) into `wikis`
    wikis: tuple[str, ...]
    entity_qids: NDArray[np.int64]  # (E,) the number after Q, or NO_QID
    categories: Mapping[str, Category]  # of CATEGORIES

    def __len__(self) -> int:
        return len(self.page_ids)

    @property
    def wiki_keys(self) -> NDArray[np.uint64]:
        """The draws' key of each article's wiki (D,)."""
        return np.array([wiki_key(wiki) for wiki in self.wikis], np.uint64)[self.wiki_indices]

    def edge_bits(self, chosen: slice) -> NDArray[np.uint8]:
        """The good edges of a range of entities, as bits of `insertion`."""
        edges = self.categories["entity_edges"]
        return np.array([EDGE_BITS[word] for word in edges.words], np.uint8)[edges.codes[chosen]]

    @property
    def own_names(self) -> EntityNames:
        """The names that the shards have."""
        return EntityNames(
            tokens=self.documents.name_tokens, spans=lambda picked: spans_of(self.documents.name_offsets, picked)
        )

    def subset(
        self, picked: NDArray[np.int64], names: EntityNames | None = None
    ) -> tuple[Documents, NDArray[np.int64]]:
        """The picked articles in their order with their own names or others, and the indices of their entities."""
        whole = self.documents
        token_starts, token_lengths = spans_of(whole.token_offsets, picked)
        entity_starts, entity_lengths = spans_of(whole.entity_offsets, picked)
        entities = ranges(entity_starts, entity_lengths)
        names = self.own_names if names is None else names
        name_starts, name_lengths = names.spans(entities)
        documents = Documents(
            tokens=_pieces(whole.tokens, token_starts, token_lengths),
            token_offsets=offsets_of(token_lengths),
            entity_offsets=offsets_of(entity_lengths),
            entity_starts=whole.entity_starts[entities],
            entity_ends=whole.entity_ends[entities],
            name_tokens=names.tokens[ranges(name_starts, name_lengths)],
            name_offsets=offsets_of(name_lengths),
        )
        return documents, entities


def _pieces(values: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Pieces of an array, one after the other: copied whole where they are long, picked one by one where they are short."""
    if len(starts) and lengths.sum() >= _LONG_PIECE * len(starts):
        return np.concatenate(
            [values[start : start + length] for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
        )
    return values[ranges(starts, lengths)]


def spans_of(offsets: NDArray[np.int64], picked: Picked) -> Spans:
    """The spans of some of the pieces that offsets cut."""
    starts = offsets[:-1][picked]
    return starts, offsets[1:][picked] - starts


def store_fingerprint(folders: Sequence[ShardFolder]) -> str:
    """What the columns depend on: the manifests, in their order, and this module's format."""
    return fingerprint_of([folder.manifest_sha256 for folder in folders])


def fingerprint_of(manifests_sha256: Sequence[str]) -> str:
    """The fingerprint of a store of shards whose manifests have these sums."""
    content = json.dumps([STORE_VERSION, list(manifests_sha256)])
    return hashlib.sha256(content.encode()).hexdigest()


def open_store(folders: Sequence[ShardFolder], output: str | Path, tell: Tell | None = None) -> Store:
    """The store of these shards under `output`, built where there is none or a damaged one; `tell` is told how far it is."""
    fingerprint = store_fingerprint(folders)
    folder = store_folder(output, fingerprint)
    return find_store(folder, fingerprint) or written_store(
        folder, fingerprint, lambda: _build(folders, folder, fingerprint, tell)
    )


def store_folder(output: str | Path, fingerprint: str) -> Path:
    """Where a store stands."""
    return Path(output) / f"store-{fingerprint[:8]}"


def find_store(folder: Path, fingerprint: str) -> Store | None:
    """The store of a folder, or None where there is no whole one of this fingerprint."""
    description = _read_description(folder, fingerprint)
    return None if description is None else _map(folder, description)


def written_store(folder: Path, fingerprint: str, write: Callable[[], None]) -> Store:
    """The store that `write` leaves in a folder.

    Raises: DamagedInput where the disk gives back other bytes.
    """
    write()
    store = find_store(folder, fingerprint)
    if store is None:
        raise DamagedInput(
            f"{folder}: not as it was written a moment ago; the disk returns other bytes than it was given"
        )
    return store


def reopen_store(output: str | Path, fingerprint: str) -> Store:
    """The store that a run left under `output`, without its shards.

    Raises: UsageError where it is gone or damaged.
    """
    folder = store_folder(output, fingerprint)
    store = find_store(folder, fingerprint)
    if store is None:
        raise UsageError(f"{folder}: the run's store is gone or damaged; give its shards with --shards")
    return store


def _read_description(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The store's description, or None where there is no whole store of this fingerprint."""
    try:
        description: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_bytes())
        if description["fingerprint"] != fingerprint:
            return None
        whole = all(sha256_of(folder / name) == description["sha256"][name] for name in _files(description))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return description if whole else None


def _files(description: Mapping[str, Any]) -> list[str]:
    """The files of a store but its description."""
    config = [_TOKENIZER_CONFIG] if description["tokenizer"]["has_config"] else []
    return [*(f"{name}.bin" for name in COLUMNS), _TOKENIZER, *config]


def _map(folder: Path, description: Mapping[str, Any]) -> Store:
    columns = {name: map_column(folder / f"{name}.bin", dtype) for name, dtype in COLUMNS.items()}
    documents = Documents(**{name: columns[name] for name in Documents.__slots__})
    return Store(
        fingerprint=description["fingerprint"],
        tokenizer=_stored_tokenizer(folder, description["tokenizer"]),
        documents=documents,
        entity_ordinals=columns["entity_ordinals"],
        page_ids=columns["page_ids"],
        wiki_indices=columns["wiki_indices"],
        wikis=tuple(description["wikis"]),
        entity_qids=columns["entity_qids"],
        categories={
            name: Category(codes=columns[name], words=tuple(description["words"][name])) for name in CATEGORIES
        },
    )


def _stored_tokenizer(folder: Path, content: Mapping[str, Any]) -> BuildTokenizer:
    values = {name: value for name, value in content.items() if name != "has_config"}
    return BuildTokenizer(
        **{**values, **{name: tuple(values[name]) for name in ("document_start_ids", "document_end_ids")}},
        tokenizer_json=(folder / _TOKENIZER).read_bytes(),
        config_json=(folder / _TOKENIZER_CONFIG).read_bytes() if content["has_config"] else None,
    )


def _write_tokenizer(folder: Path, tokenizer: BuildTokenizer) -> dict[str, Any]:
    """Put the tokenizer's files beside the columns; what the description says of it."""
    (folder / _TOKENIZER).write_bytes(tokenizer.tokenizer_json)
    if tokenizer.config_json is not None:
        (folder / _TOKENIZER_CONFIG).write_bytes(tokenizer.config_json)
    content = asdict(replace(tokenizer, tokenizer_json=b"", config_json=None))
    del content["tokenizer_json"], content["config_json"]
    return {**content, "has_config": tokenizer.config_json is not None}


def _build(folders: Sequence[ShardFolder], final: Path, fingerprint: str, tell: Tell | None) -> None:
    """Write the columns into a folder of its own name, then rename it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-store-", dir=final.parent))
    try:
        words = write_columns(folders, temporary, tell)
        finish_store(temporary, final, fingerprint, words, folders[0].tokenizer)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish_store(
    temporary: Path, final: Path, fingerprint: str, words: Mapping[str, Sequence[str]], tokenizer: BuildTokenizer
) -> None:
    """Describe the columns that stand in a folder, and give it its name; `words` are those of `wiki` and CATEGORIES."""
    description: dict[str, Any] = {
        "fingerprint": fingerprint,
        "wikis": words["wiki"],
        "words": {name: words[name] for name in CATEGORIES},
        "tokenizer": _write_tokenizer(temporary, tokenizer),
    }
    description["sha256"] = {name: sha256_of(temporary / name) for name in _files(description)}
    (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True))
    fsync_folder(temporary)
    if final.exists():
        shutil.rmtree(final)
    os.rename(temporary, final)
