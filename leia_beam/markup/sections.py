"""Headings, and the sections that are not running text (references, see also, external links and the like)."""

from __future__ import annotations

import re

from leia_beam.markup.marks import CLOSE, HEADING, HOLE, OPEN, PAYLOAD, PAYLOAD_END
from leia_beam.markup.page_state import PageState
from leia_beam.markup.templates import end_matter_titles

_LINE = re.compile(r"\n=[^\n]*")
_INVISIBLE = re.compile(f"[{OPEN}{CLOSE}{HOLE}]|{PAYLOAD}\\d+{PAYLOAD_END}|'{{2,}}")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")


def with_sections(text: str, page: PageState) -> str:
    """The page with a mark before each heading, and without the sections that are not wanted."""
    text = "\n" + text
    if "\n=" not in text:
        return text
    options = page.options
    end_matter = frozenset() if options.keeps("end_matter") else end_matter_titles(page.wiki.language)
    keeps_headings = options.keeps("headings")
    pieces, position, skipped_level = [], 0, 0
    for match in _LINE.finditer(text):
        heading = parse_heading(match.group()[1:])
        if heading is None:
            continue
        level, title = heading
        if skipped_level and level > skipped_level:
            continue
        if not skipped_level:
            pieces.append(text[position : match.start()])
        position = match.end()
        plain = _plain(title)
        skipped_level = level if plain in end_matter else 0
        if skipped_level:
            page.counters["sections/dropped"] += 1
            page.tally("end matter", plain)
        else:
            pieces.append(f"\n\n{HEADING}{title}\n" if keeps_headings else "\n\n")
    if not skipped_level:
        pieces.append(text[position:])
    return "".join(pieces)


def parse_heading(line: str) -> tuple[int, str] | None:
    """(level, title) of a heading line, or None. The level is that of the shorter side, at most six.

    >>> parse_heading("== Kyoto =="), parse_heading("=== a =="), parse_heading("=====")
    ((2, 'Kyoto'), (2, '= a'), (2, '='))
    """
    stripped = line.rstrip(" \t" + HOLE)
    if len(stripped) < 3 or not stripped.endswith("="):
        return None
    inner = stripped.strip("=")
    if not inner:
        level = min((len(stripped) - 1) // 2, 6)
    else:
        level = min(len(stripped) - len(stripped.lstrip("=")), len(stripped) - len(stripped.rstrip("=")), 6)
    return level, stripped[level : len(stripped) - level].strip(" \t")


def _plain(title: str) -> str:
    return _LINK.sub(r"\1", _INVISIBLE.sub("", title)).strip().rstrip(":：").casefold()
