"""From the plans of several sources to one stream of rows, in which each source has its share.

Every row is of one source, and the sources take turns by their shares alone (row_turns.py). So of any first n rows each has
its share within less than one row, in every arm of a comparison alike, and a source without insertion gives every arm the
very same rows in the same places. A source's own rows are those of a run on it alone: its order is a function of the seed,
the source and the epoch. Random access stays random access, so a resume and any number of processes read the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from leia_beam.errors import LeiaError, UsageError
from leia_train.data_config import DataConfig
from leia_train.mix_sources import MAIN, SHARES_OF, MixSource
from leia_train.packing import PackedRows, Stretch
from leia_train.plan import TrainingPlan
from leia_train.row_turns import RowTurns
from leia_train.store import Store

Ints = NDArray[np.int64]
MOST_EPOCHS = 4
"""Up to here repeated text is worth almost as much as new text (Muennighoff et al. 2023, arXiv 2305.16264)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A source in a run: its name, its share, and the plan of its own rows (None where its store is not there)."""

    name: str
    share: Fraction
    plan: TrainingPlan | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAmount:
    """How much of a source a run reads. `epochs` are by the length of its first one."""

    name: str
    share: float
    rows: int
    tokens: int
    epoch_tokens: int
    epochs: float
    articles: int
    validation_articles: int

    def line(self) -> str:
        """What people read of it."""
        return (
            f"{self.name} {self.share:.4g}: {self.rows:,} rows, {self.tokens:,} tokens, {self.epochs:.2f} epochs of "
            f"{self.epoch_tokens:,} tokens in {self.articles:,} texts ({self.validation_articles:,} more in validation)"
        )

    def warning(self) -> str | None:
        """What to say of too many epochs, if anything."""
        if self.epochs <= MOST_EPOCHS:
            return None
        remedy = "more of it, or fewer steps" if self.name == MAIN else "more of it, fewer steps, or a smaller share"
        return (
            f"{self.name}: read {self.epochs:.1f} times; above {MOST_EPOCHS} epochs repeated text teaches ever less; "
            f"take {remedy}"
        )


class MixedPlan:
    """The packed rows of a run: those of the shards, the first source, and of what `--mix` gives beside them."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = tuple(sources)
        assert self.sources[0].name == MAIN and sum(source.share for source in sources) == 1
        self._turns = RowTurns([int(source.share * SHARES_OF) for source in sources])
        self.main = self._plan(0)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, in the order of their numbers."""
        return tuple(source.name for source in self.sources)

    @property
    def is_mixed(self) -> bool:
        """Whether anything is read beside the shards."""
        return len(self.sources) > 1

    @property
    def data(self) -> DataConfig:
        """The options of the shards' rows."""
        return self.main.data

    @property
    def store(self) -> Store:
        """The shards' store."""
        return self.main.store

    def counts(self, rows: int) -> Ints:
        """How many of the first `rows` rows are of each source (K,)."""
        return self._turns.counts(rows)

    def rows(self, first: int, count: int) -> PackedRows:
        """The rows [first, first + count) of the stream."""
        if not self.is_mixed:
            return self.main.rows(first, count)
        turns, begins = self._turns.sources(first, count), self.counts(first).tolist()
        shape = (count, self.data.max_length)
        tokens, kinds, starts = np.empty(shape, np.int32), np.empty(shape, np.uint8), np.empty(shape, np.bool_)
        for number in np.unique(turns).tolist():
            places = np.flatnonzero(turns == number)
            of_source = self._plan(number).stretch(begins[number], len(places))
            tokens[places] = of_source.tokens.reshape(-1, shape[1])
            kinds[places] = of_source.kinds.reshape(-1, shape[1])
            starts[places] = of_source.begins.reshape(-1, shape[1])
        together = Stretch(tokens=tokens.ravel(), kinds=kinds.ravel(), begins=starts.ravel())
        return replace(self.main.packed(together), sources=turns)

    def steps(self, steps: int, batch: int) -> int:
        """The updates of a run that was asked for `steps` of `batch` rows, by its budget.

        With `target_tokens` it goes on until it has read as many of the shards' own tokens as its rows of the shards would
        have without any insertion.
        """
        if self.data.budget == "tokens":
            return steps
        length = self.data.max_length
        asked = int(self.counts(steps * batch)[0])
        own_rows = -(-self.main.position_of_target(asked * length) // length)
        return -(-self._turns.rows_until(0, own_rows) // batch)

    def epoch_of_row(self, row: int) -> int:
        """The epoch of the shards (of the first source that has rows, if they have none) in which a row begins."""
        number = next(number for number, source in enumerate(self.sources) if source.share)
        return self._plan(number).epoch_of_row(int(self.counts(row)[number]))

    def amounts(self, rows: int) -> list[SourceAmount]:
        """What the first `rows` rows take of each source."""
        found = []
        for number, count in enumerate(self.counts(rows).tolist()):
            source, plan = self.sources[number], self._plan(number)
            tokens, epoch_tokens = count * self.data.max_length, plan.epoch(0).end
            found.append(
                SourceAmount(
                    name=source.name,
                    share=float(source.share),
                    rows=count,
                    tokens=tokens,
                    epoch_tokens=epoch_tokens,
                    epochs=tokens / epoch_tokens,
                    articles=len(plan.training_documents),
                    validation_articles=len(plan.validation_documents),
                )
            )
        return found

    def check_shares(self, rows: int, tokens: Sequence[int]) -> None:
        """Compare the tokens that were read of each source in the first `rows` rows with its share.

        Raises: LeiaError where one is not what it should be.
        """
        length = self.data.max_length
        for source, count, found in zip(self.sources, self.counts(rows).tolist(), tokens, strict=True):
            wanted = rows * length * source.share
            if found != count * length or abs(found - wanted) >= length:
                raise LeiaError(
                    f"source {source.name}: {found:,} tokens were read in {rows:,} rows of {length:,}, its share is "
                    f"{float(wanted):,.0f}; please report this run, whose weights are not those of its recipe"
                )

    def _plan(self, number: int) -> TrainingPlan:
        source = self.sources[number]
        if source.plan is None:
            raise UsageError(f"the store of the source {source.name!r} is not beside the run any more; train again")
        return source.plan


def sources_of(main: TrainingPlan, others: Sequence[tuple[MixSource, TrainingPlan | None]]) -> list[Source]:
    """The sources of a run: the shards with what the others leave of 1, then the others."""
    rest = 1 - sum((source.share for source, _ in others), Fraction(0))
    return [
        Source(name=MAIN, share=rest, plan=main),
        *(Source(name=source.name, share=source.share, plan=plan) for source, plan in others),
    ]
