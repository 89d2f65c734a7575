"""HTML tags that MediaWiki lets through become marks; all others are text, as MediaWiki escapes them."""

from __future__ import annotations

import re

from leia_beam.markup.marks import BREAK, CELL, CLOSE, HEADING, ITEM, OPEN, TABLE, TABLE_END

_INLINE = frozenset(
    "abbr b bdi bdo big cite code data del dfn em font i ins kbd mark q rb rp rt rtc ruby s samp small span strike strong "
    "sub sup time tt u var wbr".split()
)
_BLOCKS = frozenset("blockquote br center div dl hr ol p pre ul".split())
_ITEMS = frozenset("dd dt li".split())
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_CELLS = frozenset("caption td th".split())
ALLOWED = _INLINE | _BLOCKS | _ITEMS | _HEADINGS | _CELLS | {"table", "tr"}
"""Elements that MediaWiki lets through (Sanitizer)."""

_TAG = re.compile(r"<(?P<slash>/?)(?P<name>[A-Za-z][^\s/><\x00-\x1f]*)(?P<attributes>[^<>]*)>")
_HIDING = re.compile(r"\bdisplay\s*:\s*none\b", re.IGNORECASE)
_MAX_ATTRIBUTE_CHARS = 1000


def with_tags_marked(text: str) -> str:
    """The text with marks for tags: OPEN or CLOSE within a line, breaks for blocks, tables by their own marks."""
    if "<" not in text:
        return text
    if "display" in text:
        text = _without_hidden(text)
    return _TAG.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    slash, name = match.group("slash"), match.group("name").lower()
    if name in _INLINE:
        if name == "wbr" or match.group("attributes").endswith("/"):
            return OPEN + CLOSE
        return CLOSE if slash else OPEN
    if name in _BLOCKS:
        return BREAK
    if name in _ITEMS:
        return BREAK if slash else BREAK + ITEM
    if name in _CELLS:
        return BREAK if slash else BREAK + CELL
    if name in _HEADINGS:
        return "\n\n" if slash else "\n\n" + HEADING
    if name == "table":
        return TABLE_END if slash else TABLE
    if name == "tr":
        return BREAK
    return match.group()


def _without_hidden(text: str) -> str:
    """The text without elements whose style says `display: none`. One that is never closed is not hidden."""
    pieces, position = [], 0
    never_closed: set[str] = set()
    while (match := _TAG.search(text, position)) is not None:
        end = _end_of_element(text, match, never_closed) if _hides(match) else -1
        if end < 0:
            end = match.end()
            pieces.append(text[position:end])
        else:
            pieces += [text[position : match.start()], OPEN + CLOSE]
        position = end
    pieces.append(text[position:])
    return "".join(pieces)


def _hides(match: re.Match[str]) -> bool:
    attributes = match.group("attributes")
    return (
        "display" in attributes
        and len(attributes) <= _MAX_ATTRIBUTE_CHARS
        and not match.group("slash")
        and not attributes.endswith("/")
        and match.group("name").lower() in ALLOWED
        and _HIDING.search(attributes) is not None
    )


def _end_of_element(text: str, opening: re.Match[str], never_closed: set[str]) -> int:
    """Where an element ends, those of the same name within it counted; -1 if nowhere."""
    name, depth = opening.group("name").lower(), 1
    if name in never_closed:
        return -1
    for match in re.compile(rf"<(/?){name}(?=[\s/>])[^<>]*>", re.IGNORECASE).finditer(text, opening.end()):
        depth += -1 if match.group(1) else (0 if match.group().endswith("/>") else 1)
        if depth == 0:
            return match.end()
    never_closed.add(name)
    return -1
