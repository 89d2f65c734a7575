"""From a redirect page's wikitext to where it leads.

The dump's `<redirect title>` says that a page is a redirect but leaves out the section; so the link itself is read, by
the wiki's own redirect words, and the element's title is what is left where no link can be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from leia_beam.records import Page
from leia_beam.titles import Target, parse_target
from leia_beam.wikis import Wiki


@dataclass(frozen=True, kw_only=True, slots=True)
class Redirect:
    """Where a redirect leads: a title of the same wiki, a section of it, or another wiki's title."""

    to: str
    fragment: str | None = None
    to_interwiki: str | None = None


@cache
def _pattern(redirect_words: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(word) for word in sorted({*redirect_words, "#REDIRECT"}, key=len, reverse=True))
    return re.compile(rf"\s*(?:{words})\s*:?\s*\[\[([^\[\]|\n]{{1,1000}})(?:\|[^\]\n]{{0,1000}})?\]\]", re.IGNORECASE)


def redirect_of(page: Page, wiki: Wiki) -> Redirect | None:
    """Where a redirect page leads, or None if it is none.

    A redirect whose target is no legal title leads to ''.
    """
    if page.redirect_title is None:
        return None
    match = _pattern(tuple(wiki.redirect_words)).match(page.text or "")
    target = parse_target(match.group(1), wiki) if match else None
    if target is None or not (target.title or target.interwiki):
        target = parse_target(page.redirect_title, wiki)
    return _redirect(target) if target is not None else Redirect(to="")


def _redirect(target: Target) -> Redirect:
    return Redirect(to=target.title, fragment=target.fragment or None, to_interwiki=target.interwiki)
