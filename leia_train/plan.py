"""From a store and a seed to an endless stream of packed rows with random access to each of them.

An epoch is all training articles in an order of its own with draws of its own; the stream is epoch after epoch, and row i
is its tokens [i x T, (i + 1) x T), so what is left at an epoch's end is carried over. A plan knows the length of each
augmented article before any is made, so resume costs nothing, and any world size that divides the batch has the same rows.
It keeps 3 bytes an entity (which are usable; which get their names in the two epochs at hand).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import UsageError
from leia_train.data_config import DataConfig
from leia_train.draws import INSERTION, ORDER, VALIDATION, Floats, document_keys, entity_draws, shuffled, uniform
from leia_train.entity_filter import kept_entities
from leia_train.insertion import (
    END,
    TEXT,
    AugmentedDocuments,
    Insertion,
    Markers,
    growth,
    insert_names,
    lengths_of,
    offsets_of,
    usable,
)
from leia_train.names import dose_numbers, entity_names
from leia_train.packing import PackedRows, ReferenceLabels, Stretch, pack
from leia_train.reference_stream import ReferenceDraws, reference_order
from leia_train.shard_folders import padding_id
from leia_train.store import Picked, Store, spans_of

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_PART_ENTITIES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One epoch: which entities get their names, the articles in their order, and where each begins in the stream."""

    number: int
    start: int  # of its first token in the stream
    inserted: Bools  # (E,) of the store
    order: Ints  # (D,) articles of the store
    offsets: Ints  # (D + 1,) from the epoch's first token

    @property
    def end(self) -> int:
        """The token of the stream behind its last one."""
        return self.start + int(self.offsets[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochCounts:
    """What an epoch holds; `target_tokens` are the articles' own tokens, and their EOS, that are in the stream."""

    articles: int
    tokens: int
    target_tokens: int
    insertions: int


class TrainingPlan:
    """The packed rows of one source, of which `flag` tells in messages. `markers` are None where names go in without."""

    def __init__(self, store: Store, data: DataConfig, seed: int, markers: Markers | None, flag: str = "--shards"):
        self.store = store
        self.data = data
        self.seed = seed
        self.insertion = Insertion(strategy=data.strategy, markers=markers, end_id=_end_id(store, data))
        self._reference = _reference_labels(store, data, markers)
        self._draws = ReferenceDraws(seed, len(store.entity_ordinals)) if data.compat == "leia" else None
        held_out = validation_mask(store, data.validation_share)
        self.training_documents = np.flatnonzero(~held_out)
        self.validation_documents = np.flatnonzero(held_out)
        self.usable = self._usable()
        self.names = entity_names(store, data.names, seed)
        doses = data.probability_buckets
        self._doses = dose_numbers(store, len(doses), seed) if doses else None
        self._epoch_starts = [0]
        self._cached: dict[int, Epoch] = {}
        if self.epoch(0).end == 0:
            raise UsageError(
                f"{flag}: no tokens to train on ({len(store):,} articles, {len(self.validation_documents):,} of them "
                "kept out by --validation-share)"
            )

    @property
    def usable_entities(self) -> int:
        """Entities that the strategy can insert at."""
        return int(self.usable.sum())

    def inserted_lengths(self, picked: Picked) -> Ints:
        """The tokens that each of some entities adds to the stream if its name is inserted, the markers among them."""
        markers = self.insertion.markers
        return self.names.spans(picked)[1] + (sum(map(len, markers)) if markers is not None else 0)

    def growth(self, picked: Picked) -> Ints:
        """By how many tokens each of some entities lengthens its article if its name is inserted."""
        documents = self.store.documents
        lengths = self.names.spans(picked)[1]
        return growth(self.insertion, documents.entity_starts[picked], documents.entity_ends[picked], lengths)

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """All articles in ranges with about a million entities, and the range of these: memory does not grow with E."""
        offsets = self.store.documents.entity_offsets
        cuts = offsets.searchsorted(np.arange(_PART_ENTITIES, int(offsets[-1]), _PART_ENTITIES)).tolist()
        for first, last in pairwise([0, *cuts, len(self.store)]):
            yield slice(first, last), slice(int(offsets[first]), int(offsets[last]))

    def rows(self, first: int, count: int) -> PackedRows:
        """The rows [first, first + count) of the stream."""
        return self.packed(self.stretch(first, count))

    def stretch(self, first: int, count: int) -> Stretch:
        """The tokens of the rows [first, first + count) of the stream."""
        return self._stretch(first * self.data.max_length, (first + count) * self.data.max_length)

    def packed(self, stretch: Stretch) -> PackedRows:
        """Rows of whole rows' tokens, by the run's options."""
        return pack(
            stretch,
            self.data.max_length,
            name_loss=self.data.name_loss,
            cross_document=self.data.cross_document,
            reference=self._reference,
        )

    def steps(self, steps: int, batch: int) -> int:
        """The updates of a run that was asked for `steps` of `batch` rows, by its budget.

        With `target_tokens` it goes on until it has read as many of the articles' own tokens as the asked-for rows have
        tokens: what a run without any insertion reads in `steps`.
        """
        if self.data.budget == "tokens":
            return steps
        position = self.position_of_target(steps * batch * self.data.max_length)
        return -(-position // (batch * self.data.max_length))

    def position_of_target(self, target_tokens: int) -> int:
        """The length in tokens of the beginning of the stream that holds so many of the articles' own tokens.

        Raises: UsageError where the articles have none left, which names have replaced.
        """
        number = 0
        while True:
            epoch = self.epoch(number)
            offsets = offsets_of(self.target_lengths(epoch.inserted)[epoch.order])
            if target_tokens <= offsets[-1]:
                break
            if offsets[-1] == 0:
                raise UsageError("--budget target_tokens: every token of the articles is replaced by a name")
            target_tokens -= int(offsets[-1])
            number += 1
        if target_tokens <= 0:
            return epoch.start
        at = int(np.searchsorted(offsets, target_tokens, "left")) - 1
        kinds = self.augmented(epoch, at, at + 1).kinds
        own = np.cumsum((kinds == TEXT) | (kinds == END))
        within = int(np.searchsorted(own, target_tokens - int(offsets[at]), "left")) + 1
        return epoch.start + int(epoch.offsets[at]) + within

    def epoch_counts(self, number: int) -> EpochCounts:
        """The sizes of an epoch."""
        epoch = self.epoch(number)
        per_article = self._per_article(lambda chosen: epoch.inserted[chosen].astype(np.int64))
        return EpochCounts(
            articles=len(epoch.order),
            tokens=epoch.end - epoch.start,
            target_tokens=int(self.target_lengths(epoch.inserted)[epoch.order].sum()),
            insertions=int(per_article[epoch.order].sum()),
        )

    def target_lengths(self, inserted: Bools) -> Ints:
        """The tokens of each article (D,) of the store that are its own or its EOS and stay in the stream."""
        documents = self.store.documents
        lengths = lengths_of(documents.token_offsets) + (self.insertion.end_id is not None)
        if self.data.strategy != "replace":
            return lengths

        def replaced(chosen: slice) -> Ints:
            return np.where(inserted[chosen], documents.entity_ends[chosen] - documents.entity_starts[chosen], 0)

        return np.asarray(lengths - self._per_article(replaced))

    def epoch_of_row(self, row: int) -> int:
        """The epoch in which a row begins."""
        return self.epoch_at(row * self.data.max_length).number

    def augmented(self, epoch: Epoch, first: int, last: int) -> AugmentedDocuments:
        """The articles [first, last) of an epoch's order, with their names."""
        documents, entities = self.store.subset(epoch.order[first:last], self.names)
        return insert_names(documents, epoch.inserted[entities], self.insertion)

    def epoch_at(self, position: int) -> Epoch:
        """The epoch that holds a token of the stream."""
        while self._epoch_starts[-1] <= position:
            self.epoch(len(self._epoch_starts) - 1)
        return self.epoch(bisect_right(self._epoch_starts, position) - 1)

    def epoch(self, number: int) -> Epoch:
        """An epoch; the two last ones used are kept, and the start of the next is noted."""
        while len(self._epoch_starts) <= number:
            self.epoch(len(self._epoch_starts) - 1)
        if number not in self._cached:
            epoch = self._make_epoch(number)
            if len(self._epoch_starts) == number + 1:
                self._epoch_starts.append(epoch.end)
            while len(self._cached) >= 2:
                del self._cached[next(iter(self._cached))]
            self._cached[number] = epoch
        return self._cached[number]

    def _stretch(self, start: int, end: int) -> Stretch:
        """The tokens [start, end) of the stream."""
        pieces = []
        while start < end:
            epoch = self.epoch_at(start)
            stop = min(end, epoch.end)
            pieces.append(self._stretch_of_epoch(epoch, start - epoch.start, stop - epoch.start))
            start = stop
        if len(pieces) == 1:
            return pieces[0]
        return Stretch(
            tokens=np.concatenate([piece.tokens for piece in pieces]),
            kinds=np.concatenate([piece.kinds for piece in pieces]),
            begins=np.concatenate([piece.begins for piece in pieces]),
        )

    def _stretch_of_epoch(self, epoch: Epoch, start: int, end: int) -> Stretch:
        """The tokens [start, end) of an epoch: the articles that they touch are made, and cut."""
        first = int(epoch.offsets.searchsorted(start, "right")) - 1
        last = int(epoch.offsets.searchsorted(end, "left"))
        made = self.augmented(epoch, first, last)
        begins = np.zeros(len(made.tokens) + 1, bool)
        begins[made.offsets] = True  # an empty article begins where the next one does
        cut = slice(start - int(epoch.offsets[first]), end - int(epoch.offsets[first]))
        return Stretch(tokens=made.tokens[cut], kinds=made.kinds[cut], begins=begins[cut])

    def _make_epoch(self, number: int) -> Epoch:
        order = self._order(number)
        inserted = self._inserted(number, order)
        lengths = lengths_of(self.store.documents.token_offsets) + (self.insertion.end_id is not None)
        lengths += self._per_article(lambda chosen: np.where(inserted[chosen], self.growth(chosen), 0))
        return Epoch(
            number=number,
            start=self._epoch_starts[number],
            inserted=inserted,
            order=order,
            offsets=offsets_of(lengths[order]),
        )

    def _order(self, number: int) -> Ints:
        """The training articles in the order of an epoch."""
        store, picked = self.store, self.training_documents
        if self._draws is not None:
            return reference_order(self.seed, number, len(store))
        keys = document_keys(store.wiki_keys[picked], store.page_ids[picked], ORDER, self.seed, number)
        return np.asarray(picked[shuffled(keys)])

    def _usable(self) -> Bools:
        """Which entities (E,) the strategy can insert at, and the options want."""
        store, found = self.store, np.empty(len(self.store.entity_ordinals), bool)
        for _, chosen in self.parts():
            name_lengths = store.own_names.spans(chosen)[1]
            found[chosen] = usable(self.data.strategy, store.edge_bits(chosen), name_lengths)
            found[chosen] &= kept_entities(store, self.data.entities, chosen)
        return found

    def _inserted(self, number: int, order: Ints) -> Bools:
        """Which entities (E,) get their names in an epoch: draws below the probability; the reference takes equal ones."""
        store, offsets = self.store, self.store.documents.entity_offsets
        inserted = np.empty(len(store.entity_ordinals), bool)
        if self._draws is not None:
            for entities, draws in self._draws.of_epoch(number, order, offsets):
                inserted[entities] = self.usable[entities] & (draws <= self.data.probability)
            return inserted
        wiki_keys = store.wiki_keys
        for articles, chosen in self.parts():
            keys = document_keys(wiki_keys[articles], store.page_ids[articles], INSERTION, self.seed, number)
            draws = entity_draws(keys, spans_of(offsets, articles)[1], store.entity_ordinals[chosen])
            inserted[chosen] = self.usable[chosen] & (draws < self._probabilities(chosen))
        return inserted

    def _probabilities(self, chosen: slice) -> Floats | float:
        """The probability of each entity of a range: its name's dose where there are doses."""
        if self._doses is None:
            return self.data.probability
        return np.asarray(self.data.probability_buckets, np.float64)[self._doses[chosen]]

    def _per_article(self, values: Callable[[slice], Ints]) -> Ints:
        """The sum of the entities' values in each article (D,); `values` gives those of a range of entities."""
        offsets, totals = self.store.documents.entity_offsets, np.empty(len(self.store), np.int64)
        for articles, chosen in self.parts():
            sums = offsets_of(values(chosen))
            starts, lengths = spans_of(offsets, articles)
            starts = starts - chosen.start
            totals[articles] = sums[starts + lengths] - sums[starts]
        return totals


def _end_id(store: Store, data: DataConfig) -> int | None:
    """The id put after each article: the tokenizer's EOS where documents are kept apart, unless the run says no.

    Where the build put it there already, it is not put there twice.
    """
    is_wanted = data.document_end and not data.cross_document and not store.tokenizer.document_end_ids
    return store.tokenizer.eos_id if is_wanted else None


def _reference_labels(store: Store, data: DataConfig, markers: Markers | None) -> ReferenceLabels | None:
    if data.compat != "leia":
        return None
    if markers is None:
        raise UsageError("--compat leia: needs the two markers; leave --markers special")
    (start_id,), (end_id,) = markers
    return ReferenceLabels(padding_id=padding_id(store.tokenizer), start_id=start_id, end_id=end_id)


def validation_mask(store: Store, share: float) -> Bools:
    """Which articles (D,) are kept out of training: the same ones for every seed and strategy."""
    return np.asarray(uniform(document_keys(store.wiki_keys, store.page_ids, VALIDATION)) < share)
