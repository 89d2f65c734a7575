"""alignment: the tokens of a span, how its edges fall on theirs, and what each way does with a bad edge."""

from __future__ import annotations

import numpy as np
import pytest

from leia_beam.alignment import (
    EDGE,
    END_REFUSED,
    EXACT,
    EXPAND,
    EXPANDED,
    NO_TOKEN,
    NOT_ON_EDGES,
    SHARED_TOKEN,
    START_WIDENED,
    START_WIDENED_END_REFUSED,
    STRICT,
    TokenSpan,
    align_spans,
    cuts_of,
    tokens_within,
)

TOKENS = np.array([[0, 2], [2, 5], [5, 6], [6, 6], [6, 9], [9, 10], [9, 10]])
TEXT = "ab cde fgh"  # tokens: ab| cd|e|| fg|h|h


@pytest.mark.parametrize(
    ("span", "expected", "strict"),
    [
        ((0, 2), TokenSpan(start=0, end=1, edge=EXACT), None),
        ((3, 5), TokenSpan(start=1, end=2, edge=EXACT), None),
        ((2, 5), TokenSpan(start=1, end=2, edge=EXACT), None),
        ((0, 5), TokenSpan(start=0, end=2, edge=EXACT), None),
        ((3, 6), TokenSpan(start=1, end=3, edge=EXACT), None),
        ((9, 10), TokenSpan(start=5, end=7, edge=EXACT), None),
        ((7, 10), TokenSpan(start=4, end=7, edge=EXACT), None),
        ((0, 1), TokenSpan(start=0, end=1, edge=END_REFUSED), NOT_ON_EDGES),
        ((1, 2), TokenSpan(start=0, end=1, edge=START_WIDENED), NOT_ON_EDGES),
        ((4, 5), TokenSpan(start=1, end=2, edge=START_WIDENED), NOT_ON_EDGES),
        ((3, 4), TokenSpan(start=1, end=2, edge=END_REFUSED), NOT_ON_EDGES),
        ((1, 4), TokenSpan(start=0, end=2, edge=START_WIDENED_END_REFUSED), NOT_ON_EDGES),
        ((0, 3), TokenSpan(start=0, end=2, edge=END_REFUSED), NOT_ON_EDGES),
        ((10, 12), NO_TOKEN, None),
    ],
)
def test_the_edges_of_one_span(span, expected, strict):
    """Exact, widened, refused, both; white space that the first token took in is no bad edge."""
    assert align_spans(TOKENS, TEXT, [span], EDGE) == [expected]
    assert align_spans(TOKENS, TEXT, [span], STRICT) == [strict or expected]


def test_a_token_belongs_to_the_first_anchor_that_has_it():
    """Two anchors in one token: the first keeps it in `edge`, neither in `strict`."""
    assert align_spans(TOKENS, TEXT, [(0, 1), (1, 2), (3, 5)], EDGE) == [
        TokenSpan(start=0, end=1, edge=END_REFUSED),
        SHARED_TOKEN,
        TokenSpan(start=1, end=2, edge=EXACT),
    ]
    assert align_spans(TOKENS, TEXT, [(0, 1), (1, 2), (3, 5)], STRICT) == [
        NOT_ON_EDGES,
        NOT_ON_EDGES,
        TokenSpan(start=1, end=2, edge=EXACT),
    ]


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
def test_an_empty_span_has_no_token(at):
    """There is nothing that a token could cover."""
    assert align_spans(TOKENS, TEXT, [(at, at)], EDGE) == [NO_TOKEN]


def test_no_tokens_have_no_spans():
    """A text that came to nothing."""
    assert align_spans(np.empty((0, 2), np.int32), "x", [(0, 1)], EDGE) == [NO_TOKEN]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 2), TokenSpan(start=0, end=1, edge=EXACT)),
        ((0, 1), TokenSpan(start=0, end=1, edge=EXPANDED)),
        ((4, 5), TokenSpan(start=1, end=2, edge=EXPANDED)),
        ((1, 4), TokenSpan(start=0, end=2, edge=EXPANDED)),
        ((10, 12), NO_TOKEN),
    ],
)
def test_expand_takes_the_tokens_that_cover_a_span(span, expected):
    """Bad edges are no obstacle: what is covered besides belongs to it."""
    assert align_spans(TOKENS, TEXT, [span], EXPAND) == [expected]


def test_expanded_spans_never_overlap():
    """The second of two anchors in one token is dropped."""
    assert align_spans(TOKENS, TEXT, [(0, 1), (1, 4), (4, 6)], EXPAND) == [
        TokenSpan(start=0, end=1, edge=EXPANDED),
        SHARED_TOKEN,
        TokenSpan(start=1, end=3, edge=EXPANDED),
    ]


@pytest.mark.parametrize(
    ("text", "spans", "cuts"),
    [
        ("ab cd", [(3, 5)], [2, 5]),
        ("ab  cd", [(4, 6)], [3, 6]),
        ("ab\ncd", [(3, 5)], [3, 5]),
        ("abcd", [(0, 2), (2, 4)], [2, 4]),
        ("ab cd", [(0, 2), (3, 5)], [2, 5]),
        (" ab", [(1, 3)], [3]),
        ("", [], []),
    ],
)
def test_cuts_are_the_edges_of_spans(text, spans, cuts):
    """One space before a span goes with it; the text's start is no cut."""
    assert cuts_of(text, spans) == cuts


@pytest.mark.parametrize(
    ("limit", "count"), [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 5), (7, 7), (99, 7)]
)
def test_a_limit_never_cuts_a_character_in_two(limit, count):
    """The last two tokens are one character's bytes: both or none."""
    assert tokens_within(TOKENS, limit) == count
