"""The first scan over wikitext: comments, templates, tables, references and the like out; raw text set aside.

One regular expression finds what opens or closes something, an explicit stack holds what is open: time is linear in the
page, nothing recurses, whatever the input. What is left holds no braces that mean anything. Three marks stand in for
what went:

- PAYLOAD number PAYLOAD_END: raw text (nowiki, pre, …) or an interlanguage link, in the list of payloads;
- HOLE: a template that came to nothing stood here, so that empty brackets around it can go too;
- CELL at the start of a line: the line is a table's cell.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from leia_beam.templates import (
    MAX_RENDERED_CHARS,
    InterlanguageLink,
    disambiguation_templates,
    parse_call,
    render_call,
)
from leia_beam.wikis import Wiki

PAYLOAD, PAYLOAD_END, HEADING, ITEM, CELL, HOLE = "\x02", "\x03", "\x04", "\x05", "\x06", "\x07"
"""Marks: control characters, which XML cannot hold and `without_marks` takes out of what comes from elsewhere."""

_MARKS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_DROPPED = (
    "ref|references|math|chem|ce|gallery|timeline|hiero|score|imagemap|templatestyles|style|script|graph|mapframe|maplink"
    "|indicator|inputbox|categorytree|templatedata|section|includeonly"
)
_RAW = "nowiki|pre|syntaxhighlight|source"
_SHOWN = "noinclude|onlyinclude"
_TOKEN = re.compile(
    rf"<!--|<(?P<element>{_DROPPED}|{_RAW}|table)(?=[\s/>])[^<>]*>|</?(?:{_SHOWN})\s*/?>|</(?P<table_end>table)\s*>"
    r"|\{\{+|\}\}+|(?:(?<=\n)|^)[ \t:]*(?P<table>\{\|)|(?:(?<=\n)|^)[ \t]*(?P<table_close>\|\})(?!\})",
    re.IGNORECASE,
)
_RAW_ELEMENTS = frozenset(_RAW.split("|"))
_HEADING_LINE = re.compile(r"^=", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*(?:\|-|\{\||\|\})")
_CELL_ATTRIBUTES = re.compile(r"[^|\[\]{}\n]*=[^|\[\]{}\n]*\|(?!\|)")


@dataclass(slots=True)
class Preprocessed:
    """What the first scan leaves."""

    text: str
    payloads: list[str | InterlanguageLink]
    counters: Counter[str]
    is_disambiguation: bool = False


@dataclass(slots=True)
class _Frame:
    """What is open: braces ('{', with how many are left), a table in wiki markup ('t'), or one in HTML ('T')."""

    kind: str
    opening: str = ""
    pieces: list[str] = field(default_factory=list)
    braces: int = 0


def without_marks(text: str) -> str:
    """Text without the control characters that serve as marks here."""
    return _MARKS.sub("", text)


def preprocess(wikitext: str, wiki: Wiki, keep_tables: bool) -> Preprocessed:
    """Run the first scan."""
    return _Preprocessor(without_marks(wikitext), wiki, keep_tables).run()


class _Preprocessor:
    def __init__(self, wikitext: str, wiki: Wiki, keep_tables: bool):
        self._source = wikitext
        self._wiki = wiki
        self._keep_tables = keep_tables
        self._bottom: list[str] = []
        self._stack: list[_Frame] = []
        self._open_braces = 0
        self._lowered: str | None = None
        self._never_closed: set[str] = set()
        self._result = Preprocessed("", [], Counter())
        self._disambiguation = disambiguation_templates(wiki.language)

    def run(self) -> Preprocessed:
        source, position = self._source, 0
        while (match := _TOKEN.search(source, position)) is not None:
            if match.start() > position:
                self._emit(source[position : match.start()])
            position = self._handle(match)
        self._emit(source[position:])
        while self._stack:
            self._close_unclosed(self._stack.pop())
        self._result.text = "".join(self._bottom)
        return self._result

    def _emit(self, text: str) -> None:
        (self._stack[-1].pieces if self._stack else self._bottom).append(text)

    def _handle(self, match: re.Match[str]) -> int:
        """Act on a token. Returns where to go on."""
        token = match.group()
        if token == "<!--":
            return self._comment(match)
        if token.startswith("{{"):
            self._stack.append(_Frame("{", braces=len(token)))
            self._open_braces += 1
        elif token.startswith("}}"):
            self._close_braces(len(token))
        elif match.group("table"):
            self._stack.append(_Frame("t", token))
        elif match.group("table_close"):
            self._close_table("t", token)
        elif match.group("table_end"):
            self._close_table("T", "")
        elif match.group("element"):
            return self._element(match)
        return match.end()

    def _comment(self, match: re.Match[str]) -> int:
        """Drop a comment; one that fills whole lines goes with its line, as MediaWiki does."""
        source, begin = self._source, match.start()
        end = source.find("-->", match.end())
        if end < 0:
            return len(source)
        end += 3
        line = source.rfind("\n", max(0, begin - 200), begin)
        if line >= 0 and not source[line + 1 : begin].strip(" \t"):
            after = end
            while after < len(source) and source[after] in " \t":
                after += 1
            if source[after : after + 1] == "\n":
                return after + 1
        return end

    def _element(self, match: re.Match[str]) -> int:
        name, tag = match.group("element").lower(), match.group()
        if tag.endswith("/>"):
            return match.end()
        if name == "table":
            self._stack.append(_Frame("T", tag))
            return match.end()
        close = self._find_close(name, match.end())
        if close < 0:
            if name == "includeonly":
                return len(self._source)
            self._emit(without_marks(tag))
            return match.end()
        if name in _RAW_ELEMENTS:
            self._raw(name, self._source[match.end() : close])
        after = self._source.find(">", close)
        return len(self._source) if after < 0 else after + 1

    def _raw(self, name: str, content: str) -> None:
        """Text that is shown as it stands: no markup in it counts."""
        if name == "pre":
            content = content.replace("<nowiki>", "").replace("</nowiki>", "")
        mark = self._payload(content)
        self._emit(mark if name == "nowiki" else f"\n{mark}\n")

    def _payload(self, payload: str | InterlanguageLink) -> str:
        self._result.payloads.append(payload)
        return f"{PAYLOAD}{len(self._result.payloads) - 1}{PAYLOAD_END}"

    def _find_close(self, name: str, begin: int) -> int:
        if name in self._never_closed:
            return -1
        if self._lowered is None:
            lowered = self._source.lower()
            self._lowered = lowered if len(lowered) == len(self._source) else self._source
        close = self._lowered.find("</" + name, begin)
        if close < 0:
            self._never_closed.add(name)
        return close

    def _close_braces(self, run: int) -> None:
        """Match a run of closing braces with what is open: three with three, else two with two."""
        while run >= 2 and self._open_braces:
            self._drop_tables_above_braces()
            frame = self._stack[-1]
            used = 3 if run >= 3 and frame.braces >= 3 else 2
            body = "".join(frame.pieces)
            shown = self._argument(body) if used == 3 else self._template(body)
            run -= used
            frame.braces -= used
            if frame.braces >= 2:
                frame.pieces = [shown]
                continue
            self._stack.pop()
            self._open_braces -= 1
            self._emit("{" * frame.braces + shown)
        if run:
            self._emit("}" * run)

    def _drop_tables_above_braces(self) -> None:
        """Templates are matched before tables are: a table that is still open ends with the template around it."""
        while self._stack[-1].kind != "{":
            self._stack.pop()
            self._emit("\n")

    @staticmethod
    def _argument(body: str) -> str:
        """A parameter `{{{name|default}}}` outside a template is its default."""
        return body.partition("|")[2].partition("|")[0] if "|" in body else ""

    def _template(self, body: str) -> str:
        call = parse_call(body, self._wiki) if len(body) <= MAX_RENDERED_CHARS else None
        if call is not None and call.name in self._disambiguation:
            self._result.is_disambiguation = True
        rendered = render_call(call, self._wiki) if call is not None else None
        if rendered is None:
            self._result.counters["templates/dropped"] += 1
            return HOLE
        self._result.counters["templates/rendered"] += 1
        return rendered if isinstance(rendered, str) else self._payload(rendered)

    def _close_table(self, kind: str, token: str) -> None:
        if not any(frame.kind == kind for frame in self._stack[-8:]):
            self._emit(token)
            return
        while self._stack[-1].kind != kind:
            frame = self._stack.pop()
            if frame.kind == "{":
                self._open_braces -= 1
                self._emit("{" * frame.braces)
                self._emit("".join(frame.pieces))
            else:
                self._emit("\n")
        frame = self._stack.pop()
        self._emit("\n" + self._table_text(frame) + "\n")

    def _table_text(self, frame: _Frame) -> str:
        self._result.counters["tables/kept" if self._keep_tables else "tables/dropped"] += 1
        body = "".join(frame.pieces)
        if not self._keep_tables:
            return ""
        return _cells_of_html(body) if frame.kind == "T" else _cells_of_wiki_table(body)

    def _close_unclosed(self, frame: _Frame) -> None:
        """The page ended: open braces are text; an open table ends before the first heading in it."""
        body = "".join(frame.pieces)
        if frame.kind == "{":
            self._emit("{" * frame.braces + body)
            return
        self._result.counters["tables/unclosed"] += 1
        heading = _HEADING_LINE.search(body)
        if heading is not None:
            self._emit("\n" + body[heading.start() :])


def _cells_of_wiki_table(body: str) -> str:
    """A table's cells, one a line, each behind a CELL mark. The first line of `body` is the table's own attributes."""
    lines = []
    for line in body.split("\n")[1:]:
        stripped = line.strip()
        if not stripped or _ROW.match(stripped):
            continue
        if stripped.startswith("|+"):
            cells = [stripped[2:]]
        elif stripped.startswith("!"):
            cells = stripped[1:].replace("!!", "||").split("||")
        elif stripped.startswith("|"):
            cells = stripped[1:].split("||")
        else:
            cells = [stripped]
        lines += [CELL + _CELL_ATTRIBUTES.sub("", cell, count=1).strip() for cell in cells if cell.strip()]
    return "\n".join(lines)


_HTML_CELL = re.compile(r"<(?:td|th|caption)\b[^<>]*>", re.IGNORECASE)
_HTML_TABLE_TAG = re.compile(r"</?(?:td|th|tr|caption|tbody|thead|tfoot|colgroup|col)\b[^<>]*>", re.IGNORECASE)


def _cells_of_html(body: str) -> str:
    """The same for a table in HTML."""
    cells = (_HTML_TABLE_TAG.sub("", part) for part in _HTML_CELL.split(body)[1:])
    return "\n".join(CELL + " ".join(cell.split()) for cell in cells if cell.strip())
