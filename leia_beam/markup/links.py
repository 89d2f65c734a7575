"""`[[…]]`: from links to marks that stand for them, as MediaWiki takes them (Parser::handleInternalLinks2).

The text is cut at every `[[`, so a label never holds one; only the parameters of a file run over several pieces. A link is
set aside as a payload with its label, and the passes after this one see a mark in its place.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from leia_beam.markup.bars import split_at_bars
from leia_beam.markup.external_links import PROTOCOLS
from leia_beam.markup.marks import BREAK, CAPTION, CAPTION_END, CLOSE, FOREIGN, FOREIGN_END, HOLE, OPEN
from leia_beam.markup.page_state import ExtractionOptions, LinkTarget, PageState, ShownLink
from leia_beam.markup.quotes import with_quotes_marked
from leia_beam.titles import namespace_of_title, parse_target
from leia_beam.wikis import Wiki

MEDIA, FILE, CATEGORY = -2, 6, 14
_WITH_SUBPAGES = frozenset([1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 15])
"""Namespaces in which Wikipedias have subpages."""
_TARGET = rf"([^\[\]{{}}|<>\n\x00-\x1f\x7f]+)(?:{FOREIGN}(\d+){FOREIGN_END})?"
_LINK = re.compile(rf"{_TARGET}(?:\|([^\]]+))?\]\]")
_LINK_WITH_BRACKETS = re.compile(rf"{_TARGET}\|(.+?)\]\]", re.DOTALL)
_HEAD = re.compile(rf"{_TARGET}\|")
_ADDRESS = re.compile(PROTOCOLS, re.IGNORECASE)
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_FOREIGN_MARK = re.compile(f"{FOREIGN}\\d+{FOREIGN_END}")
_MAX_PREFIX_CHARS = 64
_INVISIBLE = OPEN + CLOSE + HOLE + BREAK + " \n\u00a0"


def with_links_set_aside(text: str, page: PageState) -> str:
    """The text with a mark for each link; categories, files and links to other languages at the side are gone."""
    if "[[" not in text:
        return text
    text = _LinkScanner(text, page).run()
    return _FOREIGN_MARK.sub("", text) if FOREIGN in text else text  # of a template whose title makes no link


@lru_cache(maxsize=1 << 16)
def parse_link(raw: str, wiki: Wiki) -> LinkTarget | None:
    """A link's target, or None where MediaWiki makes no link of it."""
    if _ADDRESS.match(raw.strip(" ")):
        return None
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
    elif target.interwiki is not None and not target.title:
        no_anchor = "no title"
    elif target.namespace == MEDIA:
        no_anchor = "media"
    elif target.interwiki is None and not target.title:
        no_anchor = "self"
    return LinkTarget(
        shown=_shown_target(raw),
        namespace=target.namespace,
        is_hidden=is_hidden,
        no_anchor=no_anchor,
        title="" if target.interwiki is not None else target.title,
        fragment=target.fragment or None,
        foreign_wiki=foreign_wiki,
        foreign_title=target.title if foreign_wiki is not None else None,
    )


def _shown_target(raw: str) -> str:
    """What a link without a label shows: its target as it stands, percent-encoding decoded, without a leading colon."""
    shown = unquote(raw, errors="replace") if "%" in raw and _PERCENT.search(raw) else raw
    shown = shown.strip(" ")
    return shown[1:].lstrip(" ") if shown.startswith(":") else shown


@lru_cache(maxsize=64)
def _trail_pattern(wiki: Wiki) -> re.Pattern[str] | None:
    return re.compile(wiki.link_trail_expression) if wiki.link_trail or wiki.link_trail_alternative else None


@lru_cache(maxsize=64)
def _prefix_pattern(wiki: Wiki) -> re.Pattern[str] | None:
    return re.compile(f"[{wiki.link_prefix}]") if wiki.link_prefix else None


def _absolute_title(raw: str, page_title: str) -> tuple[str, str]:
    """The whole title that a relative link means, and what it shows without a label.

    >>> _absolute_title("/b/", "User:Ann/a"), _absolute_title("../b", "User:Ann/a"), _absolute_title("../../", "User:Ann/a/c")
    (('User:Ann/a/b', 'b'), ('User:Ann/b', 'User:Ann/b'), ('User:Ann', 'User:Ann'))
    """
    path, hash_mark, fragment = raw.partition("#")
    suffix = hash_mark + fragment
    if path.startswith("/"):
        name = path.rstrip("/").lstrip("/") if path.endswith("/") else path[1:]
        return f"{page_title}/{name}{suffix}", (name if path.endswith("/") else path) + suffix
    levels = 0
    while path.startswith("../"):
        levels, path = levels + 1, path[3:]
    parts = page_title.split("/")
    if not levels or levels >= len(parts):
        return raw, raw
    name = path.rstrip("/")
    title = "/".join([*parts[: len(parts) - levels], *([name] if name else [])])
    return title + suffix, (name if path.endswith("/") and name else title) + suffix


class _LinkScanner:
    def __init__(self, text: str, page: PageState):
        self._chunks = text.split("[[")
        self._page = page
        self._wiki = page.wiki
        self._pieces = [self._chunks[0]]
        self._next = 1
        self._trail = _trail_pattern(page.wiki)
        self._prefix = _prefix_pattern(page.wiki)
        self._has_subpages = namespace_of_title(page.title, page.wiki) in _WITH_SUBPAGES

    def run(self) -> str:
        chunks, count = self._chunks, len(self._chunks)
        while self._next < count:
            chunk = chunks[self._next]
            self._next += 1
            match = _LINK.match(chunk) or _LINK_WITH_BRACKETS.match(chunk)
            if match is not None:
                self._link(chunk, match)
            else:
                self._unfinished(chunk)
        return "".join(self._pieces)

    def _target(self, raw: str) -> LinkTarget | None:
        """Where a link leads. `/a` and `../a` are relative where the page's namespace has subpages."""
        if raw.lstrip(" ")[:1] not in ("/", "."):
            return parse_link(raw, self._wiki)
        title, shown = _absolute_title(raw.strip(" "), self._page.title)
        target = parse_link(title, self._wiki)
        return target._replace(shown=shown) if target is not None else None

    def _literal(self, chunk: str) -> None:
        self._pieces += ["[[", chunk]

    def _link(self, chunk: str, match: re.Match[str]) -> None:
        """A link that ends within its chunk."""
        raw, foreign, label = match.groups()
        target = self._target(raw) if self._has_subpages else parse_link(raw, self._wiki)
        if target is None:
            self._literal(chunk)
            return
        end = match.end()
        if label is not None and "[" in label and chunk.startswith("]", end):
            label += "]"
            end += 1
        if target.is_hidden:
            self._hidden(target, label or "")
            self._pieces.append(chunk[end:])
            return
        if label is None:
            label = target.shown
        elif "''" in label:
            label = with_quotes_marked(label)
        if self._trail is not None and (trail := self._trail.match(chunk, end)) is not None:
            end = trail.end()
            label += trail.group()
        if self._prefix is not None:
            label = self._take_prefix() + label
        page = self._page
        no_anchor = target.no_anchor
        if not no_anchor and target.title == page.title and target.foreign_wiki is None:
            no_anchor = "self"
        shown = label.strip()
        if not shown or (shown[0] in _INVISIBLE and not shown.strip(_INVISIBLE)):
            page.counters["anchors/dropped/no text"] += 1
            self._pieces += (" " * label[:1].isspace() + OPEN + CLOSE, chunk[end:])
            return
        mark = page.set_aside(
            ShownLink(shown, target, page.foreign[int(foreign)] if foreign is not None else None, no_anchor)
        )
        if len(shown) != len(label):  # blanks at a label's ends stand outside the anchor
            mark = " " * label[:1].isspace() + mark + " " * label[-1:].isspace()
        self._pieces += (mark, chunk[end:])

    def _take_prefix(self) -> str:
        """The characters before a link that belong to it, where the wiki's language has such."""
        before = self._pieces[-1]
        start = len(before)
        while start > len(before) - _MAX_PREFIX_CHARS and start and self._prefix.match(before, start - 1):  # type: ignore[union-attr]
            start -= 1
        self._pieces[-1] = before[:start]
        return before[start:]

    def _hidden(self, target: LinkTarget, parameters: str) -> None:
        """A file, a category, or a link at the page's side. The last two take the line break before them along."""
        if target.namespace == FILE and target.foreign_wiki is None:
            self._file(parameters)
            return
        reason = "category" if target.foreign_wiki is None else "interlanguage"
        self._page.counters["anchors/dropped/" + reason] += 1
        before = self._pieces[-1]
        stripped = before.rstrip()
        if "\n" in before[len(stripped) :]:
            self._pieces[-1] = stripped

    def _file(self, parameters: str) -> None:
        page = self._page
        page.counters["files/dropped"] += 1
        caption = _visible_caption(parameters, self._wiki, page.options)
        if caption is None:
            inside = parameters.count("[[")
            if inside:
                page.counters["anchors/dropped/in a file's parameters"] += inside
            self._pieces.append(OPEN + CLOSE if page.options.as_rendered else HOLE)
            return
        page.counters["captions/kept"] += 1
        self._pieces.append(CAPTION + with_links_set_aside(caption, page) + CAPTION_END)

    def _unfinished(self, chunk: str) -> None:
        """A link that does not end before the next one: a file with links in its parameters, else text."""
        head = _HEAD.match(chunk)
        target = parse_link(head.group(1), self._wiki) if head is not None else None
        if head is None or target is None or not target.is_hidden or target.namespace != FILE:
            self._literal(chunk)
            return
        text = [chunk[head.end() :]]
        for number in range(self._next, len(self._chunks)):
            parts = self._chunks[number].split("]]", 2)
            if len(parts) == 3:
                text += ["[[", parts[0], "]]", parts[1]]
                self._next = number + 1
                self._file("".join(text))
                self._pieces.append(parts[2])
                return
            if len(parts) == 1:
                break
            text += ["[[", parts[0], "]]", parts[1]]
        self._literal(chunk)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_SIZE = re.compile(r"\d*(?:x\d+)?\s*px", re.IGNORECASE)


def _visible_caption(parameters: str, wiki: Wiki, options: ExtractionOptions) -> str | None:
    """The caption that is shown beside an image: of a thumbnail or a framed one; None where there is none, or not wanted."""
    if not options.keeps("captions"):
        return None
    caption, is_visible = None, False
    for part in split_at_bars(parameters):
        stripped = part.strip()
        kind = _image_option(stripped, wiki)
        if kind == "shown":
            is_visible = True
        elif kind is None:
            caption = stripped
    return caption if is_visible and caption else None


def _image_option(text: str, wiki: Wiki) -> str | None:
    """`shown` for an option that makes the caption visible, `other` for another one, None for a caption."""
    if _SIZE.fullmatch(text):
        return "other"
    for kind, pattern in _image_options(wiki):
        if pattern.fullmatch(text):
            return kind
    return None


@lru_cache(maxsize=64)
def _image_options(wiki: Wiki) -> tuple[tuple[str, re.Pattern[str]], ...]:
    found = []
    for kind in ("shown", "other"):
        words = [re.escape(word).replace(r"\$1", "[^\n]*") for word in wiki.image_options[kind]]
        found.append((kind, re.compile("|".join(words) or "(?!)")))
    return tuple(found)
