"""From a title as somebody wrote it to the one form in which titles are compared.

One function serves both sides of every join: a dump's titles, redirects, sitelinks and the targets of links. The rules
are MediaWiki's (MediaWikiTitleCodec): white space and underscores, NFC, entities and percent-encoding in links, bidi
marks removed, the first letter by the wiki's case rule, namespaces and interwiki prefixes by the wiki's tables.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from leia_beam.character_references import decode
from leia_beam.first_letters import first_letters
from leia_beam.wikis import CASE_SENSITIVE, Wiki, fold_namespace

MAX_TITLE_BYTES = 255

_WHITE_SPACE = re.compile("[ _\u00a0\u1680\u180e\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_BIDI_MARKS = re.compile("[\u200e\u200f\u202a-\u202e]")
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_ILLEGAL = re.compile(
    "[\x00-\x1f\x7f<>\\[\\]{}|\ufffd\ud800-\udfff]|#|~~~|%[0-9A-Fa-f]{2}|&(?:#[0-9]+|#[xX][0-9A-Fa-f]+|[A-Za-z0-9\x80-\U0010ffff]+);"
)
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2066-\u2069]")
"""Of these MediaWiki lets C1 controls and isolates pass; no title of a dump may have one here, since it would stand in
the names and the text. A link with one is a link to a missing page."""
_RELATIVE = re.compile(r"^\.\.?(/|$)|/\.\.?(/|$)")
_DOTTED_I = frozenset({"tr", "az", "kaa"})
"""Languages in which MediaWiki makes İ of a first i."""
_WIKIPEDIA_PREFIXES = frozenset({"w", "wikipedia"})
"""Prefixes of the English Wikipedia, from where a language's prefix may lead on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a link points to. `title` is '' for a link to a section of the page itself.

    `title` has the namespace's local name before it where the namespace is not 0; for another wiki it is what stands
    after the prefix, by that wiki's rules as far as they are the same everywhere.
    """

    namespace: int
    title: str
    fragment: str | None = None
    interwiki: str | None = None
    leading_colon: bool = False


@lru_cache(maxsize=1 << 16)
def parse_target(raw: str, wiki: Wiki) -> Target | None:
    """The target of a link `[[raw|…]]`, or None where MediaWiki makes no link of it (an illegal title).

    >>> from leia_beam.wikis import load_wiki
    >>> parse_target("tokyo_Tower#History", load_wiki("en")).title
    'Tokyo Tower'
    """
    text = decode(raw)
    if "%" in text and _PERCENT.search(text):
        text = unquote(text, errors="replace")
    text = _cleaned(text)
    leading_colon = text.startswith(":")
    if leading_colon:
        text = text[1:].lstrip(" ")
    text, hash_mark, fragment = text.partition("#")
    return _with_prefixes(text.rstrip(" "), wiki, fragment.strip(" ") if hash_mark else None, leading_colon)


def _with_prefixes(text: str, wiki: Wiki, fragment: str | None, leading_colon: bool) -> Target | None:
    """Namespace and interwiki prefixes taken off from the left; prefixes of the wiki itself count for nothing."""
    while True:
        prefix, colon, rest = text.partition(":")
        if not colon:
            break
        rest = rest.lstrip(" ")
        number = wiki.namespace_numbers.get(fold_namespace(prefix))
        if number is not None:
            return _checked(number, rest, wiki, fragment, leading_colon)
        folded = prefix.strip(" ").lower()
        second = rest.partition(":")[0].strip(" ").lower()
        if folded in _WIKIPEDIA_PREFIXES and (second in wiki.wikipedia_prefixes or wiki.code != "enwiki"):
            text = rest if second in wiki.wikipedia_prefixes else f"en:{rest}"
            leading_colon = True  # a link in the text, not one at the page's side
            continue
        if folded in wiki.own_prefixes or folded in _WIKIPEDIA_PREFIXES:
            text = rest.removeprefix(":").lstrip(" ")
            continue
        if folded in wiki.wikipedia_prefixes or folded in wiki.interwiki_prefixes:
            return Target(namespace=0, title=rest, fragment=fragment, interwiki=folded, leading_colon=leading_colon)
        break
    return _checked(0, text, wiki, fragment, leading_colon)


def _checked(number: int, name: str, wiki: Wiki, fragment: str | None, leading_colon: bool) -> Target | None:
    if number == 0 and not name:
        return Target(namespace=0, title="", fragment=fragment, leading_colon=leading_colon) if fragment else None
    if not name or not is_legal(name):
        return None
    title = first_letter(name, wiki, number)
    if number != 0:
        title = f"{wiki.namespaces[number][0]}:{title}"
    return Target(namespace=number, title=title, fragment=fragment, leading_colon=leading_colon)


def normalise_title(raw: str, wiki: Wiki, namespace: int = 0) -> str | None:
    """A whole title that is known to be one (a dump's <title>, a sitelink), or None if it is illegal.

    The namespace is what the caller knows, never what a colon in the title seems to say. Why one is illegal: `title_fault`.
    """
    text = _cleaned(raw)
    if not is_legal(text) or _INVISIBLE.search(text):
        return None
    if namespace == 0:
        return first_letter(text, wiki, 0)
    prefix, colon, name = text.partition(":")
    if not colon:
        return first_letter(text, wiki, namespace)
    return f"{prefix}:{first_letter(name.lstrip(' '), wiki, namespace)}"


def namespace_of_title(title: str, wiki: Wiki) -> int:
    """The namespace that a title's prefix names, for dumps that do not say it beside the title.

    >>> from leia_beam.wikis import load_wiki
    >>> namespace_of_title("Talk:Tokyo", load_wiki("en")), namespace_of_title("Alien: Covenant", load_wiki("en"))
    (1, 0)
    """
    prefix, colon, name = title.partition(":")
    return wiki.namespace_numbers.get(fold_namespace(prefix), 0) if colon and name.strip() else 0


def _cleaned(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", _BIDI_MARKS.sub("", text))
    return _WHITE_SPACE.sub(" ", text).strip(" ")


def title_fault(raw: str) -> str | None:
    """Why a dump's or a sitelink's title is illegal, in a few words; None where it is not.

    >>> title_fault("A\\tB"), title_fault("A|B"), title_fault("A" * 256), title_fault("A")
    ('control or direction character', 'character', 'over 255 bytes', None)
    """
    text = _cleaned(raw)
    if not text:
        return "empty"
    if _INVISIBLE.search(text):
        return "control or direction character"
    if is_legal(text):
        return None
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TITLE_BYTES:
        return f"over {MAX_TITLE_BYTES} bytes"
    if _RELATIVE.search(text):
        return "relative path"
    return "leading colon" if text.startswith(":") else "character"


def is_legal(title: str) -> bool:
    """Whether MediaWiki would let a page have this name (without prefix)."""
    if (
        not title
        or title.startswith(":")
        or _ILLEGAL.search(title)
        or len(title.encode("utf-8", "surrogatepass")) > MAX_TITLE_BYTES
    ):
        return False
    return not ("." in title and _RELATIVE.search(title))


def first_letter(title: str, wiki: Wiki, namespace: int = 0) -> str:
    """The title with its first letter as the wiki's case rule has it.

    By which of MediaWiki's two rules (`first_letters`) is a fact of the wiki, told by its dump.
    """
    if not title or namespace in wiki.case_sensitive_namespaces:
        return title
    if wiki.case == CASE_SENSITIVE and namespace not in (-1, 2, 3, 8, 9):
        return title
    first = title[0]
    if first == "i" and wiki.language in _DOTTED_I:
        return "İ" + title[1:]
    form = first_letters(wiki.first_letter_rule).get(first)
    return title if form is None else form + title[1:]
