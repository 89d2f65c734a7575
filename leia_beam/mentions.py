"""From an article's linked anchors to later mentions of the same texts, which wikitext links but once.

A mention is the exact text of an anchor that stands after it, the longest where several begin at one place, never inside
another anchor. It must have at least two characters that are not hiragana, and must not begin or end within a word of a
script that parts its words, or within a run of katakana ("ロン" is not in "ロンドン").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from leia_beam.records import LATER_MENTION, PROSE, Anchor

MIN_CHARACTERS = 2
_COUNTED = re.compile(r"[^\s\u3041-\u309f]")
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_UNPARTED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts in which words touch, or (Hangul) take on particles: Thai, Lao, Burmese, Khmer, kana, Han, Hangul."""


def later_mentions(text: str, anchors: Sequence[Anchor], linked: Sequence[Anchor]) -> list[tuple[Anchor, int]]:
    """(a new anchor, the start of the one that it repeats) for each mention of one of the `linked` among all anchors.

    Anchors are sorted and apart, and so are mentions, also from anchors that are not linked. A text that leads to
    several places leads where the last of them before the mention does.
    """
    linked_starts = {anchor.start_char for anchor in linked}
    lengths = _lengths_by_first_characters(text, linked)
    found: list[tuple[Anchor, int]] = []
    latest: dict[str, Anchor] = {}
    for gap_start, gap_end, anchor in _gaps(len(text), anchors):
        found += _mentions_in(text, gap_start, gap_end, lengths, latest)
        if anchor is not None and anchor.start_char in linked_starts:
            shown = text[anchor.start_char : anchor.end_char]
            if _can_be_mentioned(shown):
                latest[shown] = anchor
    return found


def _gaps(end: int, anchors: Sequence[Anchor]) -> Iterator[tuple[int, int, Anchor | None]]:
    """(start, end, the anchor behind it) of what stands before, between and behind anchors."""
    at = 0
    for anchor in anchors:
        yield at, anchor.start_char, anchor
        at = anchor.end_char
    yield at, end, None


def _can_be_mentioned(shown: str) -> bool:
    return len(_COUNTED.findall(shown)) >= MIN_CHARACTERS


def _lengths_by_first_characters(text: str, anchors: Sequence[Anchor]) -> dict[str, list[int]]:
    """How long the texts are that begin with two characters, the longest first: few, however many the texts."""
    grouped: defaultdict[str, set[int]] = defaultdict(set)
    for shown in {text[anchor.start_char : anchor.end_char] for anchor in anchors}:
        if _can_be_mentioned(shown):
            grouped[shown[:2]].add(len(shown))
    return {first: sorted(lengths, reverse=True) for first, lengths in grouped.items()}


def _mentions_in(
    text: str, start: int, end: int, lengths: Mapping[str, list[int]], latest: Mapping[str, Anchor]
) -> Iterator[tuple[Anchor, int]]:
    at = start
    while at < end - 1:
        for length in lengths.get(text[at : at + 2], ()):
            anchor = latest.get(text[at : at + length]) if at + length <= end else None
            if anchor is not None and _stands_alone(text, at, at + length):
                mention = anchor._replace(start_char=at, end_char=at + length, kind=LATER_MENTION, block=PROSE)
                yield mention, anchor.start_char
                at += length
                break
        else:
            at += 1


def _stands_alone(text: str, start: int, end: int) -> bool:
    return not (_is_inside(text[start - 1 : start], text[start]) or _is_inside(text[end - 1], text[end : end + 1]))


def _is_inside(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    if not (left and right and left.isalnum() and right.isalnum()):
        return bool(left and right and _KATAKANA.match(left) and _KATAKANA.match(right))
    if _KATAKANA.match(left) or _KATAKANA.match(right):
        return bool(_KATAKANA.match(left) and _KATAKANA.match(right))
    return not (_UNPARTED.match(left) or _UNPARTED.match(right))
