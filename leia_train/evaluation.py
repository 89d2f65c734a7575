"""From the validation articles, without any inserted name, to the loss in bits per UTF-8 byte of their text.

Per byte, not per token, so that models with other tokenizers can be compared. An article longer than a row is cut into
windows that overlap by one token, so that each token but the article's first is predicted exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from leia_train.attention import packed_logits
from leia_train.loss import summed_token_loss
from leia_train.packing import IGNORED
from leia_train.store import Store

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The loss on some articles."""

    documents: int
    tokens: int
    size_bytes: int
    bits_per_byte: float


def evaluate(
    model: nn.Module, store: Store, documents: Ids, max_length: int, accelerator: Accelerator, *, share_rows: bool
) -> Evaluation | None:
    """The loss on articles of the store; None where they have no text. `share_rows`: rows hold several articles."""
    windows = [window for document in documents for window in windows_of(_tokens(store, document), max_length)]
    nats, tokens = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for row in list(pack_windows(windows, max_length if share_rows else 1)):
            input_ids, position_ids, labels = (torch.from_numpy(part)[None].to(accelerator.device) for part in row)
            with accelerator.autocast():
                logits = packed_logits(model, input_ids, position_ids)
            nats += summed_token_loss(logits, labels).item()
            tokens += int((labels != IGNORED).sum())
    model.train(was_training)
    size_bytes = sum(text_sizes(store, documents))
    if size_bytes == 0:
        return None
    return Evaluation(
        documents=len(documents), tokens=tokens, size_bytes=size_bytes, bits_per_byte=nats / math.log(2) / size_bytes
    )


def _tokens(store: Store, document: int) -> Ids:
    offsets = store.documents.token_offsets
    return store.documents.tokens[offsets[document] : offsets[document + 1]].astype(np.int64)


def windows_of(tokens: Ids, length: int) -> list[Ids]:
    """Windows of at most `length` tokens, each beginning with the last token of the one before.

    >>> [window.tolist() for window in windows_of(np.arange(6), 3)]
    [[0, 1, 2], [2, 3, 4], [4, 5]]
    """
    return [tokens[start : start + length] for start in range(0, max(len(tokens) - 1, 0), length - 1)]


def pack_windows(windows: list[Ids], length: int) -> Iterator[tuple[Ids, Ids, Ids]]:
    """Rows of whole windows, each at most `length` tokens or one window: (input_ids, position_ids, labels)."""
    row: list[Ids] = []
    for window in windows:
        if row and sum(map(len, row)) + len(window) > length:
            yield _row(row)
            row = []
        row.append(window)
    if row:
        yield _row(row)


def _row(windows: list[Ids]) -> tuple[Ids, Ids, Ids]:
    input_ids = np.concatenate(windows)
    position_ids = np.concatenate([np.arange(len(window)) for window in windows])
    return input_ids, position_ids, np.where(position_ids == 0, IGNORED, input_ids)


def text_sizes(store: Store, documents: Ids) -> list[int]:
    """The UTF-8 bytes of each article's text, without what the tokenizer puts before it."""
    tokenizer = Tokenizer.from_buffer(store.tokenizer.tokenizer_json)
    start = len(store.tokenizer.document_start_ids)
    texts = (
        tokenizer.decode(_tokens(store, document)[start:].tolist(), skip_special_tokens=False) for document in documents
    )
    return [len(text.encode()) for text in texts]
