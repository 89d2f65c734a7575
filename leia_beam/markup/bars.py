"""Where parameters are parted: at bars that are in no link."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\[\[|\]\]|\|")


def split_at_bars(text: str) -> list[str]:
    """The parts of a template's or a file's parameters.

    >>> split_at_bars("a|[[b|c]]|d")
    ['a', '[[b|c]]', 'd']
    """
    if "[[" not in text:
        return text.split("|")
    parts, depth, begin = [], 0, 0
    for match in _TOKEN.finditer(text):
        mark = match.group()
        if mark == "|":
            if depth == 0:
                parts.append(text[begin : match.start()])
                begin = match.end()
        else:
            depth = depth + 1 if mark == "[[" else max(0, depth - 1)
    parts.append(text[begin:])
    return parts
