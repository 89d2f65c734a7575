"""The first scan over wikitext: comments, templates, references and the like out, then tables; raw text set aside.

One regular expression finds what opens or closes something, an explicit stack holds what is open; tables come after
templates, as in MediaWiki. Time is linear in the page, nothing recurses, whatever the input. What is left holds no braces
that mean anything. Three marks stand in for what went:

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
    rf"<!--|<(?P<element>{_DROPPED}|{_RAW})(?=[\s/>])[^<>]*>|</?(?:{_SHOWN})\s*/?>|\{{\{{+|\}}\}}+", re.IGNORECASE
)
_RAW_ELEMENTS = frozenset(_RAW.split("|"))
_BLANKS = re.compile(r"[ \t]*")


@dataclass(slots=True)
class Preprocessed:
    """What the first scan leaves."""

    text: str
    payloads: list[str | InterlanguageLink]
    counters: Counter[str]
    is_disambiguation: bool = False


@dataclass(slots=True)
class _Frame:
    """Braces that are open, and what stands behind them so far."""

    braces: int
    pieces: list[str] = field(default_factory=list)


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
        self._pieces: list[str] = []
        """Where text goes: the innermost open braces' pieces, else the page's."""
        self._page = self._pieces
        self._stack: list[_Frame] = []
        self._lowered: str | None = None
        self._never_closed: set[str] = set()
        self._result = Preprocessed("", [], Counter())
        self._disambiguation = disambiguation_templates(wiki.language)

    def run(self) -> Preprocessed:
        source, position, search = self._source, 0, _TOKEN.search
        while (match := search(source, position)) is not None:
            start = match.start()
            if start > position:
                self._pieces.append(source[position:start])
            position = self._handle(match)
        self._pieces.append(source[position:])
        for frame in self._stack:  # never closed: text
            self._page.append("{" * frame.braces)
            self._page += frame.pieces
        self._result.text = _with_tables("".join(self._page), self._keep_tables, self._result.counters)
        return self._result

    def _emit(self, text: str) -> None:
        self._pieces.append(text)

    def _handle(self, match: re.Match[str]) -> int:
        """Act on a token. Returns where to go on."""
        token = match.group()
        if token[0] == "{":
            frame = _Frame(len(token))
            self._stack.append(frame)
            self._pieces = frame.pieces
        elif token[0] == "}":
            self._close_braces(len(token))
        elif token == "<!--":
            return self._comment(match)
        elif match.group("element"):
            return self._element(match)
        return match.end()

    def _comment(self, match: re.Match[str]) -> int:
        """Drop a comment; those that fill a whole line go with the line, as MediaWiki does."""
        source, begin = self._source, match.start()
        end = source.find("-->", match.end())
        if end < 0:
            return len(source)
        end += 3
        line = source.rfind("\n", max(0, begin - 200), begin)
        if line < 0 or source[line + 1 : begin].strip(" \t"):
            return end
        after = end
        while True:
            after = _BLANKS.match(source, after).end()  # type: ignore[union-attr]
            if source.startswith("\n", after):
                if self._pieces:
                    self._pieces[-1] = self._pieces[-1].rstrip(" \t")
                return after + 1
            close = source.find("-->", after + 4) if source.startswith("<!--", after) else -1
            if close < 0:
                return end
            after = close + 3

    def _element(self, match: re.Match[str]) -> int:
        name, tag = match.group("element").lower(), match.group()
        if tag.endswith("/>"):
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
        while run >= 2 and self._stack:
            frame = self._stack[-1]
            used = 3 if run >= 3 and frame.braces >= 3 else 2
            body = "".join(frame.pieces)
            shown = self._argument(body) if used == 3 else self._template(body)
            run -= used
            frame.braces -= used
            if frame.braces >= 2:
                frame.pieces[:] = [shown]
                continue
            self._stack.pop()
            self._pieces = self._stack[-1].pieces if self._stack else self._page
            self._pieces.append("{" * frame.braces + shown)
        if run:
            self._pieces.append("}" * run)

    @staticmethod
    def _argument(body: str) -> str:
        """A parameter `{{{name|default}}}` outside a template is its default; without one it stands as it is."""
        return body.split("|", 2)[1] if "|" in body else "{{{" + body + "}}}"

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


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_TABLE = re.compile(r"\{\||<table", re.IGNORECASE)
_TABLE_MARK = re.compile(
    rf"^[ \t:{HOLE}]*(?P<wiki>\{{\|)|^[ \t]*(?P<wiki_end>\|\}})|(?P<html><table(?=[\s/>])[^<>]*>)|(?P<html_end></table\s*>)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING_LINE = re.compile(r"^=", re.MULTILINE)
_HTML_TABLE_TAG = re.compile(
    r"<(?P<cell>/)?(?:td|th|caption)(?=[\s/>])[^<>]*>|<(?P<close>/)?(?P<name>table|tr|tbody|thead|tfoot|colgroup|col)(?=[\s/>])[^<>]*>",
    re.IGNORECASE,
)


def _with_tables(text: str, keep: bool, counters: Counter[str]) -> str:
    """The page without its tables, or with their cells one a line."""
    if _TABLE.search(text) is None:
        return text
    return _cells(text, counters) if keep else _without_tables(text, counters)


def _without_tables(text: str, counters: Counter[str]) -> str:
    """Tables out with what is nested in them. One that is never closed ends before the next heading."""
    pieces, position = [], 0
    for begin, end in _table_spans(text, counters):
        if begin >= position:
            pieces.append(text[position:begin])
        position = max(position, end)
    pieces.append(text[position:])
    return "\n".join(pieces)


def _table_spans(text: str, counters: Counter[str]) -> list[tuple[int, int]]:
    """Where tables stand, sorted by where they begin; those in others too."""
    spans, heading = [], -1
    open_: list[tuple[str, int]] = []
    count = Counter[str]()
    for match in _TABLE_MARK.finditer(text):
        kind, _, closes = (match.lastgroup or "").partition("_")
        if not closes:
            open_.append((kind, match.start()))
            count[kind] += 1
            continue
        begin = -1
        while count[kind] and begin < 0:
            opened, start = open_.pop()
            count[opened] -= 1
            begin = start if opened == kind else begin
        if begin >= 0:
            spans.append((begin, match.end()))
            counters["tables/dropped"] += 1
    for _, begin in open_:
        if heading < begin:
            found = _HEADING_LINE.search(text, begin)
            heading = found.start() if found is not None else len(text)
        spans.append((begin, heading))
        counters["tables/unclosed"] += 1
    return sorted(spans)


def _cells(text: str, counters: Counter[str]) -> str:
    """The page with each table's cells one a line, behind a CELL mark; lists and headings in cells as they are."""
    lines, depth = [], 0
    for line in _HTML_TABLE_TAG.sub(_html_mark, text).split("\n"):
        stripped = line.strip(" \t" + HOLE)
        if stripped.lstrip(" \t:").startswith("{|"):
            depth += 1
            counters["tables/kept"] += 1
            lines.append("")
        elif not depth:
            lines.append(line)
        elif stripped.startswith("|}"):
            depth -= 1
            lines += ["", stripped[2:]]
        elif stripped.startswith(("*", "#", ":", ";", "=")):
            lines.append(stripped)
        else:
            lines += [CELL + cell for cell in _cells_of_line(stripped) if cell]
    return "\n".join(lines)


def _html_mark(match: re.Match[str]) -> str:
    """A tag of an HTML table as the line of wiki markup that does the same."""
    name = (match.group("name") or "").lower()
    if not name:
        return "\n" if match.group("cell") else "\n" + CELL
    if name == "table":
        return "\n|}\n" if match.group("close") else "\n{|\n"
    return "\n|-\n"


def _cells_of_line(line: str) -> list[str]:
    """The cells that a line within a table holds: several behind `|` or `!`, else one that goes on."""
    if line.startswith("|-"):
        return []
    if line.startswith("|+"):
        return [_cell_text(line[2:])]
    if line.startswith("!"):
        return [_cell_text(cell) for cell in line[1:].replace("!!", "||").split("||")]
    if line.startswith("|"):
        return [_cell_text(cell) for cell in line[1:].split("||")]
    return [line.removeprefix(CELL).strip()]


def _cell_text(cell: str) -> str:
    """A cell without its attributes: what stands before the first bar, unless a link does."""
    attributes, bar, text = cell.partition("|")
    return (text if bar and "[[" not in attributes and "-{" not in attributes else cell).strip()
