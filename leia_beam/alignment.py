"""From an anchor's characters to the tokens that cover it, or to the reason why it is dropped.

A tokenizer cuts where it likes, so an anchor may begin or end within a token. What then becomes of it is an option: its
start is widened and its end refused, each for the strategies of the trainer that need it (`edge`); a token boundary is
forced (`split`); the covering tokens are taken (`expand`); or the anchor is dropped, as the reference does (`strict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EDGE, SPLIT, EXPAND, STRICT = "edge", "split", "expand", "strict"
ALIGNMENTS = (EDGE, SPLIT, EXPAND, STRICT)

EXACT = "exact"
START_WIDENED = "start widened"
END_REFUSED = "end refused"
START_WIDENED_END_REFUSED = "start widened, end refused"
EXPANDED = "expanded"
EDGES = (EXACT, START_WIDENED, END_REFUSED, START_WIDENED_END_REFUSED, EXPANDED)

NO_TOKEN = "no token"
SHARED_TOKEN = "token shared with the anchor before"
NOT_ON_EDGES = "not on token edges"
BEYOND_MAXIMUM = "beyond the maximal length"
NAME_WITHOUT_TOKEN = "name without a token"
ADDED_TOKEN_IN_NAME = "added token in the name"
UNALIGNED = (NO_TOKEN, SHARED_TOKEN, NOT_ON_EDGES, BEYOND_MAXIMUM, NAME_WITHOUT_TOKEN, ADDED_TOKEN_IN_NAME)


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The tokens [start, end) that cover an anchor, and how its edges fall on theirs."""

    start: int
    end: int
    edge: str


def align_spans(
    offsets: np.ndarray, text: str, spans: Sequence[tuple[int, int]], alignment: str
) -> list[TokenSpan | str]:
    """For each character span, sorted and apart, the tokens that cover it, or the reason why it is dropped.

    `offsets` (T, 2) are the characters of each token. White space that a token takes in before a span (`▁Tokyo`) is no
    bad edge. For `split` the text was encoded with the cuts of `cuts_of`, so that what is left of bad edges is rare; it
    is treated as for `edge`.

    >>> align_spans(np.array([[0, 2], [2, 5]]), "ab cd", [(0, 2), (3, 5)], "edge")
    [TokenSpan(start=0, end=1, edge='exact'), TokenSpan(start=1, end=2, edge='exact')]
    """
    token_starts, token_ends = offsets[:, 0], offsets[:, 1]
    bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    firsts = np.searchsorted(token_ends, bounds[:, 0], side="right").tolist()
    lasts = (np.searchsorted(token_starts, bounds[:, 1], side="left") - 1).tolist()
    aligned: list[TokenSpan | str] = []
    previous_end = 0
    for (start, end), first, last in zip(spans, firsts, lasts, strict=True):
        if first > last or start >= end:
            aligned.append(NO_TOKEN)
            continue
        edge = _edge(int(token_starts[first]), int(token_ends[last]), start, end, text)
        if edge != EXACT and alignment == STRICT:
            aligned.append(NOT_ON_EDGES)
        elif first < previous_end:
            aligned.append(SHARED_TOKEN)
        else:
            if edge != EXACT and alignment == EXPAND:
                edge = EXPANDED
            aligned.append(TokenSpan(start=first, end=last + 1, edge=edge))
            previous_end = last + 1
    return aligned


def _edge(token_start: int, token_end: int, start: int, end: int, text: str) -> str:
    bad_start = token_start < start and not text[token_start:start].isspace()
    bad_end = token_end > end  # characters that no token has were taken off or composed by the normalizer
    if bad_start:
        return START_WIDENED_END_REFUSED if bad_end else START_WIDENED
    return END_REFUSED if bad_end else EXACT


def cuts_of(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The characters at which `split` forces a token boundary: the edges of the spans, sorted.

    A space before a span stays with it, as tokenizers have it within a sentence (`▁Tokyo`).

    >>> cuts_of("in Tokyo, Japan", [(3, 8), (10, 15)])
    [2, 8, 9, 15]
    """
    cuts = []
    for start, end in spans:
        cuts += [start - 1 if start and text[start - 1] == " " else start, end]
    return sorted({cut for cut in cuts if cut})


def tokens_within(offsets: np.ndarray, limit: int) -> int:
    """How many tokens of a text stay if at most `limit` may: fewer where a character would be cut in two.

    >>> tokens_within(np.array([[0, 1], [1, 2], [1, 2], [1, 2], [2, 3]]), 3)
    1
    """
    if limit >= len(offsets):
        return len(offsets)
    count = max(0, limit)
    while count and offsets[count][0] < offsets[count - 1][1]:
        count -= 1
    return count
