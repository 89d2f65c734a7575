"""From a page's wikitext to its plain text and its anchors, with text[start_char:end_char] exactly what a link shows.

A chain of passes in the order of MediaWiki's own parser, each linear in the page, none recursive, one a module of `markup`:
the preprocessor (comments, extension elements, templates), HTML tags, tables, rules and switches, sections, links, quotes,
external links, lists, variants, spacing. What a pass has settled stands as a mark in the text for those after it; a link is
set aside with its label, so that nothing after it sees into it, as in MediaWiki. The last pass puts text and anchors
together, so offsets are exact by construction.
"""

from __future__ import annotations

import re
from functools import lru_cache

from leia_beam.character_references import decode
from leia_beam.markup.assembly import assemble
from leia_beam.markup.external_links import with_external_links_shown
from leia_beam.markup.html_tags import with_tags_marked
from leia_beam.markup.language_variants import with_variants_chosen
from leia_beam.markup.links import with_links_set_aside
from leia_beam.markup.list_items import with_items_marked, with_rules_marked
from leia_beam.markup.marks import CLOSE, OPEN, without_marks
from leia_beam.markup.page_state import ExtractionOptions, PageState
from leia_beam.markup.preprocessor import preprocess
from leia_beam.markup.quotes import with_quotes_marked
from leia_beam.markup.sections import with_sections
from leia_beam.markup.spacing import with_spacing
from leia_beam.markup.wikitext_tables import with_tables
from leia_beam.records import INTERLANGUAGE_TEMPLATE, Extraction
from leia_beam.wikis import Wiki

__all__ = ["DEFAULT_OPTIONS", "ExtractionOptions", "extract"]

DEFAULT_OPTIONS = ExtractionOptions()

_IN_CAPITALS_ONLY = frozenset(
    f"__{word}__"
    for word in "NEWSECTIONLINK NONEWSECTIONLINK HIDDENCAT EXPECTUNUSEDCATEGORY INDEX NOINDEX STATICREDIRECT".split()
)
"""Switches that MediaWiki knows in capitals only."""


def extract(wikitext: str, page_title: str, wiki: Wiki, options: ExtractionOptions = DEFAULT_OPTIONS) -> Extraction:
    """The text and anchors of a page. Lines are parted by one line break, paragraphs by two.

    Links to a section of the page itself, and of the page to itself, are text without an anchor.

    >>> from leia_beam.wikis import load_wiki
    >>> found = extract("'''Tokyo''' is in [[Japan|Nippon]]ese hands{{cn}}.", "Tokyo", load_wiki("en"))
    >>> found.text, [(anchor.start_char, anchor.end_char, anchor.target) for anchor in found.anchors]
    ('Tokyo is in Nipponese hands.', [(12, 21, 'Japan')])
    """
    page = PageState(page_title, wiki, options)
    text = preprocess(without_marks(wikitext.replace("\r\n", "\n")), page)
    text = with_tables(with_tags_marked(text), page)
    text = with_sections(_without_switches(with_rules_marked(text), page), page)
    text = with_quotes_marked(with_links_set_aside(text, page))
    text = with_items_marked(with_external_links_shown(text, page), page)
    text = with_spacing(decode(with_variants_chosen(text, page)), options.as_rendered)
    text, anchors = assemble(text, page)
    page.counters["anchors/extracted"] = len(anchors)
    page.counters["anchors/of kind/" + INTERLANGUAGE_TEMPLATE] = sum(
        anchor.kind == INTERLANGUAGE_TEMPLATE for anchor in anchors
    )
    return Extraction(
        text=text, anchors=anchors, flags=sorted(page.flags), counters=page.counted(), tallies=page.tallies
    )


@lru_cache(maxsize=64)
def _switch_pattern(switches: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(switches, key=len, reverse=True))) or "(?!)", re.IGNORECASE)


def _without_switches(text: str, page: PageState) -> str:
    """The text without `__NOTOC__` and the like, in English and in the wiki's words."""
    if "__" not in text:
        return text

    switches = page.wiki.behaviour_switches

    def gone(match: re.Match[str]) -> str:
        if match.group() not in switches and match.group().upper() in _IN_CAPITALS_ONLY:
            return match.group()
        if match.group().upper() == "__DISAMBIG__":
            page.flags.add("disambiguation")
        return OPEN + CLOSE

    return _switch_pattern(tuple(switches)).sub(gone, text)
