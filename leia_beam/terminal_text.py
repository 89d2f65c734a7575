"""From any text to what may be shown on a terminal or a page: nothing in it moves the cursor or the reading direction."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any

_JOINERS = "\u200c\u200d"
"""Part of words in Persian and Indic scripts, and of emoji."""
_ODD = re.compile(r"[^\n -~]")


def printable(text: str, kept: str = "") -> str:
    """A text in which whatever cannot be printed is escaped, but for the characters of `kept`.

    >>> printable("東京\\x1b[31m\\u202e")
    '東京\\\\x1b[31m\\\\u202e'
    """
    return "".join(
        each if is_harmless(each) or each in kept else each.encode("unicode_escape", "backslashreplace").decode()
        for each in text
    )


def is_harmless(text: str) -> bool:
    """Whether all of a text can be seen and none of it moves what stands around it."""
    return text.isprintable() or all(
        each.isprintable() or each in _JOINERS or unicodedata.category(each) == "Zs" for each in text
    )


def escaped_html(text: str) -> str:
    """A text as HTML shows it, line ends kept."""
    return html.escape(printable(text, "\n"))


def json_text(content: Any) -> str:
    """JSON whose strings hold nothing that cannot be printed, for people who look at it on a terminal.

    >>> json_text(["東京\\u202e"])
    '[\\n "東京\\\\u202e"\\n]\\n'
    """
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return _ODD.sub(
        lambda match: match.group() if match.group().isprintable() else json.dumps(match.group())[1:-1], text
    )
