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
_LINK = re.compile(rf"\[{PROTOCOLS}(?:\[[0-9a-f:.]+\]|{_IN_ADDRESS}){_IN_ADDRESS}*{_BLANKS}([^\]\n]*)\]", re.IGNORECASE)


def with_external_links_shown(text: str, page: PageState) -> str:
    """The text with the labels of external links in their place."""
    if "[" not in text:
        return text
    number = 0

    def shown(match: re.Match[str]) -> str:
        nonlocal number
        label = match.group(1)
        if label:
            return OPEN + label + CLOSE
        number += 1
        return f"[{number}]" if page.options.as_rendered else HOLE

    return _LINK.sub(shown, text)
