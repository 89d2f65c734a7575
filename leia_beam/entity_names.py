"""From an item's sitelinks and labels to the name that is inserted beside a link, or the reason why there is none.

The name is the sitelink's title in the name language without its trailing parenthesis, which goes only where a space
stands before it and something is left, so that PC(USA) and Thallium(I) fluoride stay; in the label's case where the
two differ by case alone ("Dog" the title, "dog" the label).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from leia_beam.wikis import Wiki, fold_namespace, label_language, language_of

_TRAILING_PARENTHESIS = re.compile(r"(?<=\S) +\([^()]*\)$")

MISSING, LOOP, SECTION, OTHER_WIKI, OTHER_NAMESPACE = "missing page", "loop", "section", "other wiki", "other namespace"
UNRESOLVED = (MISSING, LOOP, SECTION, OTHER_WIKI, OTHER_NAMESPACE)
"""Reasons for which a link leads to no page or item."""
NO_ITEM, NO_SITELINK, REFUSED_NAME = "no item", "no sitelink", "refused name"
"""Reasons for which a page or item that a link leads to has no name."""

SITELINK = "sitelink"
LABEL_CASE = "sitelink in the label's case"
TEMPLATE = "interlanguage template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name, its language, and where it came from; or no name, and why."""

    name: str | None = None
    language: str | None = None
    source: str | None = None
    reason: str | None = None


def clean_title(title: str) -> str:
    """A title without its trailing parenthesis.

    >>> clean_title("Mercury (planet)"), clean_title("PC(USA)"), clean_title("(500) Days of Summer"), clean_title("(A)")
    ('Mercury', 'PC(USA)', '(500) Days of Summer', '(A)')
    """
    return _TRAILING_PARENTHESIS.sub("", title).strip() or title


def choose_name(
    sitelinks: Sequence[tuple[str, str]], labels: Sequence[tuple[str, str]], name_wikis: Sequence[Wiki]
) -> Name:
    """The name of an item: of the first wiki, in order of preference, that has one."""
    titles, label_of = dict(sitelinks), dict(labels)
    refused = False
    for wiki in name_wikis:
        title = titles.get(wiki.code)
        if title is None:
            continue
        if _in_other_namespace(title, wiki):
            refused = True
            continue
        name, language = clean_title(title), language_of(wiki.code)
        label = label_of.get(label_language(wiki.code))
        if label is not None and label != name and label.casefold() == name.casefold():
            return Name(name=label, language=language, source=LABEL_CASE)
        return Name(name=name, language=language, source=SITELINK)
    return Name(reason=REFUSED_NAME if refused else NO_SITELINK)


def _in_other_namespace(title: str, wiki: Wiki) -> bool:
    prefix, colon, _ = title.partition(":")
    return bool(colon) and fold_namespace(prefix) in wiki.namespace_numbers
