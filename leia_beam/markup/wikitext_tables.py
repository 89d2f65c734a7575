"""`{| … |}`: tables out, or their cells one a line, as MediaWiki cuts them (Parser::handleTables).

HTML tables have become marks before; both kinds go, or stay, by the same marks here.
"""

from __future__ import annotations

import re

from leia_beam.markup.marks import CELL, HOLE, TABLE, TABLE_END
from leia_beam.markup.page_state import PageState

_OPENING = re.compile(r"^:*[ \t]*\{\|")
_EDGE = re.compile(
    rf"\n(?P<template>[ \t]*{HOLE}[ \t{HOLE}]*(?=\n[ \t]*[|!]))"
    rf"|\n[ \t{HOLE}]*(?::*[ \t{HOLE}]*(?P<open>\{{\|)|(?P<close>\|\}}))[^\n]*"
)
_MARK = re.compile(f"[{TABLE}{TABLE_END}]")
_HEADING_LINE = re.compile(r"^==", re.MULTILINE)
_IGNORED = " \t" + HOLE


def with_tables(text: str, page: PageState) -> str:
    """The page without its tables, or with their cells one a line behind a mark."""
    if page.options.keeps("tables"):
        if "{|" in text:
            text = _cells(text)
        page.counters["tables/kept"] += text.count(TABLE)
        return text
    if "{|" in text or "\n|}" in text:
        text = _edges_marked(text)
    return _without_tables(text, page) if TABLE in text else text.replace(TABLE_END, "\n")


def _edges_marked(text: str) -> str:
    """The page with marks in place of the lines that begin and end tables; what follows an end on its line stays.

    A template that is not rendered begins a table where rows follow it, and the end of a table follows them.
    """
    depth = 0
    text = "\n" + text
    last_end = text.rfind("\n|}")

    def mark(match: re.Match[str]) -> str:
        nonlocal depth
        if match.group("template"):
            if depth or match.end() > last_end:
                return match.group()
            depth += 1
            return "\n" + TABLE
        if match.group("open"):
            depth += 1
            return "\n" + TABLE
        if not depth:
            return match.group()
        depth -= 1
        return "\n" + TABLE_END + match.group()[match.end("close") - match.start() :]

    return _EDGE.sub(mark, text)


def _without_tables(text: str, page: PageState) -> str:
    """Tables out with what is nested in them. One that is never closed ends before the next heading."""
    pieces, position, start = [], 0, 0
    open_starts: list[int] = []
    for match in _MARK.finditer(text):
        if match.group() == TABLE:
            if not open_starts:
                start = match.start()
            open_starts.append(match.start())
        elif open_starts:
            open_starts.pop()
            page.counters["tables/dropped"] += 1
            if not open_starts:
                pieces.append(text[position:start])
                position = match.end()
    for begin in open_starts[:1]:
        pieces.append(text[position:begin])
        heading = _HEADING_LINE.search(text, begin)
        position = heading.start() if heading is not None else len(text)
        page.counters["tables/unclosed"] += len(open_starts)
    pieces.append(text[position:])
    return _MARK.sub("\n", "\n".join(pieces))


def _cells(text: str) -> str:
    """The page with each wikitext table's cells one a line."""
    lines, depth = [], 0
    for line in text.split("\n"):
        stripped = line.strip(_IGNORED)
        if _OPENING.match(stripped):
            depth += 1
            lines.append(TABLE)
        elif not depth or not stripped:
            if not (depth and HOLE in line):
                lines.append(line)
        elif stripped.startswith("|}"):
            depth -= 1
            lines.append(TABLE_END + stripped[2:])
        elif stripped.startswith("|-"):
            continue
        elif stripped[0] in "|!":
            lines += [CELL + cell for cell in _cells_of_line(stripped)]
        else:
            lines.append(line)
    return "\n".join(lines) + TABLE_END * depth


def _cells_of_line(line: str) -> list[str]:
    if line.startswith("|+"):
        cells = line[2:].split("||")
    elif line.startswith("!"):
        cells = line[1:].replace("!!", "||").split("||")
    else:
        cells = line[1:].split("||")
    return [_cell_text(cell) for cell in cells]


def _cell_text(cell: str) -> str:
    """A cell without its attributes: what stands before the first bar, unless a link or a variant opens there."""
    attributes, bar, content = cell.partition("|")
    return (content if bar and "[[" not in attributes and "-{" not in attributes else cell).strip()
