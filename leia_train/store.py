"""From finished shards to flat memory-mapped columns that any process reads at random.

Every shard is checked against its manifest (size, SHA-256, rows, schema) each time a run starts; then the columns are
written once into OUTPUT/store-<first 8 of the fingerprint>, row group by row group, so that memory does not grow with
the wiki. The store has sums of its own: a damaged one is built again. It holds the tokenizer too, so that what a finished
run saw can be counted from its folder alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, check_file, read_manifest
from leia_beam.schema import SHARDS
from leia_train.draws import wiki_key
from leia_train.files import fsync_folder, sha256_of
from leia_train.insertion import EDGE_BITS, Documents, offsets_of, ranges

STORE_VERSION = 2
_DESCRIPTION = "_store.json"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_COLUMNS: Mapping[str, str] = {
    "tokens": "<i4",
    "token_offsets": "<i8",
    "entity_offsets": "<i8",
    "entity_starts": "<i4",
    "entity_ends": "<i4",
    "entity_ordinals": "<i4",
    "entity_edge_bits": "|u1",
    "name_tokens": "<i4",
    "name_offsets": "<i8",
    "page_ids": "<i8",
    "wiki_indices": "<i4",
    "entity_qids": "<i8",
    "entity_kinds": "<u2",
    "entity_blocks": "<u2",
    "entity_name_languages": "<u2",
    "entity_name_sources": "<u2",
}
CATEGORIES = ("entity_kinds", "entity_blocks", "entity_name_languages", "entity_name_sources")
"""Columns whose words are kept as numbers, with the list of the words in the store's description."""
NO_QID = -1
_OFFSETS = ("token_offsets", "entity_offsets", "name_offsets")
_READ = (
    "wiki",
    "page_id",
    "input_ids",
    "entity_start_positions",
    "entity_end_positions",
    "alternative_entity_input_ids",
    "entity_ordinals",
    "entity_edges",
    "entity_qids",
    *CATEGORIES,
)
_MAX_WORDS = 2**16
_LONG_PIECE = 64
"""Tokens from which on copying a slice (0.3 µs) is faster than an index for each of them (5 to 8 ns)."""


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
    entity_edge_bits: NDArray[np.uint8]  # (E,)
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
        tokenizer=_read_tokenizer(folder, manifest),
    )


def _read_tokenizer(folder: Path, manifest: Manifest) -> BuildTokenizer:
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


def store_fingerprint(folders: Sequence[ShardFolder]) -> str:
    """What the columns depend on: the manifests, in their order, and this module's format."""
    content = json.dumps([STORE_VERSION, [folder.manifest_sha256 for folder in folders]])
    return hashlib.sha256(content.encode()).hexdigest()


def open_store(folders: Sequence[ShardFolder], output: str | Path) -> Store:
    """The store of these shards under `output`, built where there is none or a damaged one."""
    fingerprint = store_fingerprint(folders)
    folder = Path(output) / f"store-{fingerprint[:8]}"
    description = _read_description(folder, fingerprint)
    if description is None:
        _build(folders, folder, fingerprint)
        description = _read_description(folder, fingerprint)
    if description is None:
        raise DamagedInput(
            f"{folder}: not as it was written a moment ago; the disk returns other bytes than it was given"
        )
    return _map(folder, description)


def reopen_store(output: str | Path, fingerprint: str) -> Store:
    """The store that a run left under `output`, without its shards.

    Raises: UsageError where it is gone or damaged.
    """
    folder = Path(output) / f"store-{fingerprint[:8]}"
    description = _read_description(folder, fingerprint)
    if description is None:
        raise UsageError(f"{folder}: the run's store is gone or damaged; give its shards with --shards")
    return _map(folder, description)


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
    return [*(f"{name}.bin" for name in _COLUMNS), _TOKENIZER, *config]


def _map(folder: Path, description: Mapping[str, Any]) -> Store:
    columns = {name: _map_column(folder / f"{name}.bin", dtype) for name, dtype in _COLUMNS.items()}
    documents = Documents(**{name: columns[name] for name in Documents.__slots__})
    return Store(
        fingerprint=description["fingerprint"],
        tokenizer=_stored_tokenizer(folder, description["tokenizer"]),
        documents=documents,
        entity_ordinals=columns["entity_ordinals"],
        entity_edge_bits=columns["entity_edge_bits"],
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
        **{**values, "document_start_ids": tuple(values["document_start_ids"])},
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


def _map_column(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)  # a file without bytes cannot be mapped
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # a plain array of it, whose parts are made faster


def _build(folders: Sequence[ShardFolder], final: Path, fingerprint: str) -> None:
    """Write the columns into a folder of its own name, then rename it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-store-", dir=final.parent))
    try:
        words = _write_columns(folders, temporary)
        description: dict[str, Any] = {
            "fingerprint": fingerprint,
            "wikis": words.pop("wiki"),
            "words": words,
            "tokenizer": _write_tokenizer(temporary, folders[0].tokenizer),
        }
        description["sha256"] = {name: sha256_of(temporary / name) for name in _files(description)}
        (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True))
        fsync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_columns(folders: Sequence[ShardFolder], folder: Path) -> dict[str, list[str]]:
    """All columns of all shards, one file a column; by column, the words in the order of their numbers."""
    words: dict[str, list[str]] = {name: [] for name in ("wiki", *CATEGORIES)}
    streams = {name: (folder / f"{name}.bin").open("wb") for name in _COLUMNS}
    try:
        ends = {name: _write_first_offset(streams[name]) for name in _OFFSETS}
        for shard_folder in folders:
            for file, path in shard_folder.files:
                for batch in _read_batches(path, file):
                    columns = _columns_of(batch, path, shard_folder.tokenizer.vocabulary_size, words)
                    for name in _OFFSETS:
                        columns[name] = columns[name][1:] + ends[name]
                        ends[name] = int(columns[name][-1]) if len(columns[name]) else ends[name]
                    for name, dtype in _COLUMNS.items():
                        columns[name].astype(dtype, copy=False).tofile(streams[name])
    finally:
        for stream in streams.values():
            stream.close()
    _check_unique(folder, words["wiki"])
    return words


def _write_first_offset(stream: BinaryIO) -> int:
    np.zeros(1, "<i8").tofile(stream)
    return 0


def _read_batches(path: Path, file: StageFile) -> Iterator[pa.RecordBatch]:
    """The row groups of a shard, with the columns that training needs."""
    wanted = pa.schema([SHARDS.field(name) for name in _READ])
    rows = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            missing = [name for name in _READ if name not in parquet.schema_arrow.names]
            if missing:
                raise UsageError(f"{path}: lacks the columns {', '.join(missing)}; build the shards with this version")
            for number in range(parquet.num_row_groups):
                table = _cast(parquet.read_row_group(number, columns=list(_READ), use_threads=False), wanted, path)
                rows += table.num_rows
                yield from table.combine_chunks().to_batches()
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedInput(f"{path}: not readable as Parquet ({error}); build it again") from error
    if rows != file.rows:
        raise DamagedInput(f"{path}: {rows:,} rows, the manifest says {file.rows:,}; build it again")


def _cast(table: pa.Table, wanted: pa.Schema, path: Path) -> pa.Table:
    try:
        return table.select(list(_READ)).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise UsageError(
            f"{path}: columns of another type than this version's ({error}); build the shards again"
        ) from error


def _columns_of(
    batch: pa.RecordBatch, path: Path, vocabulary_size: int, words: dict[str, list[str]]
) -> dict[str, NDArray[Any]]:
    """The store's columns of some rows, checked; offsets begin at 0; `words` grow by those not seen before."""
    token_offsets, tokens = _list_parts(batch["input_ids"])
    entity_offsets, starts = _list_parts(batch["entity_start_positions"])
    of_entities = ("entity_end_positions", "entity_ordinals", "entity_edges", "entity_qids", *CATEGORIES)
    same_offsets = {name: _list_parts(batch[name]) for name in of_entities}
    names_per_row, names = _list_parts(batch["alternative_entity_input_ids"])
    name_offsets, name_tokens = _list_parts(names)
    for name, (offsets, _) in (*same_offsets.items(), ("alternative_entity_input_ids", (names_per_row, None))):
        if not np.array_equal(offsets, entity_offsets):
            raise DamagedInput(f"{path}: {name} and entity_start_positions differ in length; build it again")
    columns = {
        "tokens": _numbers(tokens),
        "token_offsets": token_offsets,
        "entity_offsets": entity_offsets,
        "entity_starts": _numbers(starts),
        "entity_ends": _numbers(same_offsets["entity_end_positions"][1]),
        "entity_ordinals": _numbers(same_offsets["entity_ordinals"][1]),
        "entity_edge_bits": _edge_bits(same_offsets["entity_edges"][1], path),
        "name_tokens": _numbers(name_tokens),
        "name_offsets": name_offsets,
        "page_ids": _numbers(batch["page_id"]),
        "wiki_indices": _numbered(batch["wiki"], words["wiki"], "wiki", path),
        "entity_qids": _qid_numbers(same_offsets["entity_qids"][1], path),
        **{name: _numbered(same_offsets[name][1], words[name], name, path) for name in CATEGORIES},
    }
    _check_ids(columns, path, vocabulary_size)
    _check_spans(columns, path)
    return columns


def _list_parts(array: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Offsets that begin at 0, and the values that they cut."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _numbers(array: pa.Array) -> NDArray[Any]:
    if array.null_count:
        raise DamagedInput("shards hold a null where a number belongs; build them again")
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _edge_bits(edges: pa.Array, path: Path) -> NDArray[np.uint8]:
    encoded = edges.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    unknown = sorted(str(word) for word in words if word not in EDGE_BITS)
    if unknown:
        raise UsageError(f"{path}: entity_edges holds {unknown[0]!r}, this version knows {', '.join(EDGE_BITS)}")
    return np.asarray(np.array([EDGE_BITS[word] for word in words], np.uint8)[_numbers(encoded.indices)])


def _numbered(array: pa.Array, words: list[str], name: str, path: Path) -> NDArray[np.int32]:
    """For each word its number in `words`, which grows."""
    encoded = array.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    known = {word: number for number, word in enumerate(words)}
    for word in found:
        if word not in known:
            known[word] = len(words)
            words.append(word)
    if len(words) > _MAX_WORDS:
        raise DamagedInput(f"{path}: {name} has more than {_MAX_WORDS:,} different words; build the shards again")
    return np.asarray(np.array([known[word] for word in found], np.int32)[_numbers(encoded.indices)])


def _qid_numbers(qids: pa.Array, path: Path) -> NDArray[np.int64]:
    """The number after Q of each qid, NO_QID for a null."""
    wrong = pc.filter(qids, pc.invert(pc.match_substring_regex(qids, "^Q[0-9]{1,18}$")))
    if len(wrong.drop_null()):
        raise DamagedInput(
            f"{path}: entity_qids holds {wrong.drop_null()[0].as_py()!r}, which is no qid; build it again"
        )
    numbers = pc.utf8_slice_codeunits(qids, 1).cast(pa.int64())
    return np.asarray(pc.fill_null(numbers, NO_QID).to_numpy(zero_copy_only=False), np.int64)


def _check_ids(columns: Mapping[str, NDArray[Any]], path: Path, vocabulary_size: int) -> None:
    for name in ("tokens", "name_tokens"):
        ids = columns[name]
        if len(ids) and not (ids.min() >= 0 and ids.max() < vocabulary_size):
            wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise DamagedInput(
                f"{path}: token id {wrong:,} outside of the tokenizer's {vocabulary_size:,} ids; build the shards again"
            )


def _check_spans(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Spans of a row must be non-empty, inside the row, sorted and apart: the insertion counts on it."""
    starts, ends = columns["entity_starts"], columns["entity_ends"]
    counts = np.diff(columns["entity_offsets"])
    rows = np.repeat(np.arange(len(counts)), counts)
    lengths = np.diff(columns["token_offsets"])[rows]
    wrong = (starts < 0) | (ends <= starts) | (ends > lengths)
    wrong[1:] |= (rows[1:] == rows[:-1]) & (starts[1:] < ends[:-1])
    if wrong.any():
        entity = int(np.flatnonzero(wrong)[0])
        page_id = int(columns["page_ids"][rows[entity]])
        raise DamagedInput(
            f"{path}: page id {page_id}: entity span [{starts[entity]}, {ends[entity]}) of {lengths[entity]} tokens is "
            "empty, outside, or not after the one before; build the shards again"
        )


def _check_unique(folder: Path, wikis: Sequence[str]) -> None:
    """No article twice: draws, order and validation go by wiki and page id."""
    page_ids = _map_column(folder / "page_ids.bin", _COLUMNS["page_ids"])
    indices = _map_column(folder / "wiki_indices.bin", _COLUMNS["wiki_indices"])
    order = np.lexsort((page_ids, indices))
    same = (page_ids[order][1:] == page_ids[order][:-1]) & (indices[order][1:] == indices[order][:-1])
    if same.any():
        twice = int(order[np.flatnonzero(same)[0]])
        raise UsageError(
            f"--shards: page id {int(page_ids[twice])} of {wikis[int(indices[twice])]} is there twice; "
            "give each wiki's shards once"
        )
