"""From a store to which name each entity would get, and how often: LEIA's own names and those of its control arms.

Arms share LEIA's draws and its places; only the tokens differ. `permuted` gives every entity another one's name, always
the same one: names are sorted by length, each takes the next one's of its length, so lengths stay (a name that is alone
in its length takes a neighbour's). `anchor` repeats the entity's own tokens. A name is identified by a hash of its tokens,
so all mentions of it go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import UsageError
from leia_train.draws import DOSE, NAME_ORDER, Floats, UInts, mix, uniform
from leia_train.insertion import ranges
from leia_train.store import NameSpans, Store

Ints = NDArray[np.int64]
_CHUNK_ENTITIES = 1 << 20


def name_keys(store: Store) -> UInts:
    """64 bits for each entity (E,) that stand for the tokens of its name."""
    documents = store.documents
    keys = np.empty(len(documents.name_offsets) - 1, np.uint64)
    for start in range(0, len(keys), _CHUNK_ENTITIES):
        offsets = documents.name_offsets[start : start + _CHUNK_ENTITIES + 1]
        lengths = np.diff(offsets)
        tokens = documents.name_tokens[offsets[0] : offsets[-1]].astype(np.uint64)
        places = ranges(np.zeros(len(lengths), np.int64), lengths).astype(np.uint64)
        sums = np.zeros(len(tokens) + 1, np.uint64)
        np.cumsum(mix(mix(places) ^ tokens), out=sums[1:])
        ends = offsets - offsets[0]
        keys[start : start + len(lengths)] = mix((sums[ends[1:]] - sums[ends[:-1]]) ^ lengths.astype(np.uint64))
    return keys


def name_spans(store: Store, names: str, seed: int) -> NameSpans | None:
    """Which tokens each entity's name is in an arm; None where it is its own.

    Raises: UsageError for `permuted` where all names are the same.
    """
    documents = store.documents
    if names == "true":
        return None
    if names == "anchor":
        counts = np.diff(documents.entity_offsets)
        starts = np.repeat(documents.token_offsets[:-1], counts) + documents.entity_starts
        lengths = documents.entity_ends.astype(np.int64) - documents.entity_starts
        return NameSpans(tokens=documents.tokens, starts=starts, lengths=lengths)
    source = permuted_sources(name_keys(store), np.diff(documents.name_offsets), seed)
    starts = documents.name_offsets[:-1]
    return NameSpans(
        tokens=documents.name_tokens, starts=starts[source], lengths=documents.name_offsets[source + 1] - starts[source]
    )


def permuted_sources(keys: UInts, lengths: Ints, seed: int) -> Ints:
    """For each entity (E,) an entity whose name it gets: never its own name's, always the same for a name."""
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    distinct_lengths = lengths[first]
    named = np.flatnonzero(distinct_lengths > 0)
    if len(named) == 1:
        raise UsageError("--names permuted: all names in the shards are the same one; nothing can be exchanged")
    order_keys = mix(mix(np.array([NAME_ORDER], np.uint64)) ^ np.uint64(seed)) ^ distinct[named]
    order = named[np.lexsort((mix(order_keys), distinct_lengths[named]))]
    target = np.arange(len(distinct))
    for start, stop in _groups(distinct_lengths[order]):
        target[order[start:stop]] = np.roll(order[start:stop], -1)
    return first[target[inverse]]


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


def insertion_probabilities(store: Store, probability: float, buckets: Sequence[float], seed: int) -> Floats | float:
    """The probability of each entity (E,): its name's bucket's where there are buckets, which are as likely as another."""
    if not buckets:
        return probability
    draws = uniform(mix(mix(mix(np.array([DOSE], np.uint64)) ^ np.uint64(seed)) ^ name_keys(store)))
    return np.asarray(buckets, np.float64)[(draws * len(buckets)).astype(np.int64)]
