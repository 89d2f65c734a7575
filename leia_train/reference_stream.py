"""From a seed to the draws and the order that the reference implementation makes, number for number.

The reference draws with one Python `random.Random(seed)` that is never reset: once for each entity in the order in which
it meets them, the articles in the order of `numpy.random.default_rng(seed + epoch).permutation(n)` (which is what
datasets' shuffle does), the entities of an article from its last to its first. numpy's MT19937 gives the same numbers
from the same state, 100 million of them in a second, so an epoch's draws are made some millions at a time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leia_train.insertion import lengths_of, offsets_of, ranges

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_CHUNK_DRAWS = 1 << 20


def reference_order(seed: int, epoch: int, count: int) -> Ints:
    """The order of `count` articles in an epoch."""
    return np.random.default_rng(seed + epoch).permutation(count)


class ReferenceDraws:
    """The reference's generator, with its state at the beginning of each epoch seen so far."""

    def __init__(self, seed: int, entity_count: int):
        state = random.Random(seed).getstate()[1]
        generator = np.random.RandomState(0)
        generator.set_state(("MT19937", np.array(state[:-1], np.uint32), state[-1], 0, 0.0))
        self._generator = generator
        self._states = [generator.get_state()]
        self._entity_count = entity_count

    def of_epoch(self, epoch: int, order: Ints, entity_offsets: Ints) -> Iterator[tuple[Ints, Floats]]:
        """Some entities at a time and their draws, in an epoch whose articles come in `order` (D,)."""
        while len(self._states) <= epoch:
            self._generator.set_state(self._states[-1])
            for start in range(0, self._entity_count, _CHUNK_DRAWS):
                self._generator.random_sample(min(_CHUNK_DRAWS, self._entity_count - start))
            self._states.append(self._generator.get_state())
        self._generator.set_state(self._states[epoch])
        begun = offsets_of(lengths_of(entity_offsets)[order])
        cuts = begun.searchsorted(np.arange(_CHUNK_DRAWS, self._entity_count, _CHUNK_DRAWS)).tolist()
        for first, last in pairwise([0, *cuts, len(order)]):
            entities = entities_in_turn(order[first:last], entity_offsets)
            yield entities, self._generator.random_sample(len(entities))


def entities_in_turn(order: Ints, entity_offsets: Ints) -> Ints:
    """The entities of some articles as the reference meets them: one by one, in each from the last to the first.

    >>> entities_in_turn(np.array([1, 0]), np.array([0, 2, 5])).tolist()
    [4, 3, 2, 1, 0]
    """
    starts, ends = entity_offsets[order], entity_offsets[order + 1]
    counts = ends - starts
    return (starts + ends - 1).repeat(counts) - ranges(starts, counts)
