"""Character references: `&amp;`, `&#8211;`, `&#x3b1;` to characters, as a browser shows what MediaWiki lets through."""

from __future__ import annotations

import re
from html.entities import html5

_REFERENCE = re.compile(r"&(?:#(?:[0-9]{1,7}|[xX][0-9a-fA-F]{1,6})|[A-Za-z][A-Za-z0-9]{1,31}|[\u0590-\u06ff]{2,5});")
_BY_MEDIAWIKI = {"רלמ;": "\u200f", "رلم;": "\u200f"}
"""Names in Hebrew and Arabic that MediaWiki adds: the right-to-left mark."""


def decode(text: str) -> str:
    """Text with its character references decoded; only those that end with a semicolon and are valid are any.

    >>> decode("AT&amp;T &copyright; Rock&region &#8211; &#2;")
    'AT&T &copyright; Rock&region – &#2;'
    """
    return _REFERENCE.sub(_decoded, text) if "&" in text else text


def _decoded(match: re.Match[str]) -> str:
    reference = match.group()
    if reference[1] != "#":
        name = reference[1:]
        return html5.get(name) or _BY_MEDIAWIKI.get(name, reference)
    digits = reference[2:-1]
    code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return chr(code) if _is_valid(code) else reference


def _is_valid(code: int) -> bool:
    """Whether MediaWiki lets a code point through."""
    return (
        code in (9, 10)
        or 0x20 <= code < 0x7F
        or 0xA0 <= code <= 0xD7FF
        or 0xE000 <= code <= 0xFFFD
        or 0x10000 <= code <= 0x10FFFF
    )
