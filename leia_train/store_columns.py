"""From the rows of shards to the flat columns of a store, each checked for what the insertion counts on.

Row group by row group, one file a column, so that memory does not grow with the wiki.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leia_beam.console import Counter, Tell
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.manifest import StageFile
from leia_beam.schema import SHARDS
from leia_train.insertion import EDGE_BITS
from leia_train.shard_folders import ShardFolder

COLUMNS: Mapping[str, str] = {
    "tokens": "<i4",
    "token_offsets": "<i8",
    "entity_offsets": "<i8",
    "entity_starts": "<i4",
    "entity_ends": "<i4",
    "entity_ordinals": "<i4",
    "name_tokens": "<i4",
    "name_offsets": "<i8",
    "page_ids": "<i8",
    "wiki_indices": "<i4",
    "entity_qids": "<i8",
    "entity_edges": "<u2",
    "entity_kinds": "<u2",
    "entity_blocks": "<u2",
    "entity_name_languages": "<u2",
    "entity_name_sources": "<u2",
}
CATEGORIES = ("entity_edges", "entity_kinds", "entity_blocks", "entity_name_languages", "entity_name_sources")
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
    "entity_qids",
    *CATEGORIES,
)
_MAX_WORDS = 2**16


def map_column(path: Path, dtype: str) -> NDArray[Any]:
    """A file of numbers as an array (n,) that is read where it is looked at."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)  # a file without bytes cannot be mapped
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # a plain array of it, whose parts are made faster


def write_columns(folders: Sequence[ShardFolder], folder: Path, tell: Tell | None = None) -> dict[str, list[str]]:
    """All columns of all shards, one file a column; by column, the words in the order of their numbers."""
    words: dict[str, list[str]] = {name: [] for name in ("wiki", *CATEGORIES)}
    streams = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}
    try:
        rows = sum(file.rows for shard_folder in folders for file, _ in shard_folder.files)
        progress = Counter(tell, "store", rows, "rows")
        ends = {name: _write_first_offset(streams[name]) for name in _OFFSETS}
        for shard_folder in folders:
            for file, path in shard_folder.files:
                for batch in _read_batches(path, file):
                    columns = _columns_of(batch, path, shard_folder.tokenizer.vocabulary_size, words)
                    for name in _OFFSETS:
                        columns[name] = columns[name][1:] + ends[name]
                        ends[name] = int(columns[name][-1]) if len(columns[name]) else ends[name]
                    for name, dtype in COLUMNS.items():
                        columns[name].astype(dtype, copy=False).tofile(streams[name])
                    progress.advance(batch.num_rows)
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
    of_entities = ("entity_end_positions", "entity_ordinals", "entity_qids", *CATEGORIES)
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
        "name_tokens": _numbers(name_tokens),
        "name_offsets": name_offsets,
        "page_ids": _numbers(batch["page_id"]),
        "wiki_indices": _numbered(batch["wiki"], words["wiki"], "wiki", path),
        "entity_qids": _qid_numbers(same_offsets["entity_qids"][1], path),
        **{name: _numbered(same_offsets[name][1], words[name], name, path) for name in CATEGORIES},
    }
    _check_edges(words["entity_edges"], path)
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


def _check_edges(words: Sequence[str], path: Path) -> None:
    unknown = sorted(str(word) for word in words if word not in EDGE_BITS)
    if unknown:
        raise UsageError(f"{path}: entity_edges holds {unknown[0]!r}, this version knows {', '.join(EDGE_BITS)}")


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
    page_ids = map_column(folder / "page_ids.bin", COLUMNS["page_ids"])
    indices = map_column(folder / "wiki_indices.bin", COLUMNS["wiki_indices"])
    order = np.lexsort((page_ids, indices))
    same = (page_ids[order][1:] == page_ids[order][:-1]) & (indices[order][1:] == indices[order][:-1])
    if same.any():
        twice = int(order[np.flatnonzero(same)[0]])
        raise UsageError(
            f"--shards: page id {int(page_ids[twice])} of {wikis[int(indices[twice])]} is there twice; "
            "give each wiki's shards once"
        )
