"""From a store and a seed to an endless stream of packed rows with random access to each of them.

An epoch is all training articles in an order of its own with draws of its own; the stream is epoch after epoch, and row i
is its tokens [i x T, (i + 1) x T), so what is left at an epoch's end is carried over. A plan knows the length of each
augmented article before any is made, so resume costs nothing, and any world size that divides the batch has the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import UsageError
from leia_train.config import DataConfig
from leia_train.draws import INSERTION, ORDER, VALIDATION, document_keys, entity_draws, shuffled, uniform
from leia_train.insertion import Insertion, growth, insert_names, offsets_of, usable
from leia_train.packing import PackedRows, Stretch, pack
from leia_train.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class _Epoch:
    """One epoch: which entities get their names, the articles in their order, and where each begins in the stream."""

    number: int
    start: int  # of its first token in the stream
    inserted: NDArray[np.bool_]  # (E,) of the store
    order: NDArray[np.int64]  # (D,) articles of the store
    offsets: NDArray[np.int64]  # (D + 1,) from the epoch's first token

    @property
    def end(self) -> int:
        return self.start + int(self.offsets[-1])


class TrainingPlan:
    """The packed rows of a run. `marker_ids` are None where names go in without markers."""

    def __init__(self, store: Store, data: DataConfig, seed: int, marker_ids: tuple[int, int] | None):
        self.store = store
        self.data = data
        self.seed = seed
        self.insertion = Insertion(
            strategy=data.strategy,
            marker_ids=marker_ids,
            end_id=None if data.cross_document else store.tokenizer.eos_id,
        )
        held_out = validation_mask(store, data.validation_share)
        self.training_documents = np.flatnonzero(~held_out)
        self.validation_documents = np.flatnonzero(held_out)
        name_lengths = np.diff(store.documents.name_offsets)
        self._usable = usable(data.strategy, store.entity_edge_bits, name_lengths)
        self._growth = growth(self.insertion, store.documents.entity_starts, store.documents.entity_ends, name_lengths)
        self._epoch_starts = [0]
        self._cached: dict[int, _Epoch] = {}
        if self._epoch(0).end == 0:
            raise UsageError(
                f"--shards: no tokens to train on ({len(store):,} articles, {len(self.validation_documents):,} of them "
                "kept out by --validation-share)"
            )

    @property
    def usable_entities(self) -> int:
        """Entities that the strategy can insert at."""
        return int(self._usable.sum())

    def rows(self, first: int, count: int) -> PackedRows:
        """The rows [first, first + count) of the stream."""
        length = self.data.max_length
        stretch = self._stretch(first * length, (first + count) * length)
        return pack(stretch, length, name_loss=self.data.name_loss, cross_document=self.data.cross_document)

    def epoch_of_row(self, row: int) -> int:
        """The epoch in which a row begins."""
        return self._epoch_at(row * self.data.max_length).number

    def _stretch(self, start: int, end: int) -> Stretch:
        """The tokens [start, end) of the stream."""
        pieces = []
        while start < end:
            epoch = self._epoch_at(start)
            stop = min(end, epoch.end)
            pieces.append(self._stretch_of_epoch(epoch, start - epoch.start, stop - epoch.start))
            start = stop
        return Stretch(
            tokens=np.concatenate([piece.tokens for piece in pieces]),
            kinds=np.concatenate([piece.kinds for piece in pieces]),
            positions=np.concatenate([piece.positions for piece in pieces]),
        )

    def _stretch_of_epoch(self, epoch: _Epoch, start: int, end: int) -> Stretch:
        """The tokens [start, end) of an epoch: the articles that they touch are made, and cut."""
        first = int(np.searchsorted(epoch.offsets, start, "right")) - 1
        last = int(np.searchsorted(epoch.offsets, end, "left"))
        documents, entities = self.store.subset(epoch.order[first:last])
        augmented = insert_names(documents, epoch.inserted[entities], self.insertion)
        positions = np.arange(len(augmented.tokens)) - np.repeat(augmented.offsets[:-1], np.diff(augmented.offsets))
        cut = slice(start - int(epoch.offsets[first]), end - int(epoch.offsets[first]))
        return Stretch(tokens=augmented.tokens[cut], kinds=augmented.kinds[cut], positions=positions[cut])

    def _epoch_at(self, position: int) -> _Epoch:
        """The epoch that holds a token of the stream."""
        while self._epoch_starts[-1] <= position:
            self._epoch(len(self._epoch_starts) - 1)
        return self._epoch(int(np.searchsorted(self._epoch_starts, position, "right")) - 1)

    def _epoch(self, number: int) -> _Epoch:
        """An epoch whose start is known; the two last ones used are kept, and the start of the next is noted."""
        if number not in self._cached:
            epoch = self._make_epoch(number)
            if len(self._epoch_starts) == number + 1:
                self._epoch_starts.append(epoch.end)
            while len(self._cached) >= 2:
                del self._cached[next(iter(self._cached))]
            self._cached[number] = epoch
        return self._cached[number]

    def _make_epoch(self, number: int) -> _Epoch:
        store, documents = self.store, self.store.documents
        keys = document_keys(store.wiki_keys, store.page_ids, INSERTION, self.seed, number)
        draws = entity_draws(keys, np.diff(documents.entity_offsets), store.entity_ordinals)
        inserted = self._usable & (draws < self.data.probability)
        grown = offsets_of(np.where(inserted, self._growth, 0))
        lengths = np.diff(documents.token_offsets) + (self.insertion.end_id is not None)
        lengths += grown[documents.entity_offsets[1:]] - grown[documents.entity_offsets[:-1]]
        picked = self.training_documents
        order_keys = document_keys(store.wiki_keys[picked], store.page_ids[picked], ORDER, self.seed, number)
        order = picked[shuffled(order_keys)]
        return _Epoch(
            number=number,
            start=self._epoch_starts[number],
            inserted=inserted,
            order=order,
            offsets=offsets_of(lengths[order]),
        )


def validation_mask(store: Store, share: float) -> NDArray[np.bool_]:
    """Which articles (D,) are kept out of training: the same ones for every seed and strategy."""
    return uniform(document_keys(store.wiki_keys, store.page_ids, VALIDATION)) < share
