"""From a store to which name each entity would get, and how often: LEIA's own names and those of its control arms.

Arms share LEIA's draws and its places; only the tokens differ. `permuted` gives every entity another one's name, always
the same one: names are sorted by length, each takes the next one's of its length, so lengths stay (a name that is alone
in its length takes a neighbour's). `anchor` repeats the entity's own tokens. A name is identified by a hash of its tokens,
so all mentions of it go together. What an arm keeps is 4 bytes an entity at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import UsageError
from leia_train.draws import DOSE, NAME_ORDER, UInts, mix, uniform
from leia_train.insertion import lengths_of, ranges
from leia_train.store import EntityNames, Picked, Spans, Store, spans_of

Ints = NDArray[np.int64]
_CHUNK_ENTITIES = 1 << 20
_MERGED_KEYS = 1 << 22


def name_keys(store: Store, start: int, stop: int) -> UInts:
    """64 bits for each entity of a range that stand for the tokens of its name."""
    documents = store.documents
    offsets = documents.name_offsets[start : stop + 1]
    lengths = lengths_of(offsets)
    tokens = documents.name_tokens[offsets[0] : offsets[-1]].astype(np.uint64)
    places = ranges(np.zeros(len(lengths), np.int64), lengths).astype(np.uint64)
    sums = np.zeros(len(tokens) + 1, np.uint64)
    np.cumsum(mix(mix(places) ^ tokens), out=sums[1:])
    ends = offsets - offsets[0]
    return mix((sums[ends[1:]] - sums[ends[:-1]]) ^ lengths.astype(np.uint64))


def name_keys_by_range(store: Store) -> Iterator[tuple[slice, UInts]]:
    """The keys of all entities, range by range."""
    count = len(store.entity_ordinals)
    for start in range(0, count, _CHUNK_ENTITIES):
        stop = min(start + _CHUNK_ENTITIES, count)
        yield slice(start, stop), name_keys(store, start, stop)


def entity_names(store: Store, arm: str, seed: int) -> EntityNames:
    """Which tokens each entity's name is in an arm.

    Raises: UsageError for `permuted` where all names are the same.
    """
    if arm == "anchor":
        return EntityNames(tokens=store.documents.tokens, spans=lambda picked: _anchor_spans(store, picked))
    if arm == "permuted":
        return _permuted_names(store, seed)
    return store.own_names


def _anchor_spans(store: Store, picked: Picked) -> Spans:
    documents = store.documents
    entities = picked if not isinstance(picked, slice) else np.arange(*picked.indices(len(store.entity_ordinals)))
    articles = documents.entity_offsets.searchsorted(entities, "right") - 1
    starts = documents.entity_starts[entities].astype(np.int64)
    return documents.token_offsets[articles] + starts, documents.entity_ends[entities] - starts


def _permuted_names(store: Store, seed: int) -> EntityNames:
    """For each entity the number of its name among the different ones, for each name an entity that lends its own."""
    distinct, first = _distinct_names(store)
    offsets = store.documents.name_offsets
    lender = first[permuted_targets(distinct, spans_of(offsets, first)[1], seed)]
    numbers = np.empty(len(store.entity_ordinals), np.int32)
    for chosen, keys in name_keys_by_range(store):
        here, places = np.unique(keys, return_inverse=True)
        numbers[chosen] = distinct.searchsorted(here)[places]
    return EntityNames(
        tokens=store.documents.name_tokens, spans=lambda picked: spans_of(offsets, lender[numbers[picked]])
    )


def _distinct_names(store: Store) -> tuple[UInts, Ints]:
    """The keys of all names, sorted, and the first entity with each."""
    keys, firsts = np.empty(0, np.uint64), np.empty(0, np.int64)
    pending = [(keys, firsts)]
    for chosen, found in name_keys_by_range(store):
        here, places = np.unique(found, return_index=True)
        pending.append((here, places + chosen.start))
        if sum(len(part) for part, _ in pending) > 2 * len(pending[0][0]) + _MERGED_KEYS:
            pending = [_merged(pending)]
    return _merged(pending)


def _merged(parts: list[tuple[UInts, Ints]]) -> tuple[UInts, Ints]:
    """The different keys of some parts, each with the entity of the first part that has it."""
    keys, places = np.unique(np.concatenate([keys for keys, _ in parts]), return_index=True)
    return keys, np.concatenate([firsts for _, firsts in parts])[places]


def permuted_targets(keys: UInts, lengths: Ints, seed: int) -> Ints:
    """For N names, by key and length in tokens, the numbers (N,) of those that they are exchanged for: never itself, one to one.

    Raises: UsageError where there is one name alone.
    """
    named = np.flatnonzero(lengths > 0)
    if len(named) == 1:
        raise UsageError("--names permuted: all names in the shards are the same one; nothing can be exchanged")
    order_keys = mix(mix(np.array([NAME_ORDER], np.uint64)) ^ np.uint64(seed)) ^ keys[named]
    order = named[np.lexsort((mix(order_keys), lengths[named]))]
    targets = np.arange(len(keys))
    for start, stop in _groups(lengths[order]):
        targets[order[start:stop]] = np.roll(order[start:stop], -1)
    return targets


def _groups(sorted_lengths: Ints) -> list[tuple[int, int]]:
    """Half-open ranges of equal lengths; one that is alone is joined with the range before it, or after the first."""
    edges = [0, *(np.flatnonzero(np.diff(sorted_lengths)) + 1).tolist(), len(sorted_lengths)]
    groups: list[tuple[int, int]] = []
    for start, stop in pairwise(edges):
        alone = stop - start == 1 or (len(groups) == 1 and groups[0] == (0, 1))
        if alone and groups:
            groups[-1] = (groups[-1][0], stop)
        elif stop > start:
            groups.append((start, stop))
    return groups


def dose_numbers(store: Store, doses: int, seed: int) -> NDArray[np.uint8]:
    """Which of so many doses each entity's name gets (E,): all are as likely, and a name always gets the same one."""
    numbers = np.empty(len(store.entity_ordinals), np.uint8)
    start = mix(mix(np.array([DOSE], np.uint64)) ^ np.uint64(seed))
    for chosen, keys in name_keys_by_range(store):
        numbers[chosen] = uniform(mix(start ^ keys)) * doses
    return numbers
