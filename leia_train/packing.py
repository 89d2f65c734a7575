"""From a stretch of the stream of augmented articles to rows of equal length, with positions and labels.

Documents do not see each other: position_ids begin at 0 for each document and each row (the rest of a document that is
cut at a row's end is a segment of its own), from which the attention finds the segments. A segment's first token has no
label, because nothing that it may see comes before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leia_train.insertion import MARKER, NAME

IGNORED = -100
"""The label of a token that is not in the loss (torch's and transformers' value)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Tokens of the stream, what each is, and its distance from the beginning of its document."""

    tokens: NDArray[np.int32]  # (B * T,)
    kinds: NDArray[np.uint8]  # (B * T,)
    positions: NDArray[np.int64]  # (B * T,)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """B rows of T tokens."""

    input_ids: NDArray[np.int64]  # (B, T)
    position_ids: NDArray[np.int64]  # (B, T)
    labels: NDArray[np.int64]  # (B, T), IGNORED where there is no loss
    kinds: NDArray[np.uint8]  # (B, T)

    @property
    def label_count(self) -> int:
        """Tokens in the loss."""
        return int((self.labels != IGNORED).sum())

    @property
    def inserted_count(self) -> int:
        """Tokens of inserted names and their markers."""
        return int(((self.kinds == NAME) | (self.kinds == MARKER)).sum())

    def part(self, start: int, stop: int) -> PackedRows:
        """The rows [start, stop)."""
        return PackedRows(
            input_ids=self.input_ids[start:stop],
            position_ids=self.position_ids[start:stop],
            labels=self.labels[start:stop],
            kinds=self.kinds[start:stop],
        )


def pack(stretch: Stretch, length: int, *, name_loss: bool, cross_document: bool) -> PackedRows:
    """Rows of `length` tokens from a stretch of whole rows."""
    input_ids = stretch.tokens.astype(np.int64).reshape(-1, length)
    kinds = stretch.kinds.reshape(-1, length)
    columns = np.broadcast_to(np.arange(length), input_ids.shape)
    if cross_document:
        position_ids = columns.copy()
    else:
        position_ids = columns - _segment_starts(stretch.positions.reshape(-1, length), columns)
    ignored = (position_ids == 0) | (kinds == MARKER)
    if not name_loss:
        ignored |= kinds == NAME
    return PackedRows(
        input_ids=input_ids,
        position_ids=position_ids,
        labels=np.where(ignored, IGNORED, input_ids),
        kinds=kinds,
    )


def _segment_starts(positions: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each token (B, T) the column where its segment begins: its document's first token, or the row's."""
    return np.maximum.accumulate(np.where(positions == 0, columns, 0), axis=1)
