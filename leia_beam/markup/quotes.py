"""Apostrophes: bold and italic become marks, the rest is text, by MediaWiki's own algorithm (Parser::doQuotes).

It works line by line. Four apostrophes are three and one of text before them, more than five are five and the rest of text.
Where both bold and italic are unbalanced, one bold gives up an apostrophe: the first after a single letter, else the first
after a longer word, else the first after a space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from leia_beam.markup.marks import CLOSE, OPEN

_LINE = re.compile(r"''[^\n]*")
_RUNS = re.compile(r"('{2,})")
_BOLD, _ITALIC, _BOTH = 3, 2, 5


def with_quotes_marked(text: str) -> str:
    """The text with marks for bold and italic, and with those apostrophes that are text."""
    if "''" not in text:
        return text
    pieces, position = [], 0
    for match in _LINE.finditer(text):
        begin = text.rfind("\n", position, match.start()) + 1 or position
        pieces += [text[position:begin], quotes_of_line(text[begin : match.end()])]
        position = match.end()
    pieces.append(text[position:])
    return "".join(pieces)


def quotes_of_line(line: str) -> str:
    """One line (or the label of a link, whose quotes are its own).

    >>> quotes_of_line("L'''amour'' is '''bold'''").replace(OPEN, "<").replace(CLOSE, ">")
    "L'<amour> is <bold>"
    """
    parts = _RUNS.split(line)  # text, run, text, run, …, text
    literal, runs = [], []
    for run in parts[1::2]:
        extra = 1 if len(run) == 4 else max(0, len(run) - _BOTH)
        literal.append(extra)
        runs.append(len(run) - extra)
    bold = sum(run != _ITALIC for run in runs)
    italic = sum(run != _BOLD for run in runs)
    if bold % 2 and italic % 2:
        _split_one_bold(parts, runs, literal)
    pieces, state = [parts[0]], _Quotes()
    for number, run in enumerate(runs):
        pieces += ["'" * literal[number], state.mark(run), parts[2 * number + 2]]
    return "".join(pieces)


class _Quotes:
    """What is open in a line."""

    def __init__(self) -> None:
        self._bold = self._italic = False

    def mark(self, run: int) -> str:
        marks = ""
        if run != _ITALIC:
            marks += CLOSE if self._bold else OPEN
            self._bold = not self._bold
        if run != _BOLD:
            marks += CLOSE if self._italic else OPEN
            self._italic = not self._italic
        return marks


def _split_one_bold(parts: Sequence[str], runs: list[int], literal: list[int]) -> None:
    """One bold becomes an apostrophe and an italic."""
    after_letter = after_word = after_space = -1
    for number, run in enumerate(runs):
        if run != _BOLD:
            continue
        before = parts[2 * number] + "'" * literal[number]
        if before[-1:] == " ":
            after_space = number if after_space < 0 else after_space
        elif before[-2:-1] == " ":
            after_letter = number
            break
        else:
            after_word = number if after_word < 0 else after_word
    chosen = next((number for number in (after_letter, after_word, after_space) if number >= 0), -1)
    if chosen >= 0:
        runs[chosen] = _ITALIC
        literal[chosen] += 1
