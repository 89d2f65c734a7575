"""From text and character spans to token ids and token spans, and from a name to the ids it has in running text.

Encoded is with a copy of the tokenizer that has no added tokens, so that a literal `</s>` or `<think>` in an article is
ordinary text (`encode_special_tokens` still turns Qwen3's `<think>` into one token). What the tokenizer itself puts
before a document is put there by id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from leia_beam.errors import UsageError
from leia_beam.tokenizer_identity import TokenizerFiles, identify

EDGE, STRICT = "edge", "strict"
ALIGNMENTS = (EDGE, STRICT)
NAME_SPACES = ("auto", "yes", "no")
DOCUMENT_STARTS = ("auto", "bos", "eos", "none")

EXACT = "exact"
START_WIDENED = "start widened"
END_REFUSED = "end refused"
START_WIDENED_END_REFUSED = "start widened, end refused"

NO_TOKEN = "no token"
SHARED_TOKEN = "token shared with the anchor before"
NOT_ON_EDGES = "not on token edges"
UNALIGNED = (NO_TOKEN, SHARED_TOKEN, NOT_ON_EDGES)

_PROBE_NAMES = ("Tokyo", "Japan", "Paris", "Water", "Albert Einstein", "1984")


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The tokens [start, end) that cover an anchor, and how its edges fall on theirs."""

    start: int
    end: int
    edge: str


class TextEncoder:
    """Encodes articles and names with one tokenizer."""

    def __init__(self, files: TokenizerFiles, name_space: str, document_start: str):
        # Beam's processes use the cores already; threads of their own in each process would fight over them.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.identity = identify(files)
        self.document_start_ids = _document_start(files, document_start)
        self.added_ids = _added_ids(files)
        self._tokenizer = without_added_tokens(files.tokenizer_json)
        self.spaced_names = _names_take_a_space(self._tokenizer) if name_space == "auto" else name_space == "yes"
        self._encode_name = lru_cache(maxsize=1 << 16)(self._encode_name_uncached)

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids (T,) int32 and, for each token, its characters [start, end) in the text, (T, 2) int32."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        return np.array(encoding.ids, dtype=np.int32), offsets

    def encode_name(self, name: str) -> list[int]:
        """A name's ids as it stands in running text: with its word-initial pieces, without special tokens."""
        return list(self._encode_name(name))

    def _encode_name_uncached(self, name: str) -> tuple[int, ...]:
        text = " " + name if self.spaced_names else name
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def without_added_tokens(tokenizer_json: bytes) -> Tokenizer:
    """The tokenizer without its added tokens, post-processor, truncation and padding."""
    content = json.loads(tokenizer_json)
    added = {token["id"] for token in content.get("added_tokens") or ()}
    _hide_pieces(content["model"], added)
    content.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(content))


def _hide_pieces(model: dict[str, Any], ids: set[int]) -> None:
    """Give pieces of a model that finds them by their text alone a name that no text has. Merges never yield them."""
    if model["type"] == "Unigram":
        for number in ids:
            if number < len(model["vocab"]):
                model["vocab"][number][0] = f"\ue000{number}"
    elif model["type"] in ("WordLevel", "WordPiece"):
        kept = {
            piece: number
            for piece, number in model["vocab"].items()
            if number not in ids or piece == model.get("unk_token")
        }
        hidden = {f"\ue000{number}": number for number in model["vocab"].values() if number not in kept.values()}
        model["vocab"] = kept | hidden


def _added_ids(files: TokenizerFiles) -> np.ndarray:
    """The ids that no text may come to: all added tokens but the one for unknown letters."""
    tokenizer = Tokenizer.from_buffer(files.tokenizer_json)
    model = json.loads(files.tokenizer_json)["model"]
    unknown = model.get("unk_id")
    if unknown is None and isinstance(model.get("unk_token"), str):
        unknown = tokenizer.token_to_id(model["unk_token"])
    return np.array(sorted(set(tokenizer.get_added_tokens_decoder()) - {unknown}), dtype=np.int32)


def _document_start(files: TokenizerFiles, document_start: str) -> tuple[int, ...]:
    identity = identify(files)
    if document_start == "none":
        return ()
    if document_start in ("auto", "bos") and identity.document_start_ids:
        return identity.document_start_ids
    if document_start in ("auto", "eos") and identity.eos_id is not None:
        return (identity.eos_id,)
    if document_start == "auto":
        return ()
    raise UsageError(
        f"--document-start {document_start}: the tokenizer {files.name} has no such token; give none or auto"
    )


def _names_take_a_space(tokenizer: Tokenizer) -> bool:
    """Whether a name needs a space before it to get the pieces that it has within a sentence."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    before = ids("in")
    alone = spaced = 0
    for name in _PROBE_NAMES:
        within = ids("in " + name)
        if within[: len(before)] != before:
            continue
        alone += ids(name) == within[len(before) :]
        spaced += ids(" " + name) == within[len(before) :]
    return spaced > alone


def align_spans(
    offsets: np.ndarray, text: str, spans: Sequence[tuple[int, int]], alignment: str
) -> list[TokenSpan | str]:
    """For each character span, sorted and apart, the tokens that cover it, or the reason why it is dropped.

    `offsets` (T, 2) are the characters of each token. White space that a token takes in before a span (`▁Tokyo`) is no
    bad edge. Alignment `edge`: a bad start is widened to the token's, a bad end is marked as refused, so that each
    strategy of the trainer refuses only the edge that it needs. `strict`: both edges must be exact.

    >>> align_spans(np.array([[0, 2], [2, 5]]), "ab cd", [(0, 2), (3, 5)], "edge")
    [TokenSpan(start=0, end=1, edge='exact'), TokenSpan(start=1, end=2, edge='exact')]
    """
    token_starts, token_ends = offsets[:, 0], offsets[:, 1]
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    ends = np.array([end for _, end in spans], dtype=np.int64)
    firsts = np.searchsorted(token_ends, starts, side="right")
    lasts = np.searchsorted(token_starts, ends, side="left") - 1
    aligned: list[TokenSpan | str] = []
    previous_end = 0
    for start, end, first, last in zip(starts.tolist(), ends.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        if first > last or start >= end:
            aligned.append(NO_TOKEN)
            continue
        edge = _edge(int(token_starts[first]), int(token_ends[last]), start, end, text)
        if alignment == STRICT and edge != EXACT:
            aligned.append(NOT_ON_EDGES)
        elif first < previous_end:
            aligned.append(SHARED_TOKEN)
        else:
            aligned.append(TokenSpan(start=first, end=last + 1, edge=edge))
            previous_end = last + 1
    return aligned


def _edge(token_start: int, token_end: int, start: int, end: int, text: str) -> str:
    bad_start = token_start < start and not text[token_start:start].isspace()
    bad_end = token_end != end
    if bad_start:
        return START_WIDENED_END_REFUSED if bad_end else START_WIDENED
    return END_REFUSED if bad_end else EXACT


def find_added_ids(ids: np.ndarray, added_ids: np.ndarray) -> Iterable[int]:
    """The ids of added tokens among a text's ids: there must be none."""
    return [int(token_id) for token_id in np.unique(ids[np.isin(ids, added_ids)])]
