"""From what identifies an article or an entity to uniform numbers: a hash, no state.

A draw depends on the seed, the epoch, the wiki, the page and the entity's ordinal alone. So it is the same for any number
of processes, in any order of the shards, after a resume, and for each strategy (arms of a comparison share their draws).
The hash is splitmix64's finaliser (Steele et al. 2014), chained over the parts.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]
Floats = NDArray[np.float64]

INSERTION, ORDER, VALIDATION, DOSE, NAME_ORDER = 1, 2, 3, 4, 5
"""The purposes of draws: each has numbers of its own."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(values: UInts) -> UInts:
    """splitmix64 of each value.

    >>> [hex(value) for value in mix(np.array([0, 1], np.uint64))]
    ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1']
    """
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def wiki_key(wiki: str) -> int:
    """64 bits that stand for a wiki."""
    return int.from_bytes(hashlib.sha256(wiki.encode()).digest()[:8], "little")


def document_keys(wiki_keys: UInts, page_ids: NDArray[np.int64], purpose: int, seed: int = 0, epoch: int = 0) -> UInts:
    """64 bits for each document (D,), for one purpose, seed and epoch."""
    start = np.array([purpose], np.uint64)
    for part in (seed, epoch):
        start = mix(start) ^ np.uint64(part)
    return mix(mix(mix(start) ^ wiki_keys) ^ page_ids.astype(np.uint64))


def uniform(keys: UInts) -> Floats:
    """Numbers in [0, 1) from the upper 53 bits."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


def entity_draws(keys: UInts, entity_counts: NDArray[np.int64], ordinals: NDArray[np.int32]) -> Floats:
    """A number in [0, 1) for each entity (E,) of documents with `keys` (D,), each with `entity_counts` (D,)."""
    return uniform(mix(np.repeat(keys, entity_counts) ^ ordinals.astype(np.uint64)))


def shuffled(keys: UInts) -> NDArray[np.int64]:
    """Indices in the order of their keys: a permutation that does not depend on numpy's generators."""
    return np.argsort(keys, kind="stable")
