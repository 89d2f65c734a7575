"""From an item's sitelinks and labels to the name that is inserted beside a link, or the reason why there is none.

The name is the sitelink's title in the name language without its trailing parenthesis, which goes only where a space
stands before it and something is left, so that PC(USA) and Thallium(I) fluoride stay; in the label's case where the
two differ by case alone ("Dog" the title, "dog" the label). By option it is the label, or the label where there is no
sitelink. Lists, disambiguation pages and categories are told by their item's type, not by what they are called.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leia_beam.errors import UsageError
from leia_beam.wikis import Wiki, fold_namespace, label_language, language_of

_TRAILING_PARENTHESIS = re.compile(r"(?<=\S) +\([^()]*\)$")
_ANY_PARENTHESIS = re.compile(r" *\([^()]*\) *")

MISSING, LOOP, SECTION, OTHER_WIKI, OTHER_NAMESPACE = "missing page", "loop", "section", "other wiki", "other namespace"
UNRESOLVED = (MISSING, LOOP, SECTION, OTHER_WIKI, OTHER_NAMESPACE)
"""Reasons for which a link leads to no page or item."""
NO_ITEM, NO_SITELINK, REFUSED_NAME = "no item", "no sitelink", "refused name"
"""Reasons for which a page or item that a link leads to has no name."""
NO_LABEL, HELD_OUT, EQUAL_TO_ANCHOR = "no label", "held out", "equal to the anchor"
LIST, DISAMBIGUATION = f"{REFUSED_NAME}: list", f"{REFUSED_NAME}: disambiguation page"
CATEGORY, TEMPLATE_PAGE = f"{REFUSED_NAME}: category", f"{REFUSED_NAME}: template"
NUMBER, CONTROL = f"{REFUSED_NAME}: number or date", f"{REFUSED_NAME}: control or direction character"

INSTANCE_OF = "P31"
REFUSED_TYPES = {
    "Q13406463": LIST,
    "Q4167410": DISAMBIGUATION,
    "Q22808320": DISAMBIGUATION,  # of human names
    "Q4167836": CATEGORY,
    "Q11266439": TEMPLATE_PAGE,
}
_DATE_TYPES = frozenset(
    {
        "Q577",  # year
        "Q3186692",  # calendar year
        "Q39911",  # decade
        "Q578",  # century
        "Q36507",  # millennium
        "Q14795564",  # day of every year
        "Q47150325",  # day of one year
        "Q47018901",  # month of one year
        "Q21199",  # natural number
    }
)

SITELINK = "sitelink"
LABEL_CASE = "sitelink in the label's case"
LABEL = "label"
TEMPLATE = "interlanguage template"

SITELINK_THEN_LABEL = "sitelink-then-label"
TRAILING, ALL = "trailing", "all"
SOURCES = (SITELINK, LABEL, SITELINK_THEN_LABEL)

_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MONTHS = "|".join(calendar.month_name[1:])
_NUMBER_WORDS = re.compile(
    rf"(?:\d+s|\d+(?:st|nd|rd|th)(?: century| millennium)?|(?:{_MONTHS})(?: \d+)?(?:, \d+)?|\d+ (?:{_MONTHS})(?: \d+)?)"
    r"(?: (?:BC|BCE|AD|CE))?|\d+ (?:BC|BCE|AD|CE)|(?:AD|CE) \d+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRules:
    """What is taken for a name, and what is refused."""

    source: str = SITELINK
    label_case: bool = True
    """Whether "Dog" becomes "dog" where the label is so."""
    parentheses: str = TRAILING
    """Which parentheses are taken off a title: the last one, or all."""
    refuse_numbers: bool = False
    """Whether bare numbers, years and dates get no name."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise UsageError(f"name source {self.source!r}: give one of {', '.join(SOURCES)}")
        if self.parentheses not in (TRAILING, ALL):
            raise UsageError(f"parentheses {self.parentheses!r}: give one of {TRAILING}, {ALL}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name, its language, and where it came from; or no name, and why."""

    name: str | None = None
    language: str | None = None
    source: str | None = None
    reason: str | None = None


def clean_title(title: str, parentheses: str = TRAILING) -> str:
    """A title without its trailing parenthesis, or without all that it has.

    >>> clean_title("Mercury (planet)"), clean_title("PC(USA)"), clean_title("(500) Days of Summer"), clean_title("(A)")
    ('Mercury', 'PC(USA)', '(500) Days of Summer', '(A)')
    >>> clean_title("(500) Days of Summer", ALL), clean_title("PC(USA)", ALL), clean_title("(A)", ALL)
    ('Days of Summer', 'PC', '(A)')
    """
    if parentheses == ALL:
        return _ANY_PARENTHESIS.sub(" ", title).strip() or title
    return _TRAILING_PARENTHESIS.sub("", title).strip() or title


def is_number_or_date(name: str) -> bool:
    """Whether a name is a bare number, year, century or date: no letter at all, or an English form of a date.

    >>> [is_number_or_date(name) for name in ("1984", "44 BC", "1990s", "May 1", "1 May 1990", "21st century", "May Day")]
    [True, True, True, True, True, True, False]
    """
    has_letter = any(unicodedata.category(character)[0] == "L" for character in name)
    has_digit = any(character.isnumeric() for character in name)
    return (has_digit and not has_letter) or (has_digit and _NUMBER_WORDS.fullmatch(name) is not None)


def choose_name(
    sitelinks: Sequence[tuple[str, str]],
    labels: Sequence[tuple[str, str]],
    name_wikis: Sequence[Wiki],
    rules: NameRules = NameRules(),
    types: Collection[str] = (),
) -> Name:
    """The name of an item in the first language, in order of preference, that has one.

    `types` are the items that it is an instance of, as far as they are kept.
    """
    for kind in sorted(types):
        if kind in REFUSED_TYPES:
            return Name(reason=REFUSED_TYPES[kind])
    if rules.refuse_numbers and not _DATE_TYPES.isdisjoint(types):
        return Name(reason=NUMBER)
    titles, label_of = dict(sitelinks), dict(labels)
    refusal = None
    for wiki in name_wikis:
        title, label = titles.get(wiki.code), label_of.get(label_language(wiki.code))
        found = _name_in(wiki, title, label, rules)
        if found is None:
            continue
        reason = _refusal(found.name or "", title if found.source != LABEL else label, wiki, rules)
        if reason is None:
            return found
        refusal = refusal or reason
    return Name(reason=refusal or (NO_LABEL if rules.source == LABEL else NO_SITELINK))


def _name_in(wiki: Wiki, title: str | None, label: str | None, rules: NameRules) -> Name | None:
    language = language_of(wiki.code)
    if title is not None and rules.source != LABEL:
        name = clean_title(title, rules.parentheses)
        if rules.label_case and label is not None and label != name and label.casefold() == name.casefold():
            return Name(name=label, language=language, source=LABEL_CASE)
        return Name(name=name, language=language, source=SITELINK)
    if label is not None and rules.source != SITELINK:
        return Name(name=label.strip(), language=language, source=LABEL) if label.strip() else None
    return None


def _refusal(name: str, title: str | None, wiki: Wiki, rules: NameRules) -> str | None:
    if title is not None and _in_other_namespace(title, wiki):
        return REFUSED_NAME
    return refusal_of(name, rules)


def refusal_of(name: str, rules: NameRules) -> str | None:
    """Why a name is not inserted, by what it is made of; None where it may be."""
    if _UNWANTED.search(name):
        return CONTROL
    return NUMBER if rules.refuse_numbers and is_number_or_date(name) else None


def _in_other_namespace(title: str, wiki: Wiki) -> bool:
    prefix, colon, _ = title.partition(":")
    return bool(colon) and fold_namespace(prefix) in wiki.namespace_numbers
