"""From texts without any inserted name to the loss in bits per UTF-8 byte, and from texts with names to a second figure.

Per byte, not per token, so that models with other tokenizers can be compared. An article longer than a row is cut into
windows that overlap by one token, so that each token but the article's first is predicted exactly once. The rows are dealt
to the processes; sums are float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from leia_beam.console import Counter, Tell
from leia_beam.errors import UsageError
from leia_beam.tokenization import without_added_tokens
from leia_train.insertion import NAME, TEXT, insert_names
from leia_train.packing import IGNORED
from leia_train.shard_folders import BuildTokenizer
from leia_train.store import Store

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from leia_train.plan import TrainingPlan

Ids = NDArray[np.int64]
VALIDATION, INSERTED = "validation", "validation with names"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The loss on some texts. `bits_per_byte` is of the text alone; inserted names have a loss of their own."""

    documents: int
    tokens: int
    size_bytes: int
    bits_per_byte: float
    name_tokens: int = 0
    nats_per_name_token: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One document: its tokens, which of them are in no loss, which are of names, and the bytes of its own text."""

    tokens: Ids
    hidden: NDArray[np.bool_]
    names: NDArray[np.bool_]
    size_bytes: int


def _all_stop(accelerator: Accelerator, stopped: bool) -> bool:
    """Whether any process was told to stop."""
    told = torch.tensor([float(stopped)], device=accelerator.device)
    return bool(accelerator.reduce(told, "sum").item() > 0)


def evaluate(
    token_loss: nn.Module,
    texts: Sequence[Text],
    max_length: int,
    accelerator: Accelerator,
    *,
    share_rows: bool,
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell | None = None,
    together: bool = False,
) -> Evaluation | None:
    """The loss on some texts; None where a process was told to stop. `share_rows`: rows hold several documents.

    `tell` is told how far this process is. `together`: each row is a call that all processes make at once (of a model in
    parts), so those with a row less than others compute one again, and all stop where one is told to.
    """
    size_bytes = sum(text.size_bytes for text in texts)
    windows = [window for text in texts for window in windows_of(text, max_length)]
    sums = np.zeros(5)  # nats and tokens of text, nats and tokens of names, processes that were told to stop
    was_training = token_loss.training
    token_loss.eval()
    with torch.no_grad():
        rows = list(pack_windows(windows, max_length if share_rows else 1))
        mine = rows[accelerator.process_index :: accelerator.num_processes]
        progress = Counter(tell, "evaluation", len(mine), "rows")
        own = len(mine)
        if together and rows:
            mine += rows[:1] * (-(-len(rows) // accelerator.num_processes) - own)
        for number, (input_ids, position_ids, labels, names) in enumerate(mine):
            if _all_stop(accelerator, stopped()) if together else stopped():
                sums[4] = 1
                break
            tensors = (
                torch.from_numpy(part)[None].to(accelerator.device) for part in (input_ids, position_ids, labels)
            )
            with accelerator.autocast():
                losses = token_loss(*tensors)[0].double().cpu().numpy()
            if number >= own:
                break
            counted = labels != IGNORED
            for place, which in ((0, counted & ~names), (2, counted & names)):
                sums[place : place + 2] += losses[which].sum(), which.sum()
            progress.advance()
    token_loss.train(was_training)
    if accelerator.num_processes > 1:
        total = torch.from_numpy(sums).to(accelerator.device)
        sums = accelerator.reduce(total, "sum").cpu().numpy()
    nats, tokens, name_nats, name_tokens, told_to_stop = sums.tolist()
    if told_to_stop:
        return None
    return Evaluation(
        documents=len(texts),
        tokens=int(tokens),
        size_bytes=size_bytes,
        bits_per_byte=nats / math.log(2) / max(size_bytes, 1),
        name_tokens=int(name_tokens),
        nats_per_name_token=name_nats / name_tokens if name_tokens else None,
    )


def store_texts(store: Store, documents: Ids) -> list[Text]:
    """Articles of a store as they are."""
    sizes = text_sizes(store, documents)
    return [
        _plain_text(_text_tokens(store, document), size)
        for document, size in zip(documents.tolist(), sizes, strict=True)
    ]


def inserted_texts(plan: TrainingPlan) -> list[Text]:
    """The validation articles with the names that the first epoch's draws would put into them."""
    chosen, ends = plan.validation_documents, len(plan.store.tokenizer.document_end_ids)
    documents, entities = plan.store.subset(chosen, plan.names)
    made = insert_names(documents, plan.epoch(0).inserted[entities], plan.insertion)
    texts = []
    for place, size in enumerate(text_sizes(plan.store, chosen)):
        part = slice(int(made.offsets[place]), int(made.offsets[place + 1]))
        kinds = made.kinds[part]
        hidden = (kinds != TEXT) & (kinds != NAME)
        hidden[len(hidden) - ends :] = True
        texts.append(
            Text(tokens=made.tokens[part].astype(np.int64), hidden=hidden, names=kinds == NAME, size_bytes=size)
        )
    return texts


def file_texts(path: str, tokenizer: BuildTokenizer) -> list[Text]:
    """The documents of a text file: one a line's `text` in .jsonl, else the whole file.

    Raises: UsageError for a file that cannot be read.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
        if path.endswith(".jsonl"):
            documents = [str(json.loads(line)["text"]) for line in content.splitlines() if line.strip()]
        else:
            documents = [content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--eval-text {path}: not UTF-8 text, or .jsonl with a text in each line ({error})") from error
    plain = without_added_tokens(tokenizer.tokenizer_json)  # as in the shards: text never yields special tokens
    found = []
    for document in documents:
        ids = [*tokenizer.document_start_ids, *plain.encode(document, add_special_tokens=False).ids]
        found.append(_plain_text(np.array(ids, np.int64), len(document.encode())))
    return found


def _plain_text(tokens: Ids, size_bytes: int) -> Text:
    nothing = np.zeros(len(tokens), bool)
    return Text(tokens=tokens, hidden=nothing, names=nothing, size_bytes=size_bytes)


def _text_tokens(store: Store, document: int) -> Ids:
    """An article's tokens without the EOS that the shards may end it with: it is no text, and files have none."""
    start, stop = store.documents.token_offsets[document : document + 2].tolist()
    return store.documents.tokens[start : stop - len(store.tokenizer.document_end_ids)].astype(np.int64)


Window = tuple[Ids, NDArray[np.bool_], NDArray[np.bool_]]


def windows_of(text: Text, length: int) -> list[Window]:
    """Windows of at most `length` tokens, each beginning with the last token of the one before: tokens, hidden, names."""
    starts = range(0, max(len(text.tokens) - 1, 0), length - 1)
    return [
        tuple(part[start : start + length] for part in (text.tokens, text.hidden, text.names))  # type: ignore[misc]
        for start in starts
    ]


def pack_windows(windows: list[Window], length: int) -> Iterator[tuple[Ids, Ids, Ids, NDArray[np.bool_]]]:
    """Rows of whole windows, each at most `length` tokens or one window: input_ids, position_ids, labels, names."""
    row: list[Window] = []
    for window in windows:
        if row and sum(len(tokens) for tokens, _, _ in row) + len(window[0]) > length:
            yield _row(row)
            row = []
        row.append(window)
    if row:
        yield _row(row)


def _row(windows: list[Window]) -> tuple[Ids, Ids, Ids, NDArray[np.bool_]]:
    input_ids, hidden, names = (np.concatenate([window[part] for window in windows]) for part in range(3))
    position_ids = np.concatenate([np.arange(len(tokens)) for tokens, _, _ in windows])
    labels: Any = np.where((position_ids == 0) | hidden, IGNORED, input_ids)
    return input_ids, position_ids, labels, names


def text_sizes(store: Store, documents: Ids) -> list[int]:
    """The UTF-8 bytes of each article's text, without what the tokenizer puts before it."""
    tokenizer = Tokenizer.from_buffer(store.tokenizer.tokenizer_json)
    start = len(store.tokenizer.document_start_ids)
    texts = (
        tokenizer.decode(_text_tokens(store, document)[start:].tolist(), skip_special_tokens=False)
        for document in documents.tolist()
    )
    return [len(text.encode()) for text in texts]
