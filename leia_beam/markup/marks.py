"""The marks that passes leave in a page's text for the passes after them.

All are control characters that XML cannot hold and (but for BREAK) that Python does not take for white space.
`without_marks` takes them out of whatever comes from elsewhere, so a mark in the text is always one of ours.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "\x01", "\x04"
"""A tag, or an apostrophe mark that acts as one, that opens or closes: invisible, but no blank and no letter."""
PAYLOAD, PAYLOAD_END = "\x02", "\x03"
"""PAYLOAD number PAYLOAD_END: what is set aside in the page's payloads (a link, raw text)."""
BREAK = "\r"
"""A line break that a tag made: no line begins there for markup that counts at the start of a line, and the block goes on."""
HEADING, ITEM, CELL = "\x05", "\x06", "\x08"
"""At the start of a line: the line is a heading, a list's item, a table's cell."""
HOLE = "\x07"
"""Something that is not rendered stood here, so that brackets it leaves empty can go too."""
CAPTION, CAPTION_END = "\x14", "\x0e"
TABLE, TABLE_END = "\x0f", "\x10"
BAR = "\x11"
"""A bar that a template within a template's arguments came to: it parts no arguments."""
FOREIGN, FOREIGN_END = "\x12", "\x13"
"""FOREIGN number FOREIGN_END at the end of a link's target: the foreign article that an interlanguage template names."""

_MARKS = re.compile("[\x00-\x08\x0b-\x1f]")
_MARK_BYTES = bytes([*range(9), *range(11, 32)])


def without_marks(text: str) -> str:
    """Text without the control characters that serve as marks here.

    Most texts have none, which deleting bytes tells at about 1 ns a byte, where the regular expression takes 4 to 8.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded.translate(None, _MARK_BYTES)) == len(encoded):
        return text
    return _MARKS.sub("", text)
