"""From the rows of shards to those that break a promise: what every reader of them may rely on, looked at row by row.

All rules are over whole columns, so that a million rows take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.alignment import EDGES
from leia_beam.records import BLOCKS, KINDS
from leia_beam.shard_rows import ENTITY_COLUMNS

_QID = r"^Q[1-9][0-9]*$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectations:
    """What a shard's rows must agree with: the manifest's word and the tokenizer's added tokens."""

    wiki: str
    vocabulary_size: int
    document_start_ids: Sequence[int]
    document_end_ids: Sequence[int]
    added_ids: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RowSums:
    """What the rows come to, to be compared with the counters."""

    counts: Counter[str]
    page_ids: list[np.ndarray]


def broken_rows(batch: pa.RecordBatch, expected: Expectations) -> Iterator[tuple[str, np.ndarray]]:
    """(rule, the rows of the batch that break it), for each rule that is broken.

    Rows whose lists do not fit together are looked at no further.
    """
    lists = {name: batch.column(name) for name in ("input_ids", *ENTITY_COLUMNS)}
    lengths = {name: _lengths(column) for name, column in lists.items()}
    entities = lengths[ENTITY_COLUMNS[0]]
    uneven = np.any([lengths[name] != entities for name in ENTITY_COLUMNS], axis=0)
    yield from _found("the lists about entities have different lengths", uneven)
    if uneven.any():
        batch = batch.filter(pa.array(~uneven))
        kept = np.flatnonzero(~uneven)
        for rule, rows in broken_rows(batch, expected):
            yield rule, kept[rows]
        return
    yield from _broken_pages(batch, expected)
    yield from _broken_tokens(batch, lengths["input_ids"], expected)
    yield from _broken_spans(batch, lengths["input_ids"], entities, expected)
    yield from _broken_names(batch, entities, expected)
    yield from _broken_categories(batch, entities)


def _broken_pages(batch: pa.RecordBatch, expected: Expectations) -> Iterator[tuple[str, np.ndarray]]:
    yield from _found(f"the wiki is not {expected.wiki}", _mask(pc.not_equal(batch.column("wiki"), expected.wiki)))
    yield from _found("the page id is not positive", batch.column("page_id").to_numpy() <= 0)
    yield from _found("the title is empty", _mask(pc.equal(batch.column("title"), "")))
    is_bad = pc.fill_null(pc.invert(pc.match_substring_regex(batch.column("qid"), _QID)), False)
    yield from _found("the qid is none", _mask(is_bad))


def _broken_tokens(
    batch: pa.RecordBatch, lengths: np.ndarray, expected: Expectations
) -> Iterator[tuple[str, np.ndarray]]:
    ids, rows = _flat(batch, "input_ids", lengths)
    outside = (ids < 0) | (ids >= expected.vocabulary_size)
    yield from _found_in(rows, outside, "a token id is outside the vocabulary", len(batch))
    at = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    before, behind = len(expected.document_start_ids), len(expected.document_end_ids)
    inside = (at >= before) & (at < np.repeat(lengths, lengths) - behind)
    special = inside & np.isin(ids, expected.added_ids)
    yield from _found_in(rows, special, "a text has an added token of the tokenizer", len(batch))
    wrong = lengths < before + behind
    first = np.cumsum(lengths) - lengths
    for number, token_id in enumerate(expected.document_start_ids):
        wrong |= _differs(ids, first + number, token_id, wrong)
    for number, token_id in enumerate(expected.document_end_ids):
        wrong |= _differs(ids, first + lengths - behind + number, token_id, wrong)
    yield from _found("the text does not begin or end with the document's own tokens", wrong)


def _differs(ids: np.ndarray, places: np.ndarray, token_id: int, skipped: np.ndarray) -> np.ndarray:
    safe = np.where(skipped, 0, places)
    return (ids[safe] != token_id) & ~skipped if len(ids) else np.zeros(len(places), bool)


def _broken_spans(
    batch: pa.RecordBatch, lengths: np.ndarray, entities: np.ndarray, expected: Expectations
) -> Iterator[tuple[str, np.ndarray]]:
    starts, rows = _flat(batch, "entity_start_positions", entities)
    ends, _ = _flat(batch, "entity_end_positions", entities)
    yield from _found_in(rows, starts >= ends, "a span is empty", len(batch))
    first, last = len(expected.document_start_ids), np.repeat(lengths, entities) - len(expected.document_end_ids)
    outside = (starts < first) | (ends > last)
    yield from _found_in(rows, outside, "a span is outside the text", len(batch))
    overlaps = np.zeros(len(starts), bool)
    overlaps[1:] = (starts[1:] < ends[:-1]) & (rows[1:] == rows[:-1])
    yield from _found_in(rows, overlaps, "spans overlap or are not sorted", len(batch))
    ordinals, _ = _flat(batch, "entity_ordinals", entities)
    yield from _found_in(rows, ordinals < 0, "an ordinal is negative", len(batch))
    order = np.lexsort((ordinals, rows))
    twice = np.zeros(len(ordinals), bool)
    twice[order[1:]] = (ordinals[order[1:]] == ordinals[order[:-1]]) & (rows[order[1:]] == rows[order[:-1]])
    yield from _found_in(rows, twice, "two entities have one ordinal", len(batch))


def _broken_names(
    batch: pa.RecordBatch, entities: np.ndarray, expected: Expectations
) -> Iterator[tuple[str, np.ndarray]]:
    names = pc.list_flatten(batch.column("alternative_entity_input_ids"))
    lengths, rows = _lengths(names), np.repeat(np.arange(len(batch)), entities)
    yield from _found_in(rows, lengths == 0, "a name has no token", len(batch))
    ids, rows_of_ids = pc.list_flatten(names).to_numpy(zero_copy_only=False), np.repeat(rows, lengths)
    outside = (ids < 0) | (ids >= expected.vocabulary_size)
    yield from _found_in(rows_of_ids, outside, "a name's token id is outside the vocabulary", len(batch))
    special = np.isin(ids, expected.added_ids)
    yield from _found_in(rows_of_ids, special, "a name has an added token of the tokenizer", len(batch))


def _broken_categories(batch: pa.RecordBatch, entities: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    rows = np.repeat(np.arange(len(batch)), entities)
    for name, known in (("entity_edges", EDGES), ("entity_kinds", KINDS), ("entity_blocks", BLOCKS)):
        is_known = pc.is_in(pc.list_flatten(batch.column(name)), value_set=pa.array(known))
        yield from _found_in(rows, ~_mask(is_known), f"{name} has an unknown value", len(batch))
    for name in ("entity_name_languages", "entity_name_sources"):
        is_empty = _mask(pc.equal(pc.list_flatten(batch.column(name)), ""))
        yield from _found_in(rows, is_empty, f"{name} has an empty value", len(batch))
    qids = pc.list_flatten(batch.column("entity_qids"))
    is_bad = pc.fill_null(pc.invert(pc.match_substring_regex(qids, _QID)), False)
    yield from _found_in(rows, _mask(is_bad), "an entity's qid is none", len(batch))


def count_rows(batch: pa.RecordBatch, sums: RowSums) -> None:
    """Add what the counters of the manifest say of the rows."""
    kinds: Mapping[str, int] = {
        entry["values"]: entry["counts"]
        for entry in pc.value_counts(pc.list_flatten(batch.column("entity_kinds"))).to_pylist()
    }
    mentions = kinds.get("later mention", 0)
    sums.counts["articles/emitted"] += len(batch)
    sums.counts["tokens/emitted"] += int(_lengths(batch.column("input_ids")).sum())
    sums.counts["anchors/emitted"] += sum(kinds.values()) - mentions
    sums.counts["mentions/emitted"] += mentions
    sums.page_ids.append(batch.column("page_id").to_numpy())


def _lengths(column: Any) -> np.ndarray:
    lengths: np.ndarray = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    return lengths


def _flat(batch: pa.RecordBatch, name: str, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a list column, and the row of each."""
    values = pc.list_flatten(batch.column(name)).to_numpy(zero_copy_only=False)
    return values, np.repeat(np.arange(len(batch)), lengths)


def _mask(values: Any) -> np.ndarray:
    mask: np.ndarray = values.to_numpy(zero_copy_only=False).astype(bool)
    return mask


def _found(rule: str, broken: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if broken.any():
        yield rule, np.flatnonzero(broken)


def _found_in(rows: np.ndarray, broken: np.ndarray, rule: str, count: int) -> Iterator[tuple[str, np.ndarray]]:
    of_rows = np.zeros(count, bool)
    of_rows[rows[broken]] = True
    yield from _found(rule, of_rows)
