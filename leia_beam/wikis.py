"""From a wiki's code to its facts: database name, namespaces, redirect words, link trail, interwiki prefixes.

The facts stand in data/wikis.json: the prefixes of all Wikipedias, the site information of ten of them, for 43 others
what MediaWiki's language files (1.39) and the wikis' public settings say, and for 259 more what the language files alone
do; the same derivation gives the ten what their site information says. Written once are the English words, which work in
every wiki (enwiki's), and those of a wiki from which another takes its own (`like`, as MediaWiki falls back from Abkhaz
to Russian). A dump's <siteinfo> completes the facts, since it is newer and exists for every wiki. Database names are not
language codes: the wiki of `zh-min-nan` is zh_min_nanwiki, that of `nb` is nowiki.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from leia_beam.errors import UsageError
from leia_beam.first_letters import SIMPLE

FIRST_LETTER, CASE_SENSITIVE = "first-letter", "case-sensitive"

_DEFAULT_NAMESPACES: Mapping[int, tuple[str, ...]] = {
    -2: ("Media",),
    -1: ("Special",),
    1: ("Talk",),
    2: ("User",),
    3: ("User talk",),
    4: ("Project",),
    5: ("Project talk",),
    6: ("File", "Image"),
    7: ("File talk", "Image talk"),
    8: ("MediaWiki",),
    9: ("MediaWiki talk",),
    10: ("Template",),
    11: ("Template talk",),
    12: ("Help",),
    13: ("Help talk",),
    14: ("Category",),
    15: ("Category talk",),
    710: ("TimedText",),
    711: ("TimedText talk",),
    828: ("Module",),
    829: ("Module talk",),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Wiki:
    """The facts of one wiki. Compared by identity, so that caches keyed by it stay small."""

    code: str
    """Database name: 'jawiki'."""
    language: str
    case: str = FIRST_LETTER
    first_letter_rule: str = SIMPLE
    """How the first letter is raised, by the age of its MediaWiki: a name in `first_letters`."""
    namespaces: Mapping[int, Sequence[str]] = field(default_factory=lambda: _DEFAULT_NAMESPACES)
    """Number → names, the local one first. Namespace 0 has none."""
    case_sensitive_namespaces: frozenset[int] = frozenset()
    redirect_words: Sequence[str] = ("#REDIRECT",)
    behaviour_switches: Sequence[str] = field(default_factory=lambda: _english_facts()["behaviour_switches"])
    image_options: Mapping[str, Sequence[str]] = field(default_factory=lambda: _english_facts()["image_options"])
    """Words between the bars of a file link that are no caption: 'shown', those with which the caption is visible (thumb,
    frame), and 'other'. `$1` stands where a value does; unlike switches and namespaces they are case-sensitive."""
    link_trail: str = "a-z"
    """Characters, in the form of a regular expression's class, that a link takes in from the text after it."""
    link_trail_alternative: str = ""
    """What a trail also takes in, as a regular expression that is tried first, where characters alone do not tell: an
    apostrophe in Catalan, but not the two of italics; the c'h of Breton."""
    link_prefix: str = ""
    """The same for the text before a link."""
    variants: Sequence[str] = ()
    wikipedia_prefixes: Mapping[str, str] = field(default_factory=dict)
    """Interwiki prefix → database name, for all Wikipedias."""
    interwiki_prefixes: frozenset[str] = frozenset()
    """The other interwiki prefixes (sister projects and the world)."""
    own_prefixes: frozenset[str] = frozenset()
    """Prefixes that lead back to this wiki."""
    namespace_numbers: Mapping[str, int] = field(default_factory=dict)
    """Case-folded name or alias → number."""

    @property
    def link_trail_expression(self) -> str:
        """A regular expression for the whole trail, to be matched where a link ends; it never matches nothing.

        >>> Wiki(code="dewiki", language="de", link_trail="a-zäöüß").link_trail_expression
        '[a-zäöüß]+'
        """
        characters = f"[{self.link_trail}]" if self.link_trail else "(?!)"
        return f"(?:{self.link_trail_alternative}|{characters})+" if self.link_trail_alternative else f"{characters}+"


@cache
def _data() -> dict[str, Any]:
    text = resources.files("leia_beam").joinpath("data/wikis.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def _english_facts() -> dict[str, Any]:
    facts: dict[str, Any] = _data()["facts"]["enwiki"]
    return facts


def wikipedia_codes() -> frozenset[str]:
    """The database names of all Wikipedias."""
    return frozenset(_data()["wikipedias"].values())


COUNTRIES: Mapping[str, Sequence[str]] = {
    "al": ("sq",),
    "by": ("be",),
    "cn": ("zh",),
    "cz": ("cs",),
    "dk": ("da",),
    "eg": ("ar", "arz"),
    "gb": ("en",),
    "ge": ("ka",),
    "gr": ("el",),
    "hk": ("zh", "zh-yue"),
    "iq": ("ar",),
    "ir": ("fa",),
    "jp": ("ja",),
    "ke": ("sw",),
    "kh": ("km",),
    "kr": ("ko",),
    "kz": ("kk",),
    "me": ("sr",),
    "mx": ("es",),
    "np": ("ne",),
    "pk": ("ur",),
    "ph": ("tl",),
    "rs": ("sr",),
    "se": ("sv",),
    "tz": ("sw",),
    "ua": ("uk",),
    "us": ("en",),
    "vn": ("vi",),
}
"""Countries' codes that are taken for languages, and what is meant. Two are a Wikipedia's too (kr Kanuri, se Northern Sami): a
wrong guess there would fetch and build another language without a word."""
_OTHER_ALIASES = ("epo",)


def wiki_code(given: str) -> str:
    """The database name for what a user gave: a database name, or a language code that means one.

    Raises: UsageError with the nearest names.

    >>> wiki_code("ja"), wiki_code("jawiki"), wiki_code("zh-min-nan"), wiki_code("nb")
    ('jawiki', 'jawiki', 'zh_min_nanwiki', 'nowiki')
    """
    prefixes: dict[str, str] = _data()["wikipedias"]
    codes = wikipedia_codes()
    if given in codes:
        return given
    country = given.lower().removesuffix("wiki")
    if country in COUNTRIES:
        meant = " or ".join(f"{language!r} ({prefixes[language]})" for language in COUNTRIES[country])
        own = (
            f"; {country}wiki is another language's, and is meant by that name alone"
            if f"{country}wiki" in codes
            else ""
        )
        raise UsageError(f"unknown wiki {given!r}, which is a country's code; did you mean {meant}?{own}")
    if given in prefixes and given not in _OTHER_ALIASES:
        return prefixes[given]
    if given in _OTHER_ALIASES:
        language = prefixes[given].removesuffix("wiki")
        raise UsageError(f"unknown wiki {given!r}; did you mean {language!r} ({prefixes[given]})?")
    folded = given.lower().replace("-", "_")
    candidates = sorted(codes | set(prefixes))
    if folded in codes or folded + "wiki" in codes or folded.removesuffix("wiki").replace("_", "-") in prefixes:
        near = [code for code in (folded, folded + "wiki") if code in codes]
        near = near or [prefixes[folded.removesuffix("wiki").replace("_", "-")]]
    else:
        near = difflib.get_close_matches(given.lower(), candidates, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; give a database name such as jawiki, or a language"
    raise UsageError(f"unknown wiki {given!r}{hint}")


def language_of(code: str) -> str:
    """The language code that the wiki's labels and prefixes have.

    >>> language_of("jawiki"), language_of("zh_min_nanwiki"), language_of("simplewiki")
    ('ja', 'zh-min-nan', 'simple')
    """
    return code.removesuffix("wiki").replace("_", "-")


_LABEL_LANGUAGES = {
    "alswiki": "gsw",
    "bat_smgwiki": "sgs",
    "be_x_oldwiki": "be-tarask",
    "fiu_vrowiki": "vro",
    "nowiki": "nb",
    "roa_rupwiki": "rup",
    "simplewiki": "en",
    "zh_classicalwiki": "lzh",
    "zh_min_nanwiki": "nan",
    "zh_yuewiki": "yue",
}


def label_language(code: str) -> str:
    """The language code under which Wikidata has labels in the wiki's language.

    >>> label_language("jawiki"), label_language("nowiki"), label_language("simplewiki")
    ('ja', 'nb', 'en')
    """
    return _LABEL_LANGUAGES.get(code, language_of(code))


_RIGHT_TO_LEFT = frozenset("ar arc ary arz azb ckb dv fa glk he ks lrc mzn nqo pnb ps sd skr ug ur yi".split())
"""Languages of Wikipedias that MediaWiki writes from right to left."""


def direction_of(code: str) -> str:
    """In which direction a wiki is read, as HTML's `dir` has it.

    >>> direction_of("arwiki"), direction_of("jawiki")
    ('rtl', 'ltr')
    """
    return "rtl" if language_of(code) in _RIGHT_TO_LEFT else "ltr"


def load_wiki(code: str) -> Wiki:
    """The facts of a wiki by its database name; sensible defaults where the table has none.

    Raises: UsageError for an unknown wiki.
    """
    return _load_wiki(wiki_code(code))


@cache
def _load_wiki(code: str) -> Wiki:
    data = _data()
    prefixes = data["wikipedias"]
    facts = data["facts"].get(code, {})
    sources = [facts, data["facts"].get(facts.get("like"), {}), data["facts"]["enwiki"]]
    namespaces = {int(number): tuple(names) for number, names in facts.get("namespaces", {}).items()}
    namespaces = _with_default_names(namespaces)
    return Wiki(
        code=code,
        language=facts.get("language", language_of(code)),
        case=facts.get("case", FIRST_LETTER),
        namespaces=namespaces,
        case_sensitive_namespaces=frozenset(facts.get("case_sensitive_namespaces", ())),
        redirect_words=tuple(facts.get("redirect_words", ("#REDIRECT",))),
        behaviour_switches=_all_words(source.get("behaviour_switches", ()) for source in sources),
        image_options={
            kind: _all_words(source.get("image_options", {}).get(kind, ()) for source in sources)
            for kind in ("shown", "other")
        },
        link_trail=facts.get("link_trail", "a-z"),
        link_trail_alternative=facts.get("link_trail_alternative", ""),
        link_prefix=facts.get("link_prefix", ""),
        variants=tuple(facts.get("variants", ())),
        wikipedia_prefixes=prefixes,
        interwiki_prefixes=frozenset(data["interwiki_prefixes"]),
        own_prefixes=frozenset(prefix for prefix, wiki in prefixes.items() if wiki == code),
        namespace_numbers=_numbers_by_name(namespaces),
    )


def with_siteinfo(
    wiki: Wiki,
    namespaces: Mapping[int, str],
    case: str,
    case_sensitive: frozenset[int],
    first_letter_rule: str = SIMPLE,
) -> Wiki:
    """The wiki's facts completed by what a dump's <siteinfo> says: its names come first, the table's aliases stay."""
    merged: dict[int, tuple[str, ...]] = {number: tuple(names) for number, names in wiki.namespaces.items()}
    for number, name in namespaces.items():
        if number != 0 and name:
            merged[number] = (name, *(alias for alias in merged.get(number, ()) if alias != name))
    return replace(
        wiki,
        namespaces=merged,
        case=case,
        first_letter_rule=first_letter_rule,
        case_sensitive_namespaces=case_sensitive,
        namespace_numbers=_numbers_by_name(merged),
    )


def _all_words(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in parts for word in part))


def _with_default_names(namespaces: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """English names work in every wiki, beside its own."""
    merged = dict(namespaces)
    for number, names in _DEFAULT_NAMESPACES.items():
        own = merged.get(number, ())
        merged[number] = (*own, *(name for name in names if name not in own))
    return merged


def _numbers_by_name(namespaces: Mapping[int, Sequence[str]]) -> dict[str, int]:
    return {fold_namespace(name): number for number, names in namespaces.items() for name in names}


_SPACES = re.compile(r"[ _]+")


def fold_namespace(name: str) -> str:
    """A namespace's name as it is compared: one space, no case."""
    return _SPACES.sub(" ", name).strip().casefold()
