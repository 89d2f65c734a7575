"""From a run's plan to files of its rows, for any other trainer: what this trainer would feed itself, row for row.

Three forms. `rows`: the packed rows (`input_ids`, `labels`, `position_ids`). `axolotl`: one document a row, one that is
longer than a row in several (`input_ids`, `attention_mask`, `labels`). `text`: the articles with their names and markers
as plain text, whose readers cannot know which tokens have no loss. Each file is a function of the plan and its number, so
a baking that was killed goes on where it stopped; `_bake.json`, with the SHA-256 of every file, is written last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from leia_beam.console import Counter, Tell
from leia_beam.errors import OtherBuild, UsageError
from leia_train.config import BakeConfig, DataConfig, OptimizationConfig
from leia_train.files import disk_errors, fsync_file, sha256_of, write_json
from leia_train.insertion import MARKER, NAME
from leia_train.markers import CheckpointTokenizer, add_markers
from leia_train.packing import IGNORED
from leia_train.plan import TrainingPlan
from leia_train.shard_folders import open_shards
from leia_train.store import open_store, store_fingerprint

Report = Callable[[str], None]
MANIFEST_NAME = "_bake.json"
_PLAN_NAME = "_plan.json"
_TEMPORARY = ".tmp-"
_OWN = ("data", "store-", _TEMPORARY, MANIFEST_NAME, _PLAN_NAME, "tokenizer")
_DOCUMENTS_AT_ONCE = 256
_LISTS = {"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())}
SCHEMAS = {
    "rows": pa.schema({**_LISTS, "position_ids": pa.list_(pa.int32())}),
    "axolotl": pa.schema(
        {"input_ids": _LISTS["input_ids"], "attention_mask": pa.list_(pa.int8()), "labels": _LISTS["labels"]}
    ),
    "text": pa.schema({"wiki": pa.string(), "page_id": pa.int64(), "epoch": pa.int64(), "text": pa.string()}),
}


def bake(
    data: DataConfig, optimization: OptimizationConfig, config: BakeConfig, *, report: Report, tell: Tell | None = None
) -> Path:
    """Write the rows; the folder. `tell` is told how far it is.

    Raises: OtherBuild where the folder holds something else; UsageError; DamagedInput for damaged shards.
    """
    folders = open_shards(data.shards)
    output = Path(config.output)
    tokenizer = add_markers(folders[0].tokenizer, data.markers, data.marker_text)
    wanted = _description(data, optimization, config, store_fingerprint(folders))
    _check_folder(output, wanted)
    with disk_errors(output):
        (output / "data").mkdir(parents=True, exist_ok=True)
        write_json(output / _PLAN_NAME, wanted)
        plan = TrainingPlan(open_store(folders, output, tell), data, optimization.seed, tokenizer.markers)
        if config.form == "text":
            report("warning: plain text does not say which tokens have no loss (markers, and names by option)")
        files, progress = [], None
        for number, count, pieces in _files(plan, optimization, config, tokenizer):
            progress = progress or Counter(tell, "bake", count, "files")
            files.append(_finish_file(output / "data", number, count, config, pieces))
            progress.advance()
        _write_tokenizer(output / "tokenizer", tokenizer)
        rows = sum(file["rows"] for file in files)
        write_json(output / MANIFEST_NAME, {**wanted, "rows": rows, "files": files})
    report(f"{rows:,} rows in {len(files):,} files")
    return output


def _description(data: DataConfig, optimization: OptimizationConfig, config: BakeConfig, store: str) -> dict[str, Any]:
    """What the files depend on."""
    options = {**asdict(data), **{name: value for name, value in asdict(config).items() if name != "output"}}
    options |= {"seed": optimization.seed}
    if config.form == "rows":
        options |= {"steps": optimization.steps, "batch": optimization.batch}
    del options["shards"]
    made: dict[str, Any] = json.loads(json.dumps({"options": options, "data_fingerprint": store}))
    return made


def _check_folder(output: Path, wanted: dict[str, Any]) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    foreign = sorted(entry.name for entry in output.glob("*") if not entry.name.startswith(_OWN))
    try:
        found = json.loads((output / _PLAN_NAME).read_bytes())
    except FileNotFoundError:
        found = None if (output / "data").exists() else wanted
    except ValueError:
        found = None
    if foreign or found != wanted:
        what = repr(foreign[0]) if foreign else "rows baked with other options or from other shards"
        raise OtherBuild(f"--output {output}: holds {what}; give an empty folder")


Piece = dict[str, list[Any]]


def _files(
    plan: TrainingPlan, optimization: OptimizationConfig, config: BakeConfig, tokenizer: CheckpointTokenizer
) -> Iterator[tuple[int, int, Callable[[], Iterator[Piece]]]]:
    """Each file: its number, the number of all files, and what makes its rows."""
    if config.form == "rows":
        total = config.rows or plan.steps(optimization.steps, optimization.batch) * optimization.batch
        starts = range(0, total, config.rows_per_file)
        for number, start in enumerate(starts):
            stop = min(start + config.rows_per_file, total)
            yield number, len(starts), partial(_packed_rows, plan, start, stop)
        return
    make = _documents if config.form == "axolotl" else _texts
    per_epoch = -(-len(plan.training_documents) // config.rows_per_file)
    for number in range(config.epochs * per_epoch):
        epoch, first = divmod(number, per_epoch)
        first *= config.rows_per_file
        last = min(first + config.rows_per_file, len(plan.training_documents))
        yield (
            number,
            config.epochs * per_epoch,
            partial(make, plan, epoch, first, last, tokenizer),
        )


def _finish_file(
    folder: Path, number: int, count: int, config: BakeConfig, pieces: Callable[[], Iterator[Piece]]
) -> dict[str, Any]:
    """Write a file under its name unless it is there already; what the manifest says of it.

    A file under its final name is whole: it was written under another one, put on the disk and then renamed.
    """
    path = folder / f"train-{number:05d}-of-{count:05d}.{config.file_format}"
    if not path.is_file():
        temporary = folder / f"{_TEMPORARY}{path.name}"
        write = _write_parquet if config.file_format == "parquet" else _write_jsonl
        write(temporary, SCHEMAS[config.form], pieces())
        fsync_file(temporary)
        os.replace(temporary, path)
        fsync_file(folder)
    return {
        "path": f"data/{path.name}",
        "rows": _count_rows(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def _write_parquet(path: Path, schema: pa.Schema, pieces: Iterator[Piece]) -> None:
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for piece in pieces:
            writer.write_table(pa.table(piece, schema=schema))


def _write_jsonl(path: Path, schema: pa.Schema, pieces: Iterator[Piece]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for piece in pieces:
            for values in zip(*(piece[name] for name in schema.names), strict=True):
                stream.write(json.dumps(dict(zip(schema.names, values, strict=True)), ensure_ascii=False) + "\n")


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pq.ParquetFile(path).metadata.num_rows)
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def _packed_rows(plan: TrainingPlan, start: int, stop: int) -> Iterator[Piece]:
    """The rows [start, stop) of the stream."""
    for first in range(start, stop, _DOCUMENTS_AT_ONCE):
        rows = plan.rows(first, min(first + _DOCUMENTS_AT_ONCE, stop) - first)
        yield {name: list(getattr(rows, name).astype(np.int32)) for name in SCHEMAS["rows"].names}


def _documents(
    plan: TrainingPlan, number: int, first: int, last: int, tokenizer: CheckpointTokenizer
) -> Iterator[Piece]:
    """The articles [first, last) of an epoch, each in rows of its own; a row's first token has no label."""
    epoch, length = plan.epoch(number), plan.data.max_length
    for start in range(first, last, _DOCUMENTS_AT_ONCE):
        made = plan.augmented(epoch, start, min(start + _DOCUMENTS_AT_ONCE, last))
        hidden = made.kinds == MARKER
        if not plan.data.name_loss:
            hidden |= made.kinds == NAME
        labels = np.where(hidden, IGNORED, made.tokens).astype(np.int32)
        cuts = [
            (cut, min(cut + length, end))
            for begin, end in zip(made.offsets[:-1].tolist(), made.offsets[1:].tolist(), strict=True)
            for cut in range(begin, end, length)
        ]
        labels[[begin for begin, _ in cuts]] = IGNORED
        yield {
            "input_ids": [made.tokens[begin:end] for begin, end in cuts],
            "attention_mask": [np.ones(end - begin, np.int8) for begin, end in cuts],
            "labels": [labels[begin:end] for begin, end in cuts],
        }


def _texts(plan: TrainingPlan, number: int, first: int, last: int, tokenizer: CheckpointTokenizer) -> Iterator[Piece]:
    """The articles [first, last) of an epoch as text, without what the tokenizer puts around one."""
    decoder = Tokenizer.from_buffer(tokenizer.tokenizer_json)
    store, epoch = plan.store, plan.epoch(number)
    skipped = len(store.tokenizer.document_start_ids)
    ended = int(plan.insertion.end_id is not None) + len(store.tokenizer.document_end_ids)
    for start in range(first, last, _DOCUMENTS_AT_ONCE):
        stop = min(start + _DOCUMENTS_AT_ONCE, last)
        made = plan.augmented(epoch, start, stop)
        pages = epoch.order[start:stop]
        texts = [
            decoder.decode(made.tokens[begin + skipped : end - ended].tolist(), skip_special_tokens=False)
            for begin, end in zip(made.offsets[:-1], made.offsets[1:], strict=True)
        ]
        yield {
            "wiki": [store.wikis[index] for index in store.wiki_indices[pages]],
            "page_id": store.page_ids[pages].tolist(),
            "epoch": [epoch.number] * len(texts),
            "text": texts,
        }


def _write_tokenizer(folder: Path, tokenizer: CheckpointTokenizer) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.tokenizer_json)
    (folder / "tokenizer_config.json").write_bytes(tokenizer.config_json)
