"""From a finished or interrupted run to how often it saw each entity, and how often with its name.

Nothing is logged while training: the draws are functions of the seed, so the plan is made again and counted up to any
step. An occurrence counts when the first token of its anchor (of what was put in the anchor's place) was in a row; an
insertion counts when its first token was; its tokens, markers among them, are counted one by one.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from leia_beam.errors import UsageError
from leia_train.command_configs import ExposuresConfig
from leia_train.data_config import DataConfig
from leia_train.files import disk_errors
from leia_train.markers import add_markers
from leia_train.mix_sources import MAIN
from leia_train.mixture import MixedPlan
from leia_train.names import name_keys
from leia_train.opening import mixed_plan
from leia_train.plan import Epoch, TrainingPlan
from leia_train.runs import RUN_NAME, SOURCES, read_run, read_status
from leia_train.store import find_store, reopen_store, spans_of, store_folder
from leia_train.store_columns import NO_QID
from leia_train.text_store import find_text_store

Ints = NDArray[np.int64]
_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Of each entity (E,) of the store, until some token of the stream."""

    occurrences: NDArray[np.int32]
    insertions: NDArray[np.int32]
    inserted_tokens: NDArray[np.int32]


def count_exposures(plan: TrainingPlan, end: int) -> Counts:
    """The exposures in the first `end` tokens of the stream."""
    size = len(plan.store.entity_ordinals)
    counts = Counts(
        occurrences=np.zeros(size, np.int32),
        insertions=np.zeros(size, np.int32),
        inserted_tokens=np.zeros(size, np.int32),
    )
    number = 0
    while number == 0 or plan.epoch(number).start < end:
        epoch = plan.epoch(number)
        whole = int(np.searchsorted(epoch.offsets, end - epoch.start, "right")) - 1
        whole = min(whole, len(epoch.order))
        _add_articles(plan, epoch, epoch.order[:whole], counts)
        if whole < len(epoch.order):
            _add_cut_article(
                plan, epoch, int(epoch.order[whole]), end - epoch.start - int(epoch.offsets[whole]), counts
            )
        number += 1
    return counts


def _add_articles(plan: TrainingPlan, epoch: Epoch, articles: Ints, counts: Counts) -> None:
    """Add what is in whole articles."""
    seen = np.zeros(len(plan.store), bool)
    seen[articles] = True
    for part, entities in plan.parts():
        of_seen = seen[part].repeat(spans_of(plan.store.documents.entity_offsets, part)[1])
        inserted = of_seen & epoch.inserted[entities]
        counts.occurrences[entities] += of_seen
        counts.insertions[entities] += inserted
        counts.inserted_tokens[entities] += np.where(inserted, plan.inserted_lengths(entities), 0).astype(np.int32)


def _add_cut_article(plan: TrainingPlan, epoch: Epoch, article: int, length: int, counts: Counts) -> None:
    """Add what is in the first `length` tokens of an augmented article."""
    documents = plan.store.documents
    entities = slice(int(documents.entity_offsets[article]), int(documents.entity_offsets[article + 1]))
    inserted = epoch.inserted[entities]
    starts = documents.entity_starts[entities].astype(np.int64)
    ends = documents.entity_ends[entities].astype(np.int64)
    grown = np.where(inserted, plan.growth(entities), 0)
    before = np.cumsum(grown) - grown
    sizes = np.where(inserted, plan.inserted_lengths(entities), 0)
    insertion_at = before + (ends if plan.data.strategy == "right" else starts)
    anchor_at = before + starts + (sizes if plan.data.strategy == "left" else 0)
    counts.occurrences[entities] += anchor_at < length
    counts.insertions[entities] += inserted & (insertion_at < length)
    counts.inserted_tokens[entities] += np.clip(length - insertion_at, 0, sizes).astype(np.int32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """One entity of a source by its qid and name; `name` is its own one also where a control arm inserts another."""

    qid: str | None
    name: str
    occurrences: int
    insertions: int
    inserted_tokens: int
    source: str = MAIN


def by_entity(plan: TrainingPlan, counts: Counts, source: str = MAIN) -> Iterator[Exposure]:
    """The exposures of each qid and name, the most frequent first."""
    store = plan.store
    keys = name_keys(store, 0, len(store.entity_ordinals))
    order = np.lexsort((keys, store.entity_qids))
    if not len(order):
        return
    qids, sorted_keys = store.entity_qids[order], keys[order]
    begins = np.flatnonzero(np.append(True, (qids[1:] != qids[:-1]) | (sorted_keys[1:] != sorted_keys[:-1])))
    sums = [np.add.reduceat(getattr(counts, field.name)[order], begins, dtype=np.int64) for field in fields(Counts)]
    tokenizer = Tokenizer.from_buffer(store.tokenizer.tokenizer_json)
    first = np.minimum.reduceat(order, begins)
    for group in np.lexsort((first, -sums[0])).tolist():
        start, stop = store.documents.name_offsets[first[group] : first[group] + 2]
        qid = int(store.entity_qids[first[group]])
        yield Exposure(
            qid=None if qid == NO_QID else f"Q{qid}",
            name=tokenizer.decode(store.documents.name_tokens[start:stop].tolist()).strip(),
            occurrences=int(sums[0][group]),
            insertions=int(sums[1][group]),
            inserted_tokens=int(sums[2][group]),
            source=source,
        )


def count_sources(plan: MixedPlan, rows: int) -> Iterator[tuple[str, TrainingPlan, Counts]]:
    """The exposures in the first `rows` rows, for each source that has entities and that is there."""
    for source, count in zip(plan.sources, plan.counts(rows).tolist(), strict=True):
        if source.plan is not None and (source.plan is plan.main or len(source.plan.store.entity_ordinals)):
            yield source.name, source.plan, count_exposures(source.plan, count * plan.data.max_length)


def plan_of_run(run: Path) -> tuple[MixedPlan, dict[str, Any]]:
    """The plan of a run from its own folder, and the run's identity.

    Of the sources beside the shards, those whose stores are not in the folder are without a plan.

    Raises: UsageError where the folder holds no run or its store is gone.
    """
    if not (run / RUN_NAME).is_file():
        raise UsageError(f"{run}: holds no run (no {RUN_NAME}); give the --output of leia-train train")
    identity = read_run(run)
    store = reopen_store(run, identity["data_fingerprint"])
    names = {field.name for field in fields(DataConfig)} - {"shards"}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in identity.items() if name in names
    }
    data = DataConfig(shards=(str(run),), **values)
    tokenizer = add_markers(store.tokenizer, data.markers, data.marker_text)
    sums: dict[str, str] = identity.get(SOURCES, {})
    stores = {
        name: find_store(store_folder(run, fingerprint), fingerprint)
        or find_text_store(name, fingerprint, store.tokenizer, run)
        for name, fingerprint in sums.items()
    }
    return mixed_plan(store, stores, data, identity["seed"], tokenizer.markers), identity


def write_exposures(config: ExposuresConfig, *, report: Callable[[str], None]) -> Iterator[str]:
    """Count, and write the file or the lines of a table.

    Raises: UsageError for a step that the run did not reach.
    """
    run = Path(config.run)
    plan, identity = plan_of_run(run)
    reached = int(read_status(run).get("step", 0)) or plan.steps(identity["steps"], identity["batch"])
    step = config.step or reached
    if step > reached:
        raise UsageError(f"--step {step}: the run in {run} has {reached:,} steps; give at most that")
    tables = []
    for name, of_source, counts in count_sources(plan, step * identity["batch"]):
        among = f" of {name}" if plan.is_mixed else ""
        report(
            f"until step {step:,}{among}: {counts.occurrences.sum():,} occurrences, {counts.insertions.sum():,} "
            f"insertions, {counts.inserted_tokens.sum():,} inserted tokens"
        )
        tables.append(by_entity(of_source, counts, name))
    found = heapq.merge(*tables, key=lambda exposure: -exposure.occurrences)
    if config.output:
        with disk_errors(Path(config.output)):
            _write(Path(config.output), list(found))
        yield config.output
        return
    yield f"{'occurrences':>12} {'insertions':>11} {'tokens':>9}  name"
    for exposure, _ in zip(found, range(_SHOWN), strict=False):
        yield (
            f"{exposure.occurrences:>12,} {exposure.insertions:>11,} {exposure.inserted_tokens:>9,}  "
            f"{printable(exposure.name)} ({exposure.qid or 'no item'})" + (f", {exposure.source}" * plan.is_mixed)
        )


def printable(text: str) -> str:
    """Text without anything that a terminal would obey.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _write(path: Path, found: list[Exposure]) -> None:
    columns = [field.name for field in fields(Exposure)]
    rows = [{name: getattr(exposure, name) for name in columns} for exposure in found]
    temporary = path.with_name(f".tmp-{path.name}")
    if path.suffix == ".jsonl":
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        kinds = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.string()]
        schema = pa.schema(list(zip(columns, kinds, strict=True)))
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
    temporary.replace(path)
