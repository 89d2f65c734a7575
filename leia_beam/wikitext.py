"""From a page's wikitext to its plain text and its anchors, with text[start_char:end_char] exactly what a link shows.

Two linear scans. The first (preprocessor) takes out comments, templates, tables and references. Then lines are marked as
headings or items, and the second scan emits text and anchors piece by piece, so that offsets are exact by construction;
a last pass only deletes (white space, brackets that a template left empty) and moves the anchors along. No scan recurses
and none looks back, so time is linear in the page.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from leia_beam.preprocessor import CELL, HEADING, HOLE, ITEM, PAYLOAD, PAYLOAD_END, preprocess, without_marks
from leia_beam.records import (
    CAPTION,
    INTERLANGUAGE_TEMPLATE,
    LINK,
    LIST,
    PROSE,
    TABLE,
    Anchor,
    Extraction,
)
from leia_beam.records import HEADING as HEADING_BLOCK
from leia_beam.templates import InterlanguageLink, end_matter_titles
from leia_beam.titles import parse_target
from leia_beam.wikis import Wiki

FILE, CATEGORY, MEDIA = 6, 14, -2


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionOptions:
    """Which blocks of a page are kept. `end_matter`: the sections of references, notes, see also and the like."""

    tables: bool = False
    captions: bool = False
    lists: bool = True
    headings: bool = True
    end_matter: bool = False


DEFAULT_OPTIONS = ExtractionOptions()


def extract(wikitext: str, page_title: str, wiki: Wiki, options: ExtractionOptions = DEFAULT_OPTIONS) -> Extraction:
    """The text and anchors of a page. Lines are parted by one line break, paragraphs by two.

    Links to a section of the page itself, and of the page to itself, are text without an anchor.

    >>> from leia_beam.wikis import load_wiki
    >>> found = extract("'''Tokyo''' is in [[Japan|Nippon]]ese hands{{cn}}.", "Tokyo", load_wiki("en"))
    >>> found.text, [(anchor.start_char, anchor.end_char, anchor.target) for anchor in found.anchors]
    ('Tokyo is in Nipponese hands.', [(12, 21, 'Japan')])
    """
    first = preprocess(wikitext, wiki, options.tables)
    counters = first.counters
    text = _with_one_variant(first.text, wiki) if wiki.variants else first.text
    lines = _mark_lines(text, wiki, options, counters)
    second = _InlineScanner(lines, first.payloads, page_title, wiki, options, counters)
    text, anchors = _clean("".join(second.run()), second.anchors, counters)
    flags = ["disambiguation"] if first.is_disambiguation or second.is_disambiguation else []
    counters["anchors/extracted"] = len(anchors)
    return Extraction(text=text, anchors=anchors, flags=flags, counters={key: n for key, n in counters.items() if n})


# ── language variants ────────────────────────────────────────────────────────────────────────────────────────────────

_VARIANT_MARK = re.compile(r"-\{|\}-")
_MAX_VARIANT_DEPTH = 10
_HIDDEN_VARIANT_FLAGS = frozenset("TH-D")


def _with_one_variant(text: str, wiki: Wiki) -> str:
    """`-{ … }-` of wikis with language variants as the wiki's first variant has it.

    >>> from leia_beam.wikis import load_wiki
    >>> _with_one_variant("-{zh-hant:甲;zh-hans:乙}--{T|zh:題}--{丙}-", load_wiki("zh"))
    '乙丙'
    """
    stack: list[list[str]] = [[]]
    position = 0
    for match in _VARIANT_MARK.finditer(text):
        stack[-1].append(text[position : match.start()])
        position = match.end()
        if match.group() == "-{" and len(stack) <= _MAX_VARIANT_DEPTH:
            stack.append([])
        elif match.group() == "-{" or len(stack) == 1:
            stack[-1].append(match.group())
        else:
            rule = "".join(stack.pop())
            stack[-1].append(_variant_text(rule, wiki))
    stack[-1].append(text[position:])
    return "-{".join("".join(pieces) for pieces in stack)


@lru_cache(maxsize=64)
def _variant_rule_pattern(variants: tuple[str, ...]) -> re.Pattern[str]:
    codes = "|".join(map(re.escape, sorted(variants, key=len, reverse=True)))
    return re.compile(rf"(?:^|;)\s*({codes})\s*:", re.IGNORECASE)


def _variant_text(rule: str, wiki: Wiki) -> str:
    """What stands between `-{` and `}-` as it is shown: flags, then texts by variant, or one text for all."""
    flags, bar, shown = rule.partition("|")
    if not bar:
        flags, shown = "", rule
    named = {flag.strip().upper() for flag in flags.split(";")}
    if "[[" in flags:
        named, shown = set(), rule
    if named & _HIDDEN_VARIANT_FLAGS:
        return ""
    marks = list(_variant_rule_pattern(tuple(wiki.variants)).finditer(shown))
    if "R" in named or not marks or shown[: marks[0].start()].strip():
        return shown
    ends = [*(mark.start() for mark in marks[1:]), len(shown)]
    texts = {mark.group(1).lower(): shown[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}
    first = next(code for code in wiki.variants if code.lower() in texts)
    return texts[first.lower()].strip().removesuffix(";").strip()


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_BLANKS = " \t"
_ITEM_MARKS = "*#:;"
_TERM_END = re.compile(r"\[\[|\]\]|[ \t]*:[ \t]*")


def _mark_lines(text: str, wiki: Wiki, options: ExtractionOptions, counters: Counter[str]) -> str:
    """The text with headings and items marked, and without the blocks that are not wanted."""
    end_matter = frozenset() if options.end_matter else end_matter_titles(wiki.language)
    kept: list[str] = []
    skipped_level = 0
    for line in text.split("\n"):
        heading = _heading(line) if line.startswith("=") else None
        if heading is not None:
            level, title = heading
            if skipped_level and level > skipped_level:
                continue
            skipped_level = level if _plain_title(title) in end_matter else 0
            if skipped_level:
                counters["sections/dropped"] += 1
            elif options.headings:
                kept += ["", HEADING + title, ""]
            else:
                kept.append("")
        elif not skipped_level:
            kept += _marked(line, options, counters)
    return "\n".join(kept)


def _heading(line: str) -> tuple[int, str] | None:
    """(level, title) of a heading line, or None. The level is that of the shorter side, at most six."""
    stripped = line.rstrip(_BLANKS + HOLE)
    if len(stripped) < 3 or not stripped.endswith("="):
        return None
    inner = stripped.strip("=")
    if not inner:
        level = min((len(stripped) - 1) // 2, 6)
        return level, stripped[level : len(stripped) - level]
    left = len(stripped) - len(stripped.lstrip("="))
    right = len(stripped) - len(stripped.rstrip("="))
    level = min(left, right, 6)
    return level, stripped[level : len(stripped) - level].strip(_BLANKS)


def _plain_title(title: str) -> str:
    return title.replace("'''", "").replace("''", "").replace(HOLE, "").strip().casefold()


def _marked(line: str, options: ExtractionOptions, counters: Counter[str]) -> list[str]:
    first = line[:1]
    if first and first in _ITEM_MARKS:
        if not options.lists:
            counters["lists/dropped"] += 1
            return []
        content = line.lstrip(_ITEM_MARKS).strip(_BLANKS)
        marks = line[: len(line) - len(line.lstrip(_ITEM_MARKS))]
        term, definition = _split_term(content) if marks.endswith(";") else (content, "")
        return [ITEM + part for part in (term, definition) if part]
    if line.startswith("----"):
        return [line.lstrip("-")]
    if first == " ":
        return [line[1:]]
    return [line]


def _split_term(content: str) -> tuple[str, str]:
    """`term : definition` parted at the first colon outside links."""
    depth = 0
    for match in _TERM_END.finditer(content):
        mark = match.group()
        if mark == "[[":
            depth += 1
        elif mark == "]]":
            depth = max(0, depth - 1)
        elif depth == 0 and (match.start() == 0 or mark != ":" or not content.startswith("//", match.end())):
            return content[: match.start()], content[match.end() :]
    return content, ""


# ── the second scan ──────────────────────────────────────────────────────────────────────────────────────────────────

_TAGS = frozenset(
    "abbr b bdi bdo big blockquote br caption center cite code data dd del dfn div dl dt em font h1 h2 h3 h4 h5 h6 hr i "
    "ins kbd li mark ol p q rb rp rt rtc ruby s samp small span strike strong sub sup td th time tr tt u ul var wbr "
    "table tbody thead tfoot link meta nowiki noinclude includeonly onlyinclude poem section references ref".split()
)
_BLOCK_TAGS = frozenset(
    "blockquote br center dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p table td th tr ul caption".split()
)
_SCHEMES = "https?|ftps?|ircs?|gopher|news|mailto|tel|git|svn|nntp|urn|magnet|xmpp|sftp|ssh"
_TOKEN = re.compile(  # each branch begins with a literal: the search then skips to one of their characters
    rf"""
      \[\[(?P<target>[^\[\]{{}}|<>\n\x02-\x07]+)(?:\|(?P<label>[^\[\]{{}}<>&'|\n\x02-\x07]+))?\]\]   # a simple link
    | \[(?P<open>\[)
    | \](?P<close>\])
    | '(?P<quotes>'+)
    | \n(?P<newline>[{HEADING}{ITEM}{CELL}]?)
    | </?(?P<tag>[a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]*)?>
    | &(?P<entity>[#\w]{{1,32}};)
    | \[(?P<external>(?:(?:{_SCHEMES}):|//)[^\s\[\]<>"\x02-\x07]+[ \t]*)
    | \](?P<bracket>)
    | _(?P<switch>_)
    | {PAYLOAD}(?P<payload>\d+){PAYLOAD_END}
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LINK_HEAD = re.compile(r"\[\[([^\[\]{}|<>\n\x02-\x07]+)\|")
_QUOTES = re.compile("''+")
_BLOCK_OF_MARK = {"": PROSE, HEADING: HEADING_BLOCK, ITEM: LIST, CELL: TABLE}
_MAX_PREFIX_CHARS = 64


class _Link(NamedTuple):
    """What a link's target comes to, whatever page it stands on."""

    shown: str
    """What it shows without a label."""
    namespace: int
    is_hidden: bool
    """Categories, files and interlanguage links show nothing where they stand."""
    no_anchor: str
    """Why there is no anchor; '' where there is one."""
    title: str
    fragment: str | None
    foreign_wiki: str | None
    foreign_title: str | None


@lru_cache(maxsize=1 << 16)
def _parse_link(raw: str, wiki: Wiki) -> _Link | None:
    """A link's target, or None where MediaWiki makes no link of it."""
    target = parse_target(raw, wiki)
    if target is None:
        return None
    foreign_wiki = wiki.wikipedia_prefixes.get(target.interwiki) if target.interwiki is not None else None
    if target.leading_colon:
        is_hidden = False
    elif target.interwiki is not None:
        is_hidden = foreign_wiki is not None
    else:
        is_hidden = target.namespace in (FILE, CATEGORY)
    no_anchor = ""
    if target.interwiki is not None and foreign_wiki is None:
        no_anchor = "other project"
    elif target.namespace == MEDIA:
        no_anchor = "media"
    elif target.interwiki is None and not target.title:
        no_anchor = "self"
    return _Link(
        shown=_shown_target(raw),
        namespace=target.namespace,
        is_hidden=is_hidden,
        no_anchor=no_anchor,
        title="" if target.interwiki is not None else target.title,
        fragment=target.fragment or None,
        foreign_wiki=foreign_wiki,
        foreign_title=target.title if foreign_wiki is not None else None,
    )


class _OpenLink(NamedTuple):
    """A link whose label is being scanned: its end is known from the start."""

    start: int
    link: _Link
    close: int


class _Found(NamedTuple):
    """An anchor before its offsets are final; the fields are Anchor's."""

    start_char: int
    end_char: int
    target: str
    fragment: str | None
    kind: str
    block: str
    foreign_wiki: str | None
    foreign_title: str | None
    foreign_qid: str | None


@lru_cache(maxsize=64)
def _trail_pattern(characters: str) -> re.Pattern[str] | None:
    return re.compile(f"[{characters}]+") if characters else None


@lru_cache(maxsize=64)
def _prefix_pattern(characters: str) -> re.Pattern[str] | None:
    return re.compile(f"[{characters}]") if characters else None


@lru_cache(maxsize=64)
def _switch_pattern(switches: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(switches, key=len, reverse=True))) or "(?!)", re.IGNORECASE)


class _InlineScanner:
    """Emits text and anchors. Offsets are those of the emitted text."""

    def __init__(
        self,
        text: str,
        payloads: Sequence[str | InterlanguageLink],
        page_title: str,
        wiki: Wiki,
        options: ExtractionOptions,
        counters: Counter[str],
    ):
        self.anchors: list[_Found] = []
        self.is_disambiguation = False
        self._text = "\n" + text
        self._payloads = payloads
        self._page_title = page_title
        self._wiki = wiki
        self._options = options
        self._counters = counters
        self._pieces: list[str] = []
        self._length = 0
        self._block = PROSE
        self._links: list[_OpenLink] = []
        self._captions: list[tuple[int, int, str]] = []
        self._external = 0
        self._line_end = -1
        self._literal_quotes: dict[int, int] = {}
        self._next: dict[str, int] = {}
        self._pairs: dict[int, _Pair] | None = None
        self._trail = _trail_pattern(wiki.link_trail)
        self._prefix = _prefix_pattern(wiki.link_prefix)
        self._switches = _switch_pattern(tuple(wiki.behaviour_switches))
        self._handlers: dict[str, Callable[[re.Match[str]], int]] = {
            "target": self._simple_link,
            "label": self._simple_link,
            "open": self._open_link,
            "close": self._close_link,
            "quotes": self._apostrophes,
            "newline": self._newline,
            "tag": self._tag,
            "entity": self._entity,
            "external": self._external_link,
            "bracket": self._single_bracket,
            "switch": self._switch,
            "payload": self._payload,
        }

    def run(self) -> list[str]:
        """Scan all of the text. Returns the emitted pieces."""
        text, position, handlers, search, pieces = self._text, 0, self._handlers, _TOKEN.search, self._pieces
        while (match := search(text, position)) is not None:
            start = match.start()
            if start > position:
                pieces.append(text[position:start])
                self._length += start - position
            position = handlers[match.lastgroup or ""](match)
        self._emit(text[position:])
        return self._pieces

    def _emit(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def _find(self, mark: str, begin: int) -> int:
        """Where `mark` stands next, or the text's length; each stretch of text is searched once."""
        at = self._next.get(mark, -1)
        if at < begin:
            at = self._text.find(mark, begin)
            at = len(self._text) if at < 0 else at
            self._next[mark] = at
        return at

    # links

    def _simple_link(self, match: re.Match[str]) -> int:
        raw, label = match.group("target", "label")
        link = _parse_link(raw, self._wiki)
        if link is None:
            self._counters["anchors/dropped/illegal title"] += 1
            self._emit(match.group())
            return match.end()
        if link.is_hidden:
            return self._hidden_link(link, match.end())
        start, end = self._with_trail(self._length, link.shown if label is None else label, match.end())
        self._add_anchor(start, link)
        return end

    def _hidden_link(self, link: _Link, end: int) -> int:
        """Nothing is shown; a category takes the line breaks before it along."""
        if link.namespace == CATEGORY and self._text[end : end + 1] in ("", "\n"):
            while self._pieces and self._pieces[-1] == "\n":
                self._pieces.pop()
                self._length -= 1
        return end

    def _with_trail(self, start: int, shown: str, position: int) -> tuple[int, int]:
        """Emit what a link shows with its trail. Returns the anchor's start and where to go on."""
        if self._prefix is not None and not self._links:
            start -= self._prefix_length()
        self._emit(shown)
        return start, self._emit_trail(position)

    def _emit_trail(self, position: int) -> int:
        trail = self._trail.match(self._text, position) if self._trail is not None else None
        if trail is None:
            return position
        self._emit(trail.group())
        return trail.end()

    def _prefix_length(self) -> int:
        """How many characters before a link belong to it."""
        assert self._prefix is not None
        last = self._pieces[-1] if self._pieces else ""
        free = self._length - (self.anchors[-1].end_char if self.anchors else 0)
        longest = min(len(last), free, _MAX_PREFIX_CHARS)
        length = 0
        while length < longest and self._prefix.match(last[-length - 1]):
            length += 1
        return length

    def _add_anchor(self, start: int, link: _Link) -> None:
        """Note an anchor over what was emitted since `start`, unless the link leads nowhere that has a title."""
        if self._length <= start:
            return
        reason = "in another link" if self._links else link.no_anchor
        if not reason and link.foreign_wiki is None and link.title == self._page_title:
            reason = "self"
        if reason:
            self._counters["anchors/dropped/" + reason] += 1
            return
        _, _, _, _, title, fragment, foreign_wiki, foreign_title = link
        block = self._block
        found = _Found(start, self._length, title, fragment, LINK, block, foreign_wiki, foreign_title, None)
        self.anchors.append(found)

    def _open_link(self, match: re.Match[str]) -> int:
        """`[[` that is no simple link: a label with markup in it, a file, or no link at all."""
        begin = match.start()
        head = _LINK_HEAD.match(self._text, begin)
        link = _parse_link(head.group(1), self._wiki) if head is not None else None
        if head is None or link is None:
            return self._literal(match)
        if link.is_hidden:
            return self._link_with_links(match, link)
        close = self._find("]]", head.end())
        if close >= len(self._text) or self._find("[[", head.end()) < close or close == head.end():
            return self._literal(match)
        if self._text.startswith("]]]", close) and "[" in self._text[head.end() : close]:
            close += 1
        start = self._length
        if self._prefix is not None and not self._links:
            start -= self._prefix_length()
        self._links.append(_OpenLink(start, link, close))
        return head.end()

    def _literal(self, match: re.Match[str]) -> int:
        self._emit(match.group())
        return match.end()

    def _link_with_links(self, match: re.Match[str], link: _Link) -> int:
        """A file or category whose parameters hold links: it goes as a whole, but for a caption that is wanted."""
        if self._pairs is None:
            self._pairs = _link_pairs(self._text)
        pair = self._pairs.get(match.start())
        if pair is None:
            return self._literal(match)
        begin = _caption_start(self._text, pair) if link.namespace == FILE and self._options.captions else None
        if begin is None:
            return self._hidden_link(link, pair.end)
        self._captions.append((pair.end - 2, pair.end, self._block))
        self._emit("\n")
        self._block = CAPTION
        return begin

    def _close_link(self, match: re.Match[str]) -> int:
        position = match.start()
        if self._captions and position == self._captions[-1][0]:
            _, end, self._block = self._captions.pop()
            self._emit("\n")
            return end
        if not self._links or not position <= self._links[-1].close <= position + 1:
            return self._single_bracket(match)
        if self._links[-1].close == position + 1:
            self._emit("]")
            return position + 1
        link = self._links.pop()
        end = self._emit_trail(link.close + 2)
        self._add_anchor(link.start, link.link)
        return end

    def _single_bracket(self, match: re.Match[str]) -> int:
        """`]` ends an external link, or is text."""
        if self._external:
            self._external -= 1
        else:
            self._emit("]")
        return match.start() + 1

    def _external_link(self, match: re.Match[str]) -> int:
        """`[http://… label]` shows its label; without a label it shows nothing."""
        close = self._find("]", match.end())
        if close >= self._find("\n", match.end()):
            return self._literal(match)
        if close == match.end():
            return close + 1
        self._external += 1
        return match.end()

    # the rest

    def _newline(self, match: re.Match[str]) -> int:
        self._emit("\n")
        self._external = 0
        if not self._captions:
            self._block = _BLOCK_OF_MARK[match.group("newline")]
        return match.end()

    def _apostrophes(self, match: re.Match[str]) -> int:
        """Bold and italic vanish; MediaWiki's rules say which apostrophes are text."""
        if match.start() > self._line_end:
            end = self._find("\n", match.start())
            self._literal_quotes = _literal_apostrophes(self._text, match.start(), end)
            self._line_end = end
        literal = self._literal_quotes.get(match.start(), 0)
        if literal:
            self._emit("'" * literal)
        return match.end()

    def _tag(self, match: re.Match[str]) -> int:
        name = match.group("tag").lower()
        if name not in _TAGS:
            return self._literal(match)
        if name in _BLOCK_TAGS:
            self._emit("\n")
        return match.end()

    def _entity(self, match: re.Match[str]) -> int:
        self._emit(without_marks(html.unescape(match.group())))
        return match.end()

    def _switch(self, match: re.Match[str]) -> int:
        found = self._switches.match(self._text, match.start())
        if found is None:
            return self._literal(match)
        if found.group().upper() == "__DISAMBIG__":
            self.is_disambiguation = True
        return found.end()

    def _payload(self, match: re.Match[str]) -> int:
        payload = self._payloads[int(match.group("payload"))]
        if isinstance(payload, str):
            self._emit(html.unescape(payload))
            return match.end()
        start, end = self._with_trail(self._length, _label_text(payload.label), match.end())
        self._add_template_anchor(start, payload)
        return end

    def _add_template_anchor(self, start: int, link: InterlanguageLink) -> None:
        target = _parse_link(link.target, self._wiki)
        if self._length <= start or self._links:
            return
        self.anchors.append(
            _Found(
                start_char=start,
                end_char=self._length,
                target=target.title if target is not None else "",
                fragment=target.fragment if target is not None else None,
                kind=INTERLANGUAGE_TEMPLATE,
                block=self._block,
                foreign_wiki=link.foreign_wiki,
                foreign_title=link.foreign_title,
                foreign_qid=link.foreign_qid,
            )
        )


def _shown_target(raw: str) -> str:
    """What a link without a label shows: its target as it stands, decoded."""
    shown = html.unescape(raw) if "&" in raw else raw
    if "%" in shown and re.search("%[0-9A-Fa-f]{2}", shown):
        shown = unquote(shown, errors="replace")
    shown = shown.strip()
    return shown[1:].strip() if shown.startswith(":") else shown


def _label_text(label: str) -> str:
    """A template's label without the markup that may stand in it."""
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", label)
    text = re.sub("''+", "", re.sub(r"<[^<>]*>", "", text))
    return without_marks(html.unescape(text)).strip()


_CAPTION_MARK = re.compile(r"\[\[|\]\]|\|")


class _Pair(NamedTuple):
    """Where a link ends, and where its parameters begin: behind the bars that are in no link inside it."""

    end: int
    bars: list[int]


def _link_pairs(text: str) -> dict[int, _Pair]:
    """Position of `[[` → its pair, with the links inside it counted."""
    pairs: dict[int, _Pair] = {}
    open_: list[tuple[int, list[int]]] = []
    for match in _CAPTION_MARK.finditer(text):
        mark = match.group()
        if mark == "[[":
            open_.append((match.start(), []))
        elif open_ and mark == "|":
            open_[-1][1].append(match.end())
        elif open_:
            begin, bars = open_.pop()
            pairs[begin] = _Pair(match.end(), bars)
    return pairs


def _caption_start(text: str, pair: _Pair) -> int | None:
    """Where a file's caption begins: behind its last bar, unless an option of the image stands there."""
    if not pair.bars:
        return None
    begin, end = pair.bars[-1], pair.end - 2
    is_option = text.find("[", begin, end) < 0 and _IMAGE_OPTIONS.fullmatch(text, begin, end) is not None
    return None if is_option else begin


_IMAGE_OPTIONS = re.compile(
    r"\s*(?:\d*x?\d+\s*px|thumb(?:nail)?|frame(?:d|less)?|left|right|center|none|border|upright(?:[ =].*)?|alt=.*|link=.*|lang=.*"
    r"|サムネイル|左|右|中央|なし|フレーム|miniatura(?:deimagen)?|derecha|izquierda|centro|ninguna|vignette|gauche|droite"
    r"|mini|links|rechts|миниатюра|мини|слева|справа|缩略图|縮圖|左|右|تصغير|يسار|يمين)\s*",
    re.IGNORECASE,
)


def _literal_apostrophes(text: str, begin: int, end: int) -> dict[int, int]:
    """Position of a run of apostrophes in text[begin:end] → how many of them are text.

    As MediaWiki does it for a line: four are three and one as text, more than five are five and the rest as text. Where
    both bold and italic are unbalanced, one bold gives up an apostrophe: the first after a single letter, else the first
    after a longer word, else the first after a space.
    """
    runs: list[tuple[int, int]] = []
    literal: dict[int, int] = {}
    for match in _QUOTES.finditer(text, begin, end):
        length = match.end() - match.start()
        extra = 1 if length == 4 else max(0, length - 5)
        if extra:
            literal[match.start()] = extra
        runs.append((match.start(), length - extra))
    bold = sum(length in (3, 5) for _, length in runs)
    italic = sum(length in (2, 5) for _, length in runs)
    if bold % 2 and italic % 2:
        at = _bold_to_split(text, runs, literal)
        if at is not None:
            literal[at] = literal.get(at, 0) + 1
    return literal


def _bold_to_split(text: str, runs: Sequence[tuple[int, int]], literal: dict[int, int]) -> int | None:
    after_word = after_space = None
    for at, length in runs:
        if length != 3:
            continue
        mark = at + literal.get(at, 0)
        before, before_that = text[mark - 1], text[mark - 2 : mark - 1]
        if before == " ":
            after_space = at if after_space is None else after_space
        elif before_that == " ":
            return at
        else:
            after_word = at if after_word is None else after_word
    return after_word if after_word is not None else after_space


# ── cleaning ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_BRACKETS = {"(": ")", "（": "）", "[": "]", "［": "］", "〔": "〕", "【": "】", "「": "」", "『": "』"}
_AROUND_HOLES = " \t、,，;；،:：" + HOLE
_WHITE_SPACE = re.compile(r"[ \t\n\u00a0\u3000]{2,}")


def _clean(text: str, found: Sequence[_Found], counters: Counter[str]) -> tuple[str, list[Anchor]]:
    """Delete what templates left empty, then white space that shows nothing; anchors move along."""
    offsets: Sequence[int] = [offset for anchor in found for offset in anchor[:2]]
    if HOLE in text:
        text, offsets = _without(text, offsets, _hole_deletions(text))
    text, offsets = _without(text, offsets, _white_space_deletions(text))
    anchors = []
    for number, anchor in enumerate(found):
        start, end = offsets[2 * number : 2 * number + 2]
        if start < end:
            _, _, target, fragment, kind, block, foreign_wiki, foreign_title, foreign_qid = anchor
            anchors.append(
                Anchor(
                    start_char=start,
                    end_char=end,
                    target=target,
                    fragment=fragment,
                    kind=kind,
                    block=block,
                    foreign_wiki=foreign_wiki,
                    foreign_title=foreign_title,
                    foreign_qid=foreign_qid,
                )
            )
        else:
            counters["anchors/dropped/no text"] += 1
    return text, anchors


def _white_space_deletions(text: str) -> list[tuple[int, int]]:
    """Blanks at either end of a line, blanks after a blank, empty lines but one, and white space around the text."""
    start = len(text) - len(text.lstrip())
    stop = max(start, len(text.rstrip()))
    deletions = [(0, start)]
    for match in _WHITE_SPACE.finditer(text, start, stop):
        begin, run = match.start(), match.group()
        first = run.find("\n")
        if first < 0:
            if run[0] == " " and not run.strip(" \t"):
                deletions.append((begin + 1, match.end()))
            continue
        last = run.rfind("\n")
        after = len(run) - len(run[last + 1 :].lstrip(" \t"))
        deletions += [(begin, begin + first), (begin + first + 1, begin + last), (begin + last + 1, begin + after)]
    deletions.append((stop, len(text)))
    return [span for span in deletions if span[0] < span[1]]


def _hole_deletions(text: str) -> list[tuple[int, int]]:
    """What goes with templates that came to nothing: brackets left empty, commas left hanging at a bracket."""
    deletions: list[tuple[int, int]] = []
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
            deletions.append((begin, end))
        elif before in _BRACKETS or (after and after in _BRACKETS.values()):
            deletions.append((begin, end))
        else:
            deletions += [(at, at + 1) for at in range(begin, end) if text[at] == HOLE]
            gap = text[begin:end].replace(HOLE, "")
            if gap.strip() == "" and len(gap) > 1:
                deletions[-1:] = [(deletions[-1][0], end)] if text[end - 1] in " \t" else deletions[-1:]
        position = end
    return deletions


def _without(text: str, offsets: Sequence[int], deletions: Sequence[tuple[int, int]]) -> tuple[str, Sequence[int]]:
    """The text without some spans, and offsets after that; one within a span goes to its begin. All are sorted."""
    if not deletions:
        return text, offsets
    pieces, moved, position, removed, at, count = [], [], 0, 0, 0, len(offsets)
    for begin, end in deletions:
        pieces.append(text[position:begin])
        while at < count and offsets[at] < end:
            moved.append(min(offsets[at], begin) - removed)
            at += 1
        removed += end - begin
        position = end
    pieces.append(text[position:])
    moved += [offset - removed for offset in offsets[at:]]
    return "".join(pieces), moved
