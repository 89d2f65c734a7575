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

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Tokens of the stream, what each is, and whether a document begins with it."""

    tokens: NDArray[np.int32]  # (B * T,)
    kinds: NDArray[np.uint8]  # (B * T,)
    begins: NDArray[np.bool_]  # (B * T,)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """B rows of T tokens."""

    input_ids: NDArray[np.int64]  # (B, T)
    position_ids: NDArray[np.int64]  # (B, T)
    labels: NDArray[np.int64]  # (B, T), IGNORED where there is no loss
    kinds: NDArray[np.uint8]  # (B, T)
    sources: Ints | None = None  # (B,) the number of each row's source in a plan of several

    @property
    def row_label_counts(self) -> Ints:
        """Tokens in the loss of each row (B,); a row's first token is predicted from nothing, whatever its label."""
        return np.asarray((self.labels[:, 1:] != IGNORED).sum(axis=1), np.int64)

    @property
    def label_count(self) -> int:
        """Tokens in the loss."""
        return int(self.row_label_counts.sum())

    @property
    def inserted(self) -> Bools:
        """Which tokens (B, T) are of inserted names or their markers."""
        return np.asarray((self.kinds == NAME) | (self.kinds == MARKER))

    @property
    def inserted_count(self) -> int:
        """Tokens of inserted names and their markers."""
        return int(self.inserted.sum())

    @property
    def name_label_count(self) -> int:
        """Tokens of inserted names that are in the loss."""
        return int(((self.labels != IGNORED) & (self.kinds == NAME))[:, 1:].sum())

    @property
    def segment_offsets(self) -> Ints:
        """Where each segment begins in the B * T tokens, and the end: what attention kernels call cu_seqlens."""
        return np.append(np.flatnonzero(self.position_ids.ravel() == 0), self.position_ids.size)

    @property
    def mean_segment(self) -> float:
        """The length of a token's segment, on average over tokens."""
        lengths = np.diff(self.segment_offsets)
        return float((lengths.astype(np.float64) ** 2).sum() / max(self.position_ids.size, 1))

    def part(self, start: int, stop: int) -> PackedRows:
        """The rows [start, stop)."""
        return PackedRows(
            input_ids=self.input_ids[start:stop],
            position_ids=self.position_ids[start:stop],
            labels=self.labels[start:stop],
            kinds=self.kinds[start:stop],
            sources=None if self.sources is None else self.sources[start:stop],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceLabels:
    """What the reference implementation looks at when it labels a row: ids alone."""

    padding_id: int | None
    start_id: int
    end_id: int


def pack(
    stretch: Stretch,
    length: int,
    *,
    name_loss: bool,
    cross_document: bool,
    reference: ReferenceLabels | None = None,
) -> PackedRows:
    """Rows of `length` tokens from a stretch of whole rows; with `reference`, labelled as the reference does."""
    input_ids = stretch.tokens.astype(np.int64).reshape(-1, length)
    kinds = stretch.kinds.reshape(-1, length)
    columns = np.arange(length)
    if cross_document:
        position_ids = np.tile(columns, (len(input_ids), 1))
    else:
        position_ids = columns - _segment_starts(stretch.begins.reshape(-1, length), columns)
    if reference is None:
        ignored = (position_ids == 0) | (kinds == MARKER)
        if not name_loss:
            ignored |= kinds == NAME
    else:
        ignored = _ignored_by_reference(input_ids, columns, reference, name_loss)
    return PackedRows(
        input_ids=input_ids,
        position_ids=position_ids,
        labels=np.where(ignored, IGNORED, input_ids),
        kinds=kinds,
    )


def _segment_starts(begins: Bools, columns: Ints) -> Ints:
    """For each token (B, T) the column (T,) where its segment begins: its document's first token, or the row's."""
    return np.maximum.accumulate(np.where(begins, columns, 0), axis=1)


def _ignored_by_reference(input_ids: Ints, columns: Ints, reference: ReferenceLabels, name_loss: bool) -> Bools:
    """Which tokens have no label: padding (EOS, where that is its id), markers, and names by option.

    The names are found by the markers in the row alone, so the part of a name with which a row begins keeps its labels.
    """
    is_start, is_end = input_ids == reference.start_id, input_ids == reference.end_id
    ignored = is_start | is_end
    if reference.padding_id is not None:
        ignored |= input_ids == reference.padding_id
    if not name_loss:
        last = np.maximum.accumulate(np.where(is_start | is_end, columns, -1), axis=1)
        ignored |= (last >= 0) & np.take_along_axis(is_start, np.maximum(last, 0), axis=1)
    return np.asarray(ignored)
