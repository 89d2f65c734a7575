"""From a page's wikitext to its plain text and its anchors, with text[start_char:end_char] exactly what a link shows.

Two linear scans. The first (preprocessor) takes out comments, templates, tables and references. Then lines are marked as
headings or items, and the second scan emits text and anchors piece by piece, so that offsets are exact by construction;
a last pass only deletes (white space, brackets that a template left empty) and moves the anchors along. No scan recurses
and none looks back, so time is linear in the page.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
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
from leia_beam.titles import Target, parse_target
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
    lines = _mark_lines(first.text, wiki, options, counters)
    second = _InlineScanner(lines, first.payloads, page_title, wiki, options, counters)
    text, anchors = _clean("".join(second.run()), second.anchors, counters)
    flags = ["disambiguation"] if first.is_disambiguation or second.is_disambiguation else []
    counters["anchors/extracted"] = len(anchors)
    return Extraction(text=text, anchors=anchors, flags=flags, counters={key: n for key, n in counters.items() if n})


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
_TOKEN = re.compile(
    rf"""
      \[\[(?P<target>[^\[\]{{}}|<>\n\x02-\x07]+)(?:\|(?P<label>[^\[\]{{}}<>&'|\n\x02-\x07]+))?\]\]   # a simple link
    | (?P<open>\[\[)
    | (?P<close>\]\])
    | (?P<quotes>''+)
    | (?P<newline>\n[{HEADING}{ITEM}{CELL}]?)
    | </?(?P<tag>[a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]*)?>
    | (?P<entity>&[#\w]{{1,32}};)
    | (?P<external>\[(?:(?:{_SCHEMES}):|//)[^\s\[\]<>"\x02-\x07]+[ \t]*)
    | (?P<bracket>\])
    | (?P<switch>__)
    | {PAYLOAD}(?P<payload>\d+){PAYLOAD_END}
    | (?P<variant>-\{{)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LINK_HEAD = re.compile(r"\[\[([^\[\]{}|<>\n\x02-\x07]+)\|")
_QUOTES = re.compile("''+")
_BLOCK_OF_MARK = {"": PROSE, HEADING: HEADING_BLOCK, ITEM: LIST, CELL: TABLE}
_VARIANT_FLAGS = frozenset("TH-D")
_VARIANT_RULE = re.compile(r"\s*[a-z-]+\s*:\s*([^;]*)")
_MAX_PREFIX_CHARS = 64


class _OpenLink(NamedTuple):
    """A link whose label is being scanned: its end is known from the start."""

    start: int
    target: Target
    close: int


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
        self.anchors: list[Anchor] = []
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
        self._pairs: dict[int, int] | None = None
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
            "variant": self._variant,
        }

    def run(self) -> list[str]:
        """Scan all of the text. Returns the emitted pieces."""
        text, position, handlers, search = self._text, 0, self._handlers, _TOKEN.search
        while (match := search(text, position)) is not None:
            if match.start() > position:
                self._emit(text[position : match.start()])
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
        raw, label = match.group("target"), match.group("label")
        target = parse_target(raw, self._wiki)
        if target is None:
            self._counters["anchors/dropped/illegal title"] += 1
            self._emit(match.group())
            return match.end()
        if self._is_dropped(target):
            return match.end()
        shown = _shown_target(raw) if label is None else html.unescape(label) if "&" in label else label
        start, end = self._with_trail(self._length, shown, match.end())
        self._add_anchor(start, target)
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

    def _is_dropped(self, target: Target) -> bool:
        """Categories, files and interlanguage links show nothing where they stand."""
        if target.leading_colon:
            return False
        if target.interwiki is not None:
            return target.interwiki in self._wiki.wikipedia_prefixes
        return target.namespace in (FILE, CATEGORY)

    def _add_anchor(self, start: int, target: Target) -> None:
        """Note an anchor over what was emitted since `start`, unless the link leads nowhere that has a title."""
        if self._length <= start:
            return
        if self._links:
            self._counters["anchors/dropped/in another link"] += 1
            return
        foreign_wiki = self._wiki.wikipedia_prefixes.get(target.interwiki) if target.interwiki is not None else None
        if target.interwiki is not None and foreign_wiki is None:
            self._counters["anchors/dropped/other project"] += 1
            return
        if target.namespace == MEDIA:
            self._counters["anchors/dropped/media"] += 1
            return
        own_title = "" if target.interwiki is not None else target.title
        if target.interwiki is None and own_title in ("", self._page_title):
            self._counters["anchors/dropped/self"] += 1
            return
        self.anchors.append(
            Anchor(
                start_char=start,
                end_char=self._length,
                target=own_title,
                fragment=target.fragment or None,
                kind=LINK,
                block=self._block,
                foreign_wiki=foreign_wiki,
                foreign_title=target.title if foreign_wiki is not None else None,
            )
        )

    def _open_link(self, match: re.Match[str]) -> int:
        """`[[` that is no simple link: a label with markup in it, a file, or no link at all."""
        begin = match.start()
        head = _LINK_HEAD.match(self._text, begin)
        target = parse_target(head.group(1), self._wiki) if head is not None else None
        if head is None or target is None:
            return self._literal(match)
        if self._is_dropped(target):
            return self._dropped_link(match, target)
        close = self._find("]]", head.end())
        if close >= len(self._text) or self._find("[[", head.end()) < close or close == head.end():
            return self._literal(match)
        if self._text.startswith("]]]", close) and "[" in self._text[head.end() : close]:
            close += 1
        start = self._length
        if self._prefix is not None and not self._links:
            start -= self._prefix_length()
        self._links.append(_OpenLink(start, target, close))
        return head.end()

    def _literal(self, match: re.Match[str]) -> int:
        self._emit(match.group())
        return match.end()

    def _dropped_link(self, match: re.Match[str], target: Target) -> int:
        """A file or category whose parameters hold links: it goes as a whole, but for a caption that is wanted."""
        end = self._matching_close(match.start())
        if end is None:
            return self._literal(match)
        if target.namespace != FILE or not self._options.captions:
            return end
        begin = _caption_start(self._text, match.end(), end - 2)
        if begin is None:
            return end
        self._captions.append((end - 2, end, self._block))
        self._emit("\n")
        self._block = CAPTION
        return begin

    def _matching_close(self, begin: int) -> int | None:
        """Where the link that opens at `begin` ends, with the links inside it counted."""
        if self._pairs is None:
            self._pairs = {}
            open_: list[int] = []
            for match in re.finditer(r"\[\[|\]\]", self._text):
                if match.group() == "[[":
                    open_.append(match.start())
                elif open_:
                    self._pairs[open_.pop()] = match.end()
        return self._pairs.get(begin)

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
        self._add_anchor(link.start, link.target)
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
            self._block = _BLOCK_OF_MARK[match.group()[1:]]
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
        target = parse_target(link.target, self._wiki)
        own_title = target.title if target is not None and target.interwiki is None else ""
        if self._length <= start or self._links:
            return
        self.anchors.append(
            Anchor(
                start_char=start,
                end_char=self._length,
                target=own_title,
                fragment=target.fragment or None if target is not None else None,
                kind=INTERLANGUAGE_TEMPLATE,
                block=self._block,
                foreign_wiki=link.foreign_wiki,
                foreign_title=link.foreign_title,
                foreign_qid=link.foreign_qid,
            )
        )

    def _variant(self, match: re.Match[str]) -> int:
        """`-{ … }-` of wikis with language variants: the first variant's text."""
        if not self._wiki.variants:
            return self._literal(match)
        end = self._find("}-", match.end())
        if end >= len(self._text):
            return self._literal(match)
        flags, bar, rest = self._text[match.end() : end].partition("|")
        if bar and flags.strip() in _VARIANT_FLAGS:
            return end + 2
        shown = rest if bar else flags
        rule = _VARIANT_RULE.match(shown)
        self._emit(html.unescape(rule.group(1) if rule else shown))
        return end + 2


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


def _caption_start(text: str, begin: int, end: int) -> int | None:
    """Where a file's caption begins: behind the last bar outside links. None if there is none."""
    depth, last = 0, None
    for match in _CAPTION_MARK.finditer(text, begin, end):
        if match.group() == "|":
            last = match.end() if depth == 0 else last
        else:
            depth += 1 if match.group() == "[[" else -1
    if last is None or (text.find("[", last, end) < 0 and _is_image_option(text[last:end])):
        return None
    return last


_IMAGE_OPTIONS = re.compile(
    r"\s*(?:\d*x?\d+\s*px|thumb(?:nail)?|frame(?:d|less)?|left|right|center|none|border|upright(?:[ =].*)?|alt=.*|link=.*|lang=.*"
    r"|サムネイル|左|右|中央|なし|フレーム|miniatura(?:deimagen)?|derecha|izquierda|centro|ninguna|vignette|gauche|droite"
    r"|mini|links|rechts|миниатюра|мини|слева|справа|缩略图|縮圖|左|右|تصغير|يسار|يمين)\s*",
    re.IGNORECASE,
)


def _is_image_option(text: str) -> bool:
    return _IMAGE_OPTIONS.fullmatch(text) is not None


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
_WHITE_SPACE = re.compile(r"[ \t\u3000]+(?=\n)|(?<=\n)[ \t]+|(?<= ) +")
_EMPTY_LINES = re.compile(r"(?<=\n\n)\n+")
_CAPTION_MARK = re.compile(r"\[\[|\]\]|\|")


def _clean(text: str, anchors: Sequence[Anchor], counters: Counter[str]) -> tuple[str, list[Anchor]]:
    """Delete what templates left empty, then white space that shows nothing; anchors move along."""
    if HOLE in text:
        text, anchors = _without(text, anchors, _hole_deletions(text), counters)
    deletions = [match.span() for match in _WHITE_SPACE.finditer(text)]
    text, anchors = _without(text, anchors, deletions, counters)
    deletions = [match.span() for match in _EMPTY_LINES.finditer(text)]
    stripped = text.strip()
    start = text.find(stripped) if stripped else len(text)
    edges = [(0, start), (start + len(stripped), len(text))]
    inner = [(max(a, start), min(b, start + len(stripped))) for a, b in deletions]
    spans = sorted((a, b) for a, b in (*edges, *inner) if a < b)
    return _without(text, anchors, spans, counters)


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


def _without(
    text: str, anchors: Sequence[Anchor], deletions: Sequence[tuple[int, int]], counters: Counter[str]
) -> tuple[str, list[Anchor]]:
    """The text without some spans (sorted, apart), and the anchors over what is left of theirs."""
    if not deletions:
        return text, list(anchors)
    pieces, ends, removed, position, total = [], [], [0], 0, 0
    for begin, end in deletions:
        pieces.append(text[position:begin])
        total += end - begin
        ends.append(end)
        removed.append(total)
        position = end
    pieces.append(text[position:])

    begins = [begin for begin, _ in deletions]

    def moved(offset: int) -> int:
        """An offset after the deletions; one within a deleted span goes to its begin."""
        number = bisect_right(begins, offset)
        if number and offset < ends[number - 1]:
            return begins[number - 1] - removed[number - 1]
        return offset - removed[number]

    left = []
    for anchor in anchors:
        start, end = moved(anchor.start_char), moved(anchor.end_char)
        if start < end:
            left.append(_moved(anchor, start, end))
        else:
            counters["anchors/dropped/no text"] += 1
    return "".join(pieces), left


def _moved(anchor: Anchor, start: int, end: int) -> Anchor:
    if start == anchor.start_char and end == anchor.end_char:
        return anchor
    return Anchor(
        start_char=start,
        end_char=end,
        target=anchor.target,
        fragment=anchor.fragment,
        kind=anchor.kind,
        block=anchor.block,
        foreign_wiki=anchor.foreign_wiki,
        foreign_title=anchor.foreign_title,
        foreign_qid=anchor.foreign_qid,
    )
