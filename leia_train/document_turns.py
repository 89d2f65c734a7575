"""From the plan of a run to the articles of all of its sources in turn, for rows that hold one article each.

Packed rows have the sources' shares by rows (row_turns.py). Here a source's next article comes when those before it have
fewer tokens, for its share, than those of any other source. So of any beginning of the articles each source has its share
within the length of one article of each source. An epoch is one of the shards; what the others have fills it up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leia_train.mix_sources import SHARES_OF
from leia_train.mixture import MixedPlan

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentTurns:
    """Articles in their order (D,): the number of the source of each, the epoch, and the place in that epoch's order."""

    sources: Ints
    epochs: Ints
    places: Ints

    def __len__(self) -> int:
        return len(self.sources)

    def runs(self, first: int, last: int) -> Iterator[tuple[int, int, int, list[int]]]:
        """Of the articles [first, last): each source and epoch, its first place there, and at which turns they stand."""
        sources, epochs = self.sources[first:last], self.epochs[first:last]
        for source, epoch in sorted(set(zip(sources.tolist(), epochs.tolist(), strict=True))):
            turns = first + np.flatnonzero((sources == source) & (epochs == epoch))
            yield source, epoch, int(self.places[turns[0]]), turns.tolist()


def document_turns(plan: MixedPlan, epochs: int) -> Iterator[DocumentTurns]:
    """The articles of some epochs: an epoch at a time where there is one source, else all together."""
    if not plan.is_mixed:
        for number in range(epochs):
            places = np.arange(len(plan.main.training_documents))
            yield DocumentTurns(sources=np.zeros_like(places), epochs=np.full_like(places, number), places=places)
        return
    counted = next(source for source in plan.sources if source.share)
    assert counted.plan is not None
    end = counted.plan.epoch(epochs - 1).end / int(counted.share * SHARES_OF)
    parts = [(number, *found) for number in range(len(plan.sources)) for found in _until(plan, number, end)]
    numbers, of_epochs, keys = zip(*parts, strict=True)
    lengths = [len(part) for part in keys]
    sources = np.repeat(numbers, lengths)
    order = np.lexsort((sources, np.concatenate(keys)))  # stable: a source's articles stay in their order
    yield DocumentTurns(
        sources=sources[order],
        epochs=np.repeat(of_epochs, lengths)[order],
        places=np.concatenate([np.arange(length) for length in lengths])[order],
    )


def _until(plan: MixedPlan, number: int, end: float) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Of each epoch of a source, where its articles begin, in tokens by parts of its share: those before `end`."""
    source, epoch = plan.sources[number], 0
    assert source.plan is not None
    parts = int(source.share * SHARES_OF)
    while parts and source.plan.epoch(epoch).start / parts < end:
        begins = (source.plan.epoch(epoch).start + source.plan.epoch(epoch).offsets[:-1]) / parts
        yield epoch, begins[begins < end]
        epoch += 1
