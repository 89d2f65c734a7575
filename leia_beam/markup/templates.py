"""From a template's call to the wikitext that it comes to in running text: a few words, an interlanguage link, nothing.

Templates are not expanded. Those that stand within sentences are rendered by a table (data/templates.json) in which a
speaker of a language adds one in one line; all others come to nothing, and the brackets that this leaves empty go too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from leia_beam.markup.bars import split_at_bars
from leia_beam.markup.marks import CLOSE, OPEN
from leia_beam.markup.page_state import ForeignArticle, PageState
from leia_beam.markup.parser_functions import evaluate, format_number, is_variable
from leia_beam.wikis import Wiki

MAX_RENDERED_CHARS = 10_000
"""A call with more text than this is no inline template, whatever its name."""

_TEMPLATE_NAMESPACE = 10
_SPACES = re.compile(r"[\s_]+")
_NAMED = re.compile(r"\s*([^=\[\]{}<>\n]{1,40}?)\s*=")
_RECIPE_TOKEN = re.compile(r"\{([^{}]+)\}|<|>")
_ILLEGAL_IN_NAME = re.compile(r"[\[\]{}<>\x01-\x06]")
_QID = re.compile(r"Q[1-9]\d*")
_QID_ARGUMENTS = ("WD", "wd", "qid", "d")


_ORDINAL = re.compile(r"\d{1,4}(?:e|er|re|ème|º|ª)")
_CENTURY = re.compile(r"([ivx]{1,6})((?:e|er)(?: siècle| millénaire)?)")


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """A template's name as the tables have it, and its arguments by position ('1') or name.

    A parser function is a call too; what stands behind its colon is its first argument, and `parts` are its arguments as
    they stand.
    """

    name: str
    arguments: Mapping[str, str]
    parts: Sequence[str] | None = None
    """The arguments of a parser function; None for a template."""


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


@lru_cache(maxsize=1 << 14)
def _may_be_rendered(head: str, wiki: Wiki) -> bool:
    """Whether a call that begins so has a recipe, or is one that is looked at closer."""
    name, language = _name_of(head, wiki), wiki.language
    return (
        not name
        or ":" in name
        or name.startswith(("link-", "lang-", "llang-"))
        or name == "langx"
        or _ORDINAL.fullmatch(name) is not None
        or _CENTURY.fullmatch(name) is not None
        or name in _recipes("inline", language)
        or name in _recipes("interlanguage", language)
        or name in disambiguation_templates(language)
        or is_variable(name)
    )


def expand(body: str, page: PageState) -> str | None:
    """The wikitext that a call comes to, from what stands between its braces; None where it is not rendered."""
    head = body.partition("|")[0]
    if ":" not in head and _ILLEGAL_IN_NAME.search(head):
        return "{{" + body + "}}"
    if len(head) > 1000 or not _may_be_rendered(head, page.wiki):
        return None
    call = parse_call(body, page.wiki)
    if call is None:
        return "{{" + body + "}}"
    if call.name in disambiguation_templates(page.wiki.language):
        page.flags.add("disambiguation")
    if call.parts is not None or not call.arguments:
        shown = evaluate(call.name, call.parts or (), page)
        if shown is not None:
            return shown
    interlanguage = _recipes("interlanguage", page.wiki.language).get(call.name) or _interlanguage_by_form(
        call, page.wiki
    )
    if interlanguage is not None:
        return _interlanguage_link(call, interlanguage, page)
    recipe = _recipes("inline", page.wiki.language).get(call.name)
    if recipe is None:
        shown = _language_label(call, page.wiki) or _by_form(call)
    else:
        shown = fill(recipe, call.arguments, page.wiki.language)
        if not shown:
            return "" if "{" not in recipe else None
    return OPEN + shown + CLOSE if shown and "[[" in shown else shown or None


@lru_cache(maxsize=1 << 12)
def _name_of(head: str, wiki: Wiki) -> str:
    """A template's name as the tables have it: lower case, one space, without its namespace."""
    name = _SPACES.sub(" ", head).strip().lower()
    for modifier in ("subst:", "safesubst:", "msgnw:", "msg:", "raw:"):
        name = name.removeprefix(modifier).strip()
    prefix, colon, rest = name.partition(":")
    if colon and rest and wiki.namespace_numbers.get(prefix.strip()) == _TEMPLATE_NAMESPACE:
        return rest.strip()
    return name


def template_name(body: str, wiki: Wiki) -> str:
    """The name under which a call is counted. A parser function's is what stands before its colon.

    >>> from leia_beam.wikis import load_wiki
    >>> template_name("Cite_web |url=x", load_wiki("en")), template_name("#invoke:A|b", load_wiki("en"))
    ('cite web', '#invoke:')
    """
    name = _name_of(body.partition("|")[0][:300], wiki)
    return name.partition(":")[0] + ":" if ":" in name else name


def parse_call(body: str, wiki: Wiki) -> TemplateCall | None:
    """A call from what stands between its braces; None where no template can have this name.

    Parameters are parted at bars outside links. A parser function (`formatnum:1`) is a call whose name ends at the colon.

    >>> from leia_beam.wikis import load_wiki
    >>> parse_call("Lang|en| [[Tokyo|T]] |a = b", load_wiki("ja"))
    TemplateCall(name='lang', arguments={'1': 'en', '2': '[[Tokyo|T]]', 'a': 'b'}, parts=None)
    """
    parts = split_at_bars(body)
    name = _name_of(parts[0][:300], wiki)
    if not name:
        return None
    if ":" in name:
        name = name.partition(":")[0].strip()
        first = parts[0].partition(":")[2]
        return TemplateCall(
            name, _arguments([first, *parts[1:]], 1), [first.strip(), *(part.strip() for part in parts[1:])]
        )
    return TemplateCall(name, _arguments(parts[1:], 1))


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


def _by_form(call: TemplateCall) -> str | None:
    """Templates that are named as what they show: `{{84e}}`, `{{XXe siècle}}`."""
    century = _CENTURY.fullmatch(call.name)
    if century is not None:
        return century.group(1).upper() + century.group(2)
    return call.name if _ORDINAL.fullmatch(call.name) else None


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _language_label(call: TemplateCall, wiki: Wiki) -> str | None:
    """`lang-xx` and `langx`: the text, with the language's name before it where the wiki shows that."""
    if call.name == "langx":
        code, text = call.arguments.get("1", ""), call.arguments.get("2", "")
    elif call.name.startswith(("lang-", "llang-")):
        code, text = call.name.partition("-")[2], call.arguments.get("1", "")
    else:
        return None
    table = _data()["language_labels"].get(wiki.language)
    name = table["names"].get(code) if table is not None else None
    if not text or name is None or call.arguments.get("label") == "none":
        return text or None
    return fill(table["pattern"], {"name": name, "text": text}, wiki.language)


class _Field(NamedTuple):
    """One field of a recipe: the arguments of which the first that is there counts, and how it is shown."""

    names: tuple[str, ...]
    form: str


@dataclass(frozen=True, slots=True)
class _Part:
    """Texts, fields and optional parts, in order."""

    pieces: tuple[str | _Field | _Part, ...]


@lru_cache(maxsize=1 << 12)
def _parse_recipe(recipe: str) -> _Part:
    return _parse_part(recipe, _RECIPE_TOKEN.finditer(recipe), 0)[0]


def _parse_part(recipe: str, tokens: Iterator[re.Match[str]], position: int) -> tuple[_Part, int]:
    pieces: list[str | _Field | _Part] = []
    for token in tokens:
        pieces.append(recipe[position : token.start()])
        position = token.end()
        content = token.group(1)
        if content is not None and content.startswith("*"):
            pieces.append(_Field(("*",), content[1:]))
        elif content is not None and "?" in content:
            name, _, forms = content.partition("?")
            pieces.append(_Field((name,), "?" + forms))
        elif content is not None:
            names, _, form = content.partition(":")
            pieces.append(_Field(tuple(names.split("|")), form))
        elif token.group() == "<":
            part, position = _parse_part(recipe, tokens, position)
            pieces.append(part)
        else:
            return _Part(tuple(pieces)), position
    pieces.append(recipe[position:])
    return _Part(tuple(pieces)), len(recipe)


def fill(recipe: str, arguments: Mapping[str, str], language: str = "en") -> str:
    """A recipe with its fields filled; parts in angle brackets whose own fields are not all there are left out.

    >>> fill("{1}< ({2}<, {3}>)>", {"1": "a", "2": "b"}), fill("{3|2|1}", {"2": "b", "1": "a"})
    ('a (b)', 'b')
    >>> fill("{2:month} {3}, {1}", {"1": "1912", "2": "6", "3": "23"}), fill("{*-}", {"1": "a", "2": "b"})
    ('June 23, 1912', 'a-b')
    >>> fill("{lc?as:As} of {1}", {"1": "2012", "lc": "y"}), fill("{lc?as:As} of {1}", {"1": "2012"})
    ('as of 2012', 'As of 2012')
    """
    return _filled(_parse_recipe(recipe), arguments, language, is_optional=False) or ""


def _filled(part: _Part, arguments: Mapping[str, str], language: str, is_optional: bool) -> str | None:
    texts = []
    for piece in part.pieces:
        if isinstance(piece, str):
            texts.append(piece)
        elif isinstance(piece, _Field):
            value = _value(piece, arguments, language)
            if not value and is_optional:
                return None
            texts.append(value)
        else:
            texts.append(_filled(piece, arguments, language, is_optional=True) or "")
    return "".join(texts)


def _value(field: _Field, arguments: Mapping[str, str], language: str) -> str:
    if field.names == ("*",):
        return field.form.join(text for name, text in arguments.items() if name.isdecimal() and text)
    if field.form.startswith("?"):
        with_it, _, without_it = field.form[1:].partition(":")
        return with_it if arguments.get(field.names[0]) else without_it
    value = next((arguments[name] for name in field.names if arguments.get(name)), "")
    if field.form == "number":
        return format_number(value, language)
    if field.form == "month" and value.isdecimal() and value.isascii() and 1 <= int(value) <= 12:
        return str(_data()["months"].get(language, _data()["months"]["en"]).split()[int(value) - 1])
    return value


# ── interlanguage links ──────────────────────────────────────────────────────────────────────────────────────────────


def _interlanguage_by_form(call: TemplateCall, wiki: Wiki) -> Mapping[str, str] | None:
    """`link-xx` for any language's code, where the wiki has the family."""
    family = _recipes("interlanguage", wiki.language).get("link-*")
    code = call.name.removeprefix("link-")
    if family is None or code == call.name or code not in wiki.wikipedia_prefixes:
        return None
    return {**family, "language": f"={code}"}


def _interlanguage_link(call: TemplateCall, recipe: Mapping[str, str], page: PageState) -> str | None:
    """A link to the wiki's own title that carries the foreign article's."""

    def value(field: str) -> str | None:
        for name in recipe.get(field, "").split("|"):
            if name.startswith("="):
                return name[1:]
            if call.arguments.get(name):
                return call.arguments[name]
        return None

    target = value("target")
    if target is None:
        return None
    language, title = _preferred_pair(call, recipe) or (value("language"), value("title"))
    label = value("label") or target
    code = (language or "").strip().lower()
    foreign_wiki = page.wiki.wikipedia_prefixes.get(code)
    qid = next((call.arguments[name] for name in _QID_ARGUMENTS if call.arguments.get(name)), None)
    article = ForeignArticle(
        wiki=foreign_wiki,
        title=title if foreign_wiki else None,
        qid=qid if qid and _QID.fullmatch(qid) else None,
    )
    if "[[" in target or "[[" in label:  # a link of its own within: nothing to add
        return label
    return f"[[{target}{page.note_foreign(article)}|{label}]]{_note(code, title, page)}"


def _preferred_pair(call: TemplateCall, recipe: Mapping[str, str]) -> tuple[str, str] | None:
    """English where a call names articles in several languages (`|en|Title|fr|Titre`)."""
    if "pairs" not in recipe:
        return None
    position = int(recipe["pairs"])
    while call.arguments.get(str(position)):
        if call.arguments[str(position)].strip().lower() == "en":
            title = call.arguments.get(str(position + 1))
            return ("en", title) if title else None
        position += 2
    return None


def _note(code: str, title: str | None, page: PageState) -> str:
    """What the wiki shows behind a link that has no article yet; only in the page as rendered."""
    recipe = _data()["interlanguage_notes"].get(page.wiki.language)
    if not page.options.as_rendered or recipe is None or not code:
        return ""
    names = _data()["language_labels"].get(page.wiki.language, {}).get("names", {})
    return fill(recipe, {"code": code, "language": names.get(code, code), "title": title or ""})
