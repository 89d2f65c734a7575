"""From the names of two dumps to a warning where they are of different times.

Pages that are younger than the Wikidata dump have no item in it, so their links go without a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

MAX_DAYS_APART = 45

_DATE = re.compile(r"(?<!\d)(20\d{2})-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")


def dump_date(name: str) -> date | None:
    """The date in a dump's name, or None.

    >>> dump_date("jawiki-20260101-pages-articles.xml.bz2"), dump_date("latest-all.json.gz")
    (datetime.date(2026, 1, 1), None)
    """
    match = _DATE.search(name)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def dates_apart(pages: Iterable[str], wikidata: Iterable[str]) -> str | None:
    """What is to be said of dumps whose dates lie more than 45 days apart; None where they do not, or name no date.

    >>> dates_apart(["jawiki-20260101-pages.xml.bz2"], ["wikidata-20260401-all.json.bz2"])
    'the wiki is of 2026-01-01, Wikidata of 2026-04-01, 90 days apart'
    """
    wiki_dates = [found for name in pages if (found := dump_date(name))]
    item_dates = [found for name in wikidata if (found := dump_date(name))]
    if not wiki_dates or not item_dates:
        return None
    days, wiki, items = max((abs((a - b).days), a, b) for a in wiki_dates for b in item_dates)
    if days <= MAX_DAYS_APART:
        return None
    return f"the wiki is of {wiki}, Wikidata of {items}, {days} days apart"
