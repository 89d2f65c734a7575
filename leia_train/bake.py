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
from leia_train.command_configs import BakeConfig
from leia_train.data_config import DataConfig
from leia_train.document_turns import DocumentTurns, document_turns
from leia_train.files import disk_errors, fsync_file, sha256_of, write_json
from leia_train.insertion import MARKER, NAME
from leia_train.markers import CheckpointTokenizer, add_markers
from leia_train.mixture import MixedPlan
from leia_train.opening import make_plan, open_data
from leia_train.optimization_config import OptimizationConfig
from leia_train.packing import IGNORED
from leia_train.plan import TrainingPlan

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
    opened = open_data(data)
    output = Path(config.output)
    tokenizer = add_markers(opened.tokenizer, data.markers, data.marker_text)
    wanted = _description(data, optimization, config, opened.identity())
    _check_folder(output, wanted)
    with disk_errors(output):
        (output / "data").mkdir(parents=True, exist_ok=True)
        write_json(output / _PLAN_NAME, wanted)
        plan = make_plan(opened, optimization.seed, tokenizer.markers, output, tell)
        if config.form == "text":
            report("warning: plain text does not say which tokens have no loss (markers, and names by option)")
        schema = SCHEMAS[config.form]
        if plan.is_mixed:
            schema = schema.append(pa.field("source", pa.string()))
        files, progress = [], None
        for number, count, pieces in _files(plan, optimization, config, tokenizer):
            progress = progress or Counter(tell, "bake", count, "files")
            files.append(_finish_file(output / "data", number, count, config, schema, pieces))
            progress.advance()
        _write_tokenizer(output / "tokenizer", tokenizer)
        rows = sum(file["rows"] for file in files)
        write_json(output / MANIFEST_NAME, {**wanted, "rows": rows, "files": files})
    report(f"{rows:,} rows in {len(files):,} files")
    return output


def _description(
    data: DataConfig, optimization: OptimizationConfig, config: BakeConfig, content: dict[str, Any]
) -> dict[str, Any]:
    """What the files depend on; `content` are the fingerprints of shards and sources."""
    options = {**data.identity(), **{name: value for name, value in asdict(config).items() if name != "output"}}
    options |= {"seed": optimization.seed}
    if config.form == "rows":
        options |= {"steps": optimization.steps, "batch": optimization.batch}
    made: dict[str, Any] = json.loads(json.dumps({"options": options, **content}))
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
Make = Callable[[], Iterator[Piece]]


def _files(
    plan: MixedPlan, optimization: OptimizationConfig, config: BakeConfig, tokenizer: CheckpointTokenizer
) -> Iterator[tuple[int, int, Make]]:
    """Each file: its number, the number of all files, and what makes its rows."""
    if config.form == "rows":
        total = config.rows or plan.steps(optimization.steps, optimization.batch) * optimization.batch
        starts = range(0, total, config.rows_per_file)
        for number, start in enumerate(starts):
            stop = min(start + config.rows_per_file, total)
            yield number, len(starts), partial(_packed_rows, plan, start, stop)
        return
    articles = partial(_documents if config.form == "axolotl" else _texts, tokenizer=tokenizer)
    parts = [
        (turns, first, min(first + config.rows_per_file, len(turns)))
        for turns in document_turns(plan, config.epochs)
        for first in range(0, len(turns), config.rows_per_file)
    ]
    for number, (turns, first, last) in enumerate(parts):
        yield number, len(parts), partial(_in_turn, plan, turns, first, last, articles)


def _in_turn(plan: MixedPlan, turns: DocumentTurns, first: int, last: int, articles: Articles) -> Iterator[Piece]:
    """The rows of the articles [first, last) of some turns."""
    for start in range(first, last, _DOCUMENTS_AT_ONCE):
        made: dict[int, Piece] = {}
        for number, epoch, begin, places in turns.runs(start, min(start + _DOCUMENTS_AT_ONCE, last)):
            source = plan.sources[number]
            assert source.plan is not None
            for place, piece in zip(places, articles(source.plan, epoch, begin, begin + len(places)), strict=True):
                rows = len(next(iter(piece.values())))
                made[place] = {**piece, "source": [source.name] * rows}
        yield {
            name: [value for place in sorted(made) for value in made[place][name]] for name in next(iter(made.values()))
        }


def _finish_file(
    folder: Path, number: int, count: int, config: BakeConfig, schema: pa.Schema, pieces: Make
) -> dict[str, Any]:
    """Write a file under its name unless it is there already; what the manifest says of it.

    A file under its final name is whole: it was written under another one, put on the disk and then renamed.
    """
    path = folder / f"train-{number:05d}-of-{count:05d}.{config.file_format}"
    if not path.is_file():
        temporary = folder / f"{_TEMPORARY}{path.name}"
        write = _write_parquet if config.file_format == "parquet" else _write_jsonl
        write(temporary, schema, pieces())
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


def _packed_rows(plan: MixedPlan, start: int, stop: int) -> Iterator[Piece]:
    """The rows [start, stop) of the stream."""
    for first in range(start, stop, _DOCUMENTS_AT_ONCE):
        rows = plan.rows(first, min(first + _DOCUMENTS_AT_ONCE, stop) - first)
        piece: Piece = {name: list(getattr(rows, name).astype(np.int32)) for name in SCHEMAS["rows"].names}
        if rows.sources is not None:
            piece["source"] = [plan.names[number] for number in rows.sources.tolist()]
        yield piece


Articles = Callable[[TrainingPlan, int, int, int], list[Piece]]
"""From a source's plan, an epoch's number, and which articles of it, to the rows of each."""


def _documents(plan: TrainingPlan, number: int, first: int, last: int, tokenizer: CheckpointTokenizer) -> list[Piece]:
    """The articles [first, last) of an epoch, each in rows of its own; a row's first token has no label."""
    length = plan.data.max_length
    made = plan.augmented(plan.epoch(number), first, last)
    hidden = made.kinds == MARKER
    if not plan.data.name_loss:
        hidden |= made.kinds == NAME
    labels = np.where(hidden, IGNORED, made.tokens).astype(np.int32)
    pieces = []
    for begin, end in zip(made.offsets[:-1].tolist(), made.offsets[1:].tolist(), strict=True):
        cuts = [(cut, min(cut + length, end)) for cut in range(begin, end, length)]
        labels[[start for start, _ in cuts]] = IGNORED
        pieces.append(
            {
                "input_ids": [made.tokens[start:stop] for start, stop in cuts],
                "attention_mask": [np.ones(stop - start, np.int8) for start, stop in cuts],
                "labels": [labels[start:stop] for start, stop in cuts],
            }
        )
    return pieces


def _texts(plan: TrainingPlan, number: int, first: int, last: int, tokenizer: CheckpointTokenizer) -> list[Piece]:
    """The articles [first, last) of an epoch as text, without what the tokenizer puts around one."""
    decoder = Tokenizer.from_buffer(tokenizer.tokenizer_json)
    store, epoch = plan.store, plan.epoch(number)
    skipped = len(store.tokenizer.document_start_ids)
    ended = int(plan.insertion.end_id is not None) + len(store.tokenizer.document_end_ids)
    made = plan.augmented(epoch, first, last)
    pages = epoch.order[first:last]
    return [
        {
            "wiki": [store.wikis[store.wiki_indices[page]]],
            "page_id": [int(store.page_ids[page])],
            "epoch": [epoch.number],
            "text": [decoder.decode(made.tokens[begin + skipped : end - ended].tolist(), skip_special_tokens=False)],
        }
        for page, begin, end in zip(pages.tolist(), made.offsets[:-1], made.offsets[1:], strict=True)
    ]


def _write_tokenizer(folder: Path, tokenizer: CheckpointTokenizer) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.tokenizer_json)
    (folder / "tokenizer_config.json").write_bytes(tokenizer.config_json)
