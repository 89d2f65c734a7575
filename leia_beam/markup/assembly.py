"""The last pass: from text with marks to plain text and anchors, with offsets exact by construction."""

from __future__ import annotations

import re

from leia_beam.character_references import decode
from leia_beam.markup.marks import (
    BREAK,
    CAPTION,
    CAPTION_END,
    CELL,
    HEADING,
    ITEM,
    PAYLOAD,
    PAYLOAD_END,
    TABLE,
    TABLE_END,
    without_marks,
)
from leia_beam.markup.page_state import PageState, ShownLink
from leia_beam.records import CAPTION as CAPTION_BLOCK
from leia_beam.records import HEADING as HEADING_BLOCK
from leia_beam.records import INTERLANGUAGE_TEMPLATE, LINK, LIST, PROSE, Anchor
from leia_beam.records import TABLE as TABLE_BLOCK

_BLOCK_MARKS = HEADING + ITEM + CELL + CAPTION + CAPTION_END + TABLE + TABLE_END
_PAYLOAD = re.compile(f"{PAYLOAD}([^{PAYLOAD_END}]*){PAYLOAD_END}")
_IN_LABEL = re.compile(f"{PAYLOAD}(\\d+){PAYLOAD_END}")
_BLANKS = re.compile(r"[ \t\n]{2,}|\t")
_LINE_BLOCKS = {HEADING: HEADING_BLOCK, ITEM: LIST, CELL: TABLE_BLOCK}


def assemble(text: str, page: PageState) -> tuple[str, list[Anchor]]:
    """The plain text and the anchors, sorted and apart; anchors that are none are counted by the reason."""
    for (
        mark
    ) in _BLOCK_MARKS:  # in the form of payloads: a pattern that begins with one character is found five times faster
        text = text.replace(mark, f"{PAYLOAD}{mark}{PAYLOAD_END}")
    assembler = _Assembler(page)
    parts = _PAYLOAD.split(text)  # text, payload's number or mark, text, …
    assembler.add_text(parts[0])
    payloads = page.payloads
    for at in range(1, len(parts), 2):
        key, text = parts[at], parts[at + 1]
        if key.isdecimal():
            assembler.add_payload(payloads[int(key)])
        else:
            assembler.begin_block(key)
        if text:
            assembler.add_text(text)
    return "".join(assembler.pieces), assembler.anchors


def _blank(match: re.Match[str]) -> str:
    return "\n" if "\n" in match.group() else " "


class _Assembler:
    """Takes text and payloads in order and knows where it stands."""

    __slots__ = ("_block", "_captions", "_length", "_line_block", "_page", "_tables", "anchors", "pieces")

    def __init__(self, page: PageState):
        self.pieces: list[str] = []
        self.anchors: list[Anchor] = []
        self._page = page
        self._length = 0
        self._block = self._line_block = PROSE
        self._captions = self._tables = 0

    def add_text(self, text: str) -> None:
        if self._line_block is not PROSE and "\n" in text:
            self._line_block = PROSE
            self._set_block()
        if BREAK in text:
            text = text.replace(BREAK, "\n")
        self.pieces.append(text)
        self._length += len(text)

    def begin_block(self, mark: str) -> None:
        if mark in _LINE_BLOCKS:
            self._line_block = _LINE_BLOCKS[mark]
        elif mark == CAPTION:
            self._captions += 1
        elif mark == CAPTION_END:
            self._captions = max(0, self._captions - 1)
        else:
            self._tables = max(0, self._tables + (1 if mark == TABLE else -1))
        self._set_block()

    def _set_block(self) -> None:
        self._block = CAPTION_BLOCK if self._captions else TABLE_BLOCK if self._tables else self._line_block

    def add_payload(self, payload: str | ShownLink) -> None:
        if isinstance(payload, str):
            self.pieces.append(payload)
            self._length += len(payload)
            return
        label, target, foreign, no_anchor = payload
        if not label.isalnum():
            label = self._shown_label(label)
        start = self._length
        end = self._length = start + len(label)
        self.pieces.append(label)
        if no_anchor or not label:
            self._page.counters["anchors/dropped/" + (no_anchor or "no text")] += 1
            return
        _, _, _, _, title, fragment, foreign_wiki, foreign_title = target
        if foreign is None:
            anchor = Anchor(start, end, title, fragment, LINK, self._block, foreign_wiki, foreign_title)
        else:
            anchor = Anchor(start, end, title, fragment, INTERLANGUAGE_TEMPLATE, self._block, *foreign)
        self.anchors.append(anchor)

    def _shown_label(self, label: str) -> str:
        """A label as it is shown."""
        if PAYLOAD in label:
            label = _IN_LABEL.sub(self._raw, label)
        if not label.isprintable():
            label = without_marks(label.replace(BREAK, "\n"))
        if "&" in label:
            label = decode(label)
        return _BLANKS.sub(_blank, label).strip() if "  " in label or not label.isprintable() else label.strip()

    def _raw(self, match: re.Match[str]) -> str:
        payload = self._page.payloads[int(match.group(1))]
        return payload if isinstance(payload, str) else payload.label
