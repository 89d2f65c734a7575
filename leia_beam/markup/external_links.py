"""`[http://… label]`: its label stays; without a label it shows a number to the reader of the page, else nothing."""

from __future__ import annotations

import re

from leia_beam.markup.marks import CLOSE, HOLE, OPEN
from leia_beam.markup.page_state import PageState

PROTOCOLS = (
    "(?:(?:bitcoin|geo|magnet|mailto|matrix|news|sips?|sms|tel|urn|xmpp):|"
    "(?:(?:ftps?|git|gopher|https?|ircs?|mms|nntp|redis|sftp|ssh|svn|telnet|worldwind):)?//)"
)
"""MediaWiki's default protocols, with `//` for that of the page."""
_IN_ADDRESS = r'[^\]\[<>"\x00-\x20\x7f\u00a0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000\ufffd]'
_BLANKS = r"[ \u00a0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]*"
_HEAD = re.compile(rf"\[{PROTOCOLS}(?:\[[0-9a-f:.]+\]|{_IN_ADDRESS}){_IN_ADDRESS}*{_BLANKS}", re.IGNORECASE)


def with_external_links_shown(text: str, page: PageState) -> str:
    """The text with the labels of external links in their place. A label ends with its line at the latest."""
    if "[" not in text:
        return text
    pieces, position, number = [], 0, 0
    bracket = line_end = -1
    while (match := _HEAD.search(text, position)) is not None:
        begin = match.end()
        bracket = _next(text, "]", begin, bracket)
        line_end = _next(text, "\n", begin, line_end)
        if bracket >= line_end:
            pieces.append(text[position:begin])
            position = begin
            continue
        label = text[begin:bracket]
        number += not label
        without_label = f"[{number}]" if page.options.as_rendered else HOLE
        pieces += [text[position : match.start()], OPEN + label + CLOSE if label else without_label]
        position = bracket + 1
    pieces.append(text[position:])
    return "".join(pieces)


def _next(text: str, mark: str, begin: int, known: int) -> int:
    """Where a mark stands next, or the text's length; `known` is the last answer, so each stretch is searched once."""
    if known >= begin:
        return known
    found = text.find(mark, begin)
    return found if found >= 0 else len(text)
