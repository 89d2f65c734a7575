"""The first pass: comments, extension elements and braces, as MediaWiki's preprocessor takes them.

One regular expression finds what opens something outside braces, another what counts within them; an explicit stack holds
what is open, so nothing recurses and time is linear in the page, whatever the input. As in MediaWiki a `[[` within a call
keeps its bars together, and a call in which a link is left open is text. What is left holds no braces that mean anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from leia_beam.character_references import decode
from leia_beam.markup.galleries import gallery_captions
from leia_beam.markup.marks import BAR, BREAK, CLOSE, HOLE, OPEN, without_marks
from leia_beam.markup.page_state import PageState
from leia_beam.markup.templates import MAX_RENDERED_CHARS, expand, template_name

_HIDDEN = (
    "ref|references|templatestyles|indicator|inputbox|categorytree|templatedata|section|includeonly|"
    "charinsert|languages|rss|seo|page-collection"
)
_HOLES = "math|chem|ce|timeline|hiero|score|imagemap|graph|mapframe|maplink|phonos|chart"
"""Elements whose rendering is no text: a hole is left where they stand."""
_RAW = "nowiki|pre|syntaxhighlight|source"
_ELEMENTS = f"{_HIDDEN}|{_HOLES}|{_RAW}|gallery|poem"
_SHOWN = "noinclude|onlyinclude|langconvert"
"""Elements that vanish as tags only."""
_COMMON = rf"<(?:!--|(?P<element>{_ELEMENTS})(?=[\s/>])|(?P<shown>/?(?:{_SHOWN}))(?=[\s/>]))"
_OUTSIDE = re.compile(rf"{_COMMON}|\{{\{{+", re.IGNORECASE)
_INSIDE = re.compile(rf"{_COMMON}|\{{\{{+|\}}\}}+|\[\[|\]\]", re.IGNORECASE)
_SIMPLE_CALL = re.compile(r"\{\{(?!\{)([^{}\[\]<]*)\}\}(?!\})")
_EDGE_OF_SECTION = re.compile(r"\s(?:begin|end)\s*=", re.IGNORECASE)
_HOLE_ELEMENTS = frozenset(_HOLES.split("|"))
_HIDDEN_ELEMENTS = frozenset(_HIDDEN.split("|"))
_RAW_ELEMENTS = frozenset(_RAW.split("|"))
_STARTS_A_LINE = re.compile(r"\{\||[:;#*]")
_POEM_INDENT = re.compile(r"^:+", re.MULTILINE)
_INLINE_CODE = re.compile(r"\sinline(?=[\s=/>])", re.IGNORECASE)
_WHITE_SPACE = re.compile(r"[ \t\n]+")
_BLANKS = " \t"


@dataclass(slots=True)
class _Frame:
    """Braces that are open, what stands behind them so far, and how many links are open in it."""

    braces: int
    pieces: list[str] = field(default_factory=list)
    open_links: int = 0


def preprocess(wikitext: str, page: PageState) -> str:
    """The page without comments, templates, references and the like. A raw element is set aside."""
    return _Preprocessor(wikitext, page).run()


def _find_closing_tag(source: str, name: str, begin: int) -> re.Match[str] | None:
    """The next closing tag of an element. Plain searches for `</` are many times faster than one without regard to case."""
    pattern = _closing_tag(name)
    while (begin := source.find("</", begin)) >= 0:
        match = pattern.match(source, begin)
        if match is not None:
            return match
        begin += 2
    return None


@lru_cache(maxsize=256)
def _closing_tag(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{re.escape(name)}\s*>", re.IGNORECASE)


class _Preprocessor:
    def __init__(self, wikitext: str, page: PageState):
        self._source = wikitext
        self._page = page
        self._top: list[str] = []
        self._stack: list[_Frame] = []
        self._pieces = self._top
        """Where text goes: the innermost open braces' pieces, else the page's."""
        self._never_closed: set[str] = set()

    def run(self) -> str:
        source, position = self._source, 0
        while True:
            match = (_INSIDE if self._stack else _OUTSIDE).search(source, position)
            if match is None:
                break
            start = match.start()
            if start > position:
                self._pieces.append(source[position:start])
            position = self._handle(match)
        self._pieces.append(source[position:])
        for frame in self._stack:  # never closed: text
            self._top.append("{" * frame.braces)
            self._top += frame.pieces
        return "".join(self._top).replace(BAR, "|")

    def _handle(self, match: re.Match[str]) -> int:
        """Act on a token. Returns where to go on."""
        token = match.group()
        first = token[0]
        if first == "{":
            return self._open_braces(match)
        if first == "}":
            return self._close_braces(match)
        if first == "<":
            if token == "<!--":
                return self._comment(match)
            return self._element(match) if match.group("element") else self._shown_tag(match)
        frame = self._stack[-1]
        if first == "[":
            frame.open_links += 1
        elif frame.open_links:
            frame.open_links -= 1
        self._pieces.append(token)
        return match.end()

    # comments and elements

    def _comment(self, match: re.Match[str]) -> int:
        """Drop a comment; those that fill a whole line go with the line, as MediaWiki does."""
        source, begin = self._source, match.start()
        close = source.find("-->", match.end())
        if close < 0:
            return len(source)
        end = close + 3
        line = begin
        while line and source[line - 1] in _BLANKS:
            line -= 1
        if line == 0 or source[line - 1] != "\n":
            return end
        after = end
        while True:
            while after < len(source) and source[after] in _BLANKS:
                after += 1
            if source.startswith("\n", after):
                if begin > line and self._pieces:
                    self._pieces[-1] = self._pieces[-1].rstrip(_BLANKS)
                return after + 1
            close = source.find("-->", after + 4) if source.startswith("<!--", after) else -1
            if close < 0:
                return end
            after = close + 3

    def _element(self, match: re.Match[str]) -> int:
        """An extension's element: hidden, a hole, raw text or a gallery."""
        source, name = self._source, match.group("element").lower()
        tag_end = source.find(">", match.end())
        if tag_end < 0:
            self._pieces.append(match.group())
            return match.end()
        begin = tag_end + 1
        if name == "section" and not _EDGE_OF_SECTION.search(source, match.end(), tag_end):
            self._pieces.append(source[match.start() : begin])
            return begin
        if source[tag_end - 1] == "/":
            self._pieces.append(HOLE if name in _HOLE_ELEMENTS else OPEN + CLOSE)
            return begin
        closing = None if name in self._never_closed else _find_closing_tag(source, name, begin)
        if closing is None:
            if name == "includeonly":
                return len(source)
            self._never_closed.add(name)
            self._pieces.append(source[match.start() : begin])
            return begin
        self._pieces.append(self._shown_element(name, source[match.start() : begin], source[begin : closing.start()]))
        return closing.end()

    def _shown_element(self, name: str, tag: str, content: str) -> str:
        if name in _HIDDEN_ELEMENTS:
            return "" if name == "includeonly" else OPEN + CLOSE
        if name in _RAW_ELEMENTS:
            return self._raw(name, tag, content)
        if name == "poem":
            return "\n" + preprocess(_POEM_INDENT.sub("", content), self._page) + "\n"
        if name == "gallery" and self._page.options.keeps("captions"):
            return gallery_captions(tag, preprocess(content, self._page), self._page)
        return HOLE

    def _raw(self, name: str, tag: str, content: str) -> str:
        """Text that is shown as it stands: no markup in it counts, character references do but in code."""
        if name == "pre":
            content = content.replace("<nowiki>", "").replace("</nowiki>", "")
        shown = content if name in ("syntaxhighlight", "source") else without_marks(decode(content))
        if name == "nowiki":
            return self._running_text(shown)
        if not shown.strip():
            return BREAK
        mark = self._page.set_aside(shown.strip("\n").rstrip())
        return mark if _INLINE_CODE.search(tag) else f"{BREAK}{mark}{BREAK}"

    def _running_text(self, shown: str) -> str:
        """Text without markup in a line: its white space counts as elsewhere."""
        text = _WHITE_SPACE.sub(lambda match: "\n" if "\n" in match.group() else " ", shown)
        stripped = text.strip()
        mark = self._page.set_aside(stripped) if stripped else OPEN + CLOSE
        return " " * text[:1].isspace() + mark + " " * text[-1:].isspace()

    def _shown_tag(self, match: re.Match[str]) -> int:
        """A tag that vanishes while what it holds stays."""
        tag_end = self._source.find(">", match.end())
        if tag_end < 0:
            self._pieces.append(match.group())
            return match.end()
        return tag_end + 1

    # braces

    def _open_braces(self, match: re.Match[str]) -> int:
        simple = _SIMPLE_CALL.match(self._source, match.start())
        if simple is not None:
            self._pieces.append(self._call(simple.group(1)))
            return simple.end()
        frame = _Frame(match.end() - match.start())
        self._stack.append(frame)
        self._pieces = frame.pieces
        return match.end()

    def _close_braces(self, match: re.Match[str]) -> int:
        """Match a run of closing braces with what is open: three with three, else two with two."""
        run = match.end() - match.start()
        while run >= 2 and self._stack and not self._stack[-1].open_links:
            frame = self._stack[-1]
            used = 3 if run >= 3 and frame.braces >= 3 else 2
            self._stack.pop()
            self._pieces = self._stack[-1].pieces if self._stack else self._top
            body = "".join(frame.pieces)
            shown = self._parameter(body) if used == 3 else self._call(body, frame.braces == 2)
            run -= used
            frame.braces -= used
            if frame.braces >= 2:
                frame.pieces = [shown]
                self._stack.append(frame)
                self._pieces = frame.pieces
            else:
                self._pieces.append("{" * frame.braces + shown)
        if run:
            self._pieces.append("}" * run)
        return match.end()

    @staticmethod
    def _parameter(body: str) -> str:
        """A parameter `{{{name|default}}}` outside a template is its default; without one it stands as it is."""
        if len(body) > MAX_RENDERED_CHARS:
            return HOLE
        return body.split("|", 2)[1] if "|" in body else "{{{" + body + "}}}"

    def _call(self, body: str, may_start_line: bool = True) -> str:
        """What a call comes to. A table or a list that a template begins stands on a line of its own."""
        page = self._page
        shown = expand(body, page) if len(body) <= MAX_RENDERED_CHARS else None
        if shown is None:
            page.counters["templates/dropped"] += 1
            page.tally("templates", template_name(body, page.wiki))
            return HOLE
        page.counters["templates/rendered"] += 1
        if not shown:
            return "" if self._stack else HOLE
        if may_start_line and _STARTS_A_LINE.match(shown) and self._pieces and not self._pieces[-1].endswith("\n"):
            shown = "\n" + shown
        return shown.replace("|", BAR) if self._stack else shown
