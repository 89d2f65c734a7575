"""From a template's call to what it comes to in running text: a few words, an interlanguage link, or nothing.

Templates are not expanded. Those that stand within sentences are rendered by a table (data/templates.json) in which a
speaker of a language adds one in one line; all others come to nothing, and the brackets that this leaves empty go too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from leia_beam.wikis import Wiki

MAX_RENDERED_CHARS = 10_000
"""A call with more text than this is no inline template, whatever its name."""

_SPACES = re.compile(r"[\s_]+")
_SPLIT = re.compile(r"\[\[|\]\]|\|")
_NAMED = re.compile(r"\s*([^=\[\]{}<>\n]{1,40}?)\s*=")
_FIELD = re.compile(r"\{([^{}]+)\}")
_PART = re.compile(r"\[([^\[\]]*)\]")
_NO_VALUE = "\x00"


@dataclass(frozen=True, slots=True)
class InterlanguageLink:
    """A link that names a foreign article beside (or in place of) one of the wiki's own."""

    target: str
    label: str
    foreign_wiki: str | None
    foreign_title: str | None
    foreign_qid: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """A template's name as the tables have it, and its arguments by position ('1') or name."""

    name: str
    arguments: Mapping[str, str]


@cache
def _data() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        resources.files("leia_beam").joinpath("data/templates.json").read_text(encoding="utf-8")
    )
    return content


@lru_cache(maxsize=512)
def _recipes(kind: str, language: str) -> dict[str, Any]:
    """A table for a language: what counts for all, then its own."""
    table = _data()[kind]
    return {name.lower(): recipe for part in ("*", language) for name, recipe in table.get(part, {}).items()}


@lru_cache(maxsize=512)
def disambiguation_templates(language: str) -> frozenset[str]:
    """Names of the templates that mark a page as one of several meanings."""
    table = _data()["disambiguation"]
    return frozenset([*table["*"], *table.get(language, ())])


@lru_cache(maxsize=512)
def end_matter_titles(language: str) -> frozenset[str]:
    """Titles, case-folded, of the sections that are not running text: references, see also, and the like."""
    return frozenset(title.casefold() for title in _data()["end_matter"].get(language, ()))


def parse_call(body: str, wiki: Wiki) -> TemplateCall | None:
    """A call from what stands between its braces; None where no template can have this name.

    Parameters are parted at bars outside links. A parser function (`formatnum:1`) is a call whose name ends at the colon.

    >>> from leia_beam.wikis import load_wiki
    >>> parse_call("Lang|en| [[Tokyo|T]] |a = b", load_wiki("ja"))
    TemplateCall(name='lang', arguments={'1': 'en', '2': '[[Tokyo|T]]', 'a': 'b'})
    """
    parts = _split_arguments(body)
    name = _SPACES.sub(" ", parts[0]).strip()
    if not name or len(name) > 255:
        return None
    lowered = name.lower().removeprefix("subst:").removeprefix("safesubst:").strip()
    prefix, colon, rest = lowered.partition(":")
    if colon and rest and wiki.namespace_numbers.get(prefix.strip()) == 10:
        lowered = rest.strip()
    elif colon:
        first = name.partition(":")[2]
        return TemplateCall(prefix.strip(), {"1": first.strip(), **_arguments(parts[1:], 2)})
    return TemplateCall(lowered, _arguments(parts[1:], 1))


def _split_arguments(body: str) -> list[str]:
    parts, depth, begin = [], 0, 0
    for match in _SPLIT.finditer(body):
        mark = match.group()
        if mark == "|":
            if depth == 0:
                parts.append(body[begin : match.start()])
                begin = match.end()
        else:
            depth = depth + 1 if mark == "[[" else max(0, depth - 1)
    parts.append(body[begin:])
    return parts


def _arguments(parts: Sequence[str], first: int) -> dict[str, str]:
    arguments: dict[str, str] = {}
    position = first
    for part in parts:
        named = _NAMED.match(part)
        if named:
            arguments[named.group(1)] = part[named.end() :].strip()
        else:
            arguments[str(position)] = part.strip()
            position += 1
    return arguments


def render_call(call: TemplateCall, wiki: Wiki) -> str | InterlanguageLink | None:
    """What a call comes to; None for nothing."""
    interlanguage = _recipes("interlanguage", wiki.language).get(call.name)
    if interlanguage is not None:
        return _interlanguage_link(call, interlanguage, wiki)
    recipe = _recipes("inline", wiki.language).get(call.name)
    if recipe is None:
        recipe = _recipe_by_form(call)
    if recipe is None:
        return None
    return _fill(recipe, call.arguments) or None


def _recipe_by_form(call: TemplateCall) -> str | None:
    """Families of templates that differ by a language's code: lang-xx shows its text, formatnum its number."""
    if call.name.startswith(("lang-", "llang-")):
        return "{1}"
    return None


def _fill(recipe: str, arguments: Mapping[str, str]) -> str:
    """A recipe with its fields filled; parts in brackets whose fields are not all there are left out.

    >>> _fill("{1}[ ({2}[, {3}])]", {"1": "a", "2": "b"}), _fill("{3|2|1}", {"2": "b", "1": "a"})
    ('a (b)', 'b')
    """

    def value(match: re.Match[str]) -> str:
        for name in match.group(1).split("|"):
            if arguments.get(name):
                return arguments[name].replace("[", "\x01").replace("]", "\x04")
        return _NO_VALUE

    text = _FIELD.sub(value, recipe)
    while (part := _PART.search(text)) is not None:
        kept = "" if _NO_VALUE in part.group(1) else part.group(1)
        text = text[: part.start()] + kept + text[part.end() :]
    return text.replace(_NO_VALUE, "").replace("\x01", "[").replace("\x04", "]")


def _interlanguage_link(call: TemplateCall, recipe: Mapping[str, str], wiki: Wiki) -> str | InterlanguageLink | None:
    def value(field: str) -> str | None:
        for name in recipe[field].split("|"):
            if name.startswith("="):
                return name[1:]
            if call.arguments.get(name):
                return call.arguments[name]
        return None

    target = value("target")
    if target is None:
        return None
    label = value("label") or target
    language, title = value("language"), value("title")
    qid = next((call.arguments[name] for name in ("WD", "wd", "qid", "d") if call.arguments.get(name)), None)
    foreign_wiki = wiki.wikipedia_prefixes.get(language.lower()) if language else None
    return InterlanguageLink(
        target=target,
        label=label,
        foreign_wiki=foreign_wiki,
        foreign_title=title if foreign_wiki else None,
        foreign_qid=qid if qid and re.fullmatch(r"Q[1-9]\d*", qid) else None,
    )
