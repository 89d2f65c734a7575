"""White space that shows nothing, and what a hole leaves behind: empty brackets, hanging commas."""

from __future__ import annotations

import re

from leia_beam.markup.marks import (
    BREAK,
    CAPTION,
    CAPTION_END,
    CELL,
    CLOSE,
    HEADING,
    HOLE,
    ITEM,
    OPEN,
    TABLE,
    TABLE_END,
)

_BRACKETS = {
    "(": ")",
    "（": "）",
    "[": "]",
    "［": "］",
    "〔": "〕",
    "【": "】",
    "「": "」",
    "『": "』",
    "〈": "〉",
    "《": "》",
}
_CLOSING = frozenset(_BRACKETS.values())
_AROUND_HOLES = " \t\u00a0、,，;；،؛:：/／" + HOLE
_BLANKS = " \t\u00a0"
_SENTENCE_ENDS = ".。।۔!?！？"
_COMMAS = "、,，;；،؛"
_BLANK_LINE_END = re.compile("[ \u00a0\u3000]+(?=[\n\r])")
_BLOCK_MARKS = HEADING + ITEM + CELL + CAPTION
_BREAK_CHARACTERS = "\n" + BREAK
_LINE_ENDS = _BREAK_CHARACTERS + TABLE + TABLE_END + CAPTION_END
_EDGES = re.compile(
    f"[ \r\n]*[{TABLE}{TABLE_END}{CAPTION}{CAPTION_END}][ \r\n{TABLE}{TABLE_END}{CAPTION}{CAPTION_END}]*"
)
_END_CHARACTERS = " \t\r\n\u00a0\u3000" + _BLOCK_MARKS + CAPTION_END + TABLE + TABLE_END
_OPENING_OF = {TABLE_END: TABLE, CAPTION_END: CAPTION}
_FRENCH = re.compile(r" (?=[?:;!%»›](?!\w))")


def with_spacing(text: str, is_as_rendered: bool) -> str:
    """The text with the breaks that blocks make, without holes, and with no more white space than shows.

    Within a line one blank stands for several, blanks at a line's ends go, and so do empty lines but one. An ideographic
    space at the start of a line stays: it is that paragraph's indent.
    """
    text = text.replace(OPEN, "").replace(CLOSE, "").replace("\t", " ")
    if HOLE in text:
        text = without_holes(text)
    text = _replaced(text, "  ", " ")
    for mark in _BLOCK_MARKS:
        if mark in text:
            text = _without_empty_lines(text, mark)
    if TABLE in text or TABLE_END in text or CAPTION in text:
        text = _EDGES.sub(_breaks_at_edges, text)
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    if "\u3000" in text or "\u00a0" in text:
        text = _BLANK_LINE_END.sub("", text)
    if BREAK in text:
        text = text.replace(" \r", "\r").replace("\r ", "\r")
        text = _with_single_breaks(text)
    text = _stripped(_replaced(text, "\n\n\n", "\n\n"))
    return _with_french_spaces(text) if is_as_rendered else text


def _with_french_spaces(text: str) -> str:
    """Blanks before `: ; ! ? % » ›` and behind `« ‹` do not break: MediaWiki shows them so in every language."""
    return _FRENCH.sub("\u00a0", text).replace("« ", "«\u00a0").replace("‹ ", "‹\u00a0")


def _stripped(text: str) -> str:
    """The text without white space at its ends; marks there are no text."""
    text = text.rstrip(_END_CHARACTERS)
    start = len(text) - len(text.lstrip(_END_CHARACTERS))
    return "".join(character for character in text[:start] if not character.isspace()) + text[start:]


def _replaced(text: str, old: str, new: str) -> str:
    """The text with a replacement made until there is nothing left of it; plain searches are the fastest there are."""
    while old in text:
        text = text.replace(old, new)
    return text


def _without_empty_lines(text: str, mark: str) -> str:
    """The lines that a mark begins without blanks in front, and gone, with the break before them, where nothing follows."""
    pieces = text.split(mark)
    for number in range(1, len(pieces)):
        content = pieces[number].lstrip(" \u00a0\u3000" + BREAK)
        if content and content[0] not in _LINE_ENDS:
            pieces[number] = mark + content
        else:
            pieces[number] = content
            pieces[number - 1] = (
                pieces[number - 1][:-1] if pieces[number - 1][-1:] in _BREAK_CHARACTERS else pieces[number - 1]
            )
    return "".join(pieces)


def _with_single_breaks(text: str) -> str:
    """Breaks of tags among those of the source: one break, or an empty line where the source has one."""
    parts = text.split(BREAK)
    pieces = [parts[0].rstrip("\n")]
    breaks = len(parts[0]) - len(pieces[0])
    for part in parts[1:]:
        content = part.lstrip("\n")
        breaks += len(part) - len(content)
        if not content:  # nothing between two breaks
            continue
        stripped = content.rstrip("\n")
        pieces += ["\n\n" if breaks > 1 else "\n" if breaks else BREAK, stripped]
        breaks = len(content) - len(stripped)
    pieces.append("\n" * breaks)
    return "".join(pieces)


def _breaks_at_edges(match: re.Match[str]) -> str:
    """The breaks around the edges of tables and captions in one: what ends, then a break, then what begins."""
    closed: list[str] = []
    opened: list[str] = []
    for mark in match.group():
        if mark in (TABLE, CAPTION):
            opened.append(mark)
        elif mark in _OPENING_OF and opened and opened[-1] == _OPENING_OF[mark]:
            opened.pop()
        elif mark in _OPENING_OF:
            closed.append(mark)
    between = "\n\n" if "\n\n" in match.group() else "\n"
    return "".join((*closed, between, *opened))


def without_holes(text: str) -> str:
    """Without holes, and without what goes with them: brackets left empty, commas left hanging at a bracket."""
    pieces: list[str] = []
    position = 0
    while (hole := text.find(HOLE, position)) >= 0:
        begin, end = hole, hole + 1
        while begin > position and text[begin - 1] in _AROUND_HOLES:
            begin -= 1
        while end < len(text) and text[end] in _AROUND_HOLES:
            end += 1
        before = text[begin - 1] if begin > position else ""
        after = text[end] if end < len(text) else ""
        if before in _BRACKETS and _BRACKETS[before] == after:
            begin, end = begin - 1, end + 1
            while begin > position and text[begin - 1] in " \t":
                begin -= 1
            pieces.append(text[position:begin])
        elif before in _BRACKETS or (after and after in _CLOSING):
            pieces.append(text[position:begin])
        else:
            gap = _gap(text[begin:end])
            pieces += [
                text[position:begin],
                "" if after and after in _SENTENCE_ENDS and not gap.strip(_BLANKS + _COMMAS) else gap,
            ]
        position = end
    pieces.append(text[position:])
    return "".join(pieces)


def _gap(around: str) -> str:
    """What stays of a hole and the commas and blanks around it, where no bracket stands there.

    >>> _gap(f", {HOLE}, "), _gap(f" {HOLE}, "), _gap(f" {HOLE} "), _gap(f": {HOLE} ")
    (', ', ', ', ' ', ': ')
    """
    before, after = around.split(HOLE, 1)[0], around.rsplit(HOLE, 1)[1]
    if after.lstrip(_BLANKS)[:1] in _COMMAS and after.strip(_BLANKS):
        return ("" if before.strip(_BLANKS)[-1:] in _COMMAS else before.rstrip(_BLANKS)) + after.lstrip(_BLANKS)
    if before and after and before[-1] in _BLANKS and after[0] in _BLANKS:
        return before + after[1:]
    return before + after
