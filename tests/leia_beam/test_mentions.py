"""mentions: later mentions of linked texts, found as a plain search finds them, apart from all anchors."""

from __future__ import annotations

import random

import pytest

from leia_beam.mentions import later_mentions
from leia_beam.records import LATER_MENTION, Anchor


def anchors_of(marked):
    """(text, anchors) of a text in which [brackets] are links; [text|target] leads elsewhere."""
    pieces = marked.replace("]", "[").split("[")
    text, found = "", []
    for number, piece in enumerate(pieces):
        shown, _, target = piece.partition("|")
        if number % 2:
            found.append(Anchor(len(text), len(text) + len(shown), target or shown))
        text += shown
    return text, found


def mentions(marked, linked=None):
    """[(text, target, start of the anchor it repeats)]."""
    text, anchors = anchors_of(marked)
    found = later_mentions(text, anchors, anchors if linked is None else [anchors[number] for number in linked])
    assert all(mention.kind == LATER_MENTION for mention, _ in found)
    return [(text[mention.start_char : mention.end_char], mention.target, first) for mention, first in found]


@pytest.mark.parametrize(
    ("marked", "found"),
    [
        ("[東京]は首都。東京に住む。", [("東京", "東京", 0)]),
        ("東京は首都。[東京]に住む。", []),
        ("[東京]と[東京都]。東京都と東京。", [("東京都", "東京都", 3), ("東京", "東京", 0)]),
        ("[東京]の[東京駅]。", []),
        ("[東京|A]。東京。[東京|B]。東京。", [("東京", "A", 0), ("東京", "B", 6)]),
        ("[する]と、すること。", []),
        ("[お茶]とお茶。", []),
        ("[緑茶]と緑茶。", [("緑茶", "緑茶", 0)]),
        ("[A] and A.", []),
        ("[art] in a party, art.", [("art", "art", 0)]),
        ("[Art] art.", []),
        ("[ロン]とロンドンのロン。", [("ロン", "ロン", 0)]),
        ("[日本]と日本語。", [("日本", "日本", 0)]),
        ("[IBM]とIBMは。", [("IBM", "IBM", 0)]),
        ("[IBM]。アイIBMアイ。", [("IBM", "IBM", 0)]),
        ("[アイ]。IBMアイ、アイー。", [("アイ", "アイ", 0)]),
        ("[서울]과 서울에서.", [("서울", "서울", 0)]),
        ("[New York]、New York、New York", [("New York", "New York", 0)] * 2),
        ("", []),
        ("no links", []),
    ],
)
def test_later_mentions_are_found(marked, found):
    """Behind the link, the longest first, not inside words or katakana, at least two characters besides hiragana."""
    assert mentions(marked) == found


def test_only_linked_anchors_are_repeated():
    """An anchor without a name has no mentions, and nothing is found within it."""
    assert mentions("[東京]と[大阪]。大阪、東京。[大阪東京]", linked=[0]) == [("東京", "東京", 0)]


def test_mentions_are_what_a_plain_search_finds():
    """On random texts of three ideographs, against a search that tries every place and every text."""
    rng = random.Random(7)
    exercised = 0
    for _ in range(1_500):
        pieces = ["".join(rng.choices("日本語", k=rng.randrange(1, 4))) for _ in range(rng.randrange(1, 9))]
        text, anchors = "", []
        for number, piece in enumerate(pieces):
            if number % 3 == 1:
                anchors.append(Anchor(len(text), len(text) + len(piece), str(number)))
            text += piece
        expected, at, blocked = [], 0, {a.start_char: a for a in anchors}
        while at < len(text):
            if at in blocked:
                at = blocked[at].end_char
                continue
            room = min([a.start_char for a in anchors if a.start_char > at], default=len(text))
            before = [a for a in anchors if a.end_char <= at]
            fitting = {text[a.start_char : a.end_char]: a for a in before}
            fitting = {s: a for s, a in fitting.items() if len(s) > 1 and text.startswith(s, at, room)}
            if not fitting:
                at += 1
                continue
            shown = max(fitting, key=len)
            expected.append((at, at + len(shown), fitting[shown].target))
            at += len(shown)
        found = [(m.start_char, m.end_char, m.target) for m, _ in later_mentions(text, anchors, anchors)]
        assert found == expected
        exercised += len(found)
    assert exercised > 100


def test_the_time_is_linear():
    """Many anchors and a long text are no trap (a quadratic search would not end)."""
    text = "".join(f"漢字{number:06d}、" for number in range(100_000))
    anchors = [Anchor(9 * n, 9 * n + 8, "x") for n in range(2_000)]
    assert later_mentions(text, anchors, anchors) == []
