"""From counts to bars within a page, with their figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leia_beam.html_pages import Html, element


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A name, a count, and the part of the whole track that its bar takes (0 to 1)."""

    label: str
    count: str
    length: float
    share: str = ""
    note: str = ""


def bars(entries: Iterable[Bar], *, long: bool = False) -> Html:
    """One bar under the other; `long` ones stand beside their names where there is room."""
    return element("ul", *map(_bar, entries), class_="bars long" if long else "bars")


def _bar(bar: Bar) -> Html:
    width = f"inline-size:{100 * min(max(bar.length, 0.0), 1.0):.2f}%"
    filled = [element("span", style=width)] if bar.length > 0 else []
    share = element("span", bar.share, class_="share") if bar.share else Html()
    return element(
        "li",
        element("span", element("bdi", bar.label), class_="label"),
        element("span", bar.count, share, class_="count"),
        element("span", *filled, class_="track", aria_hidden="true"),
        *([element("span", bar.note, class_="note")] if bar.note else []),
    )


def count_bars(counts: Sequence[tuple[str, int]]) -> Html:
    """Bars of counts that are parts of one whole, with the share of each."""
    whole = sum(count for _, count in counts) or 1
    largest = max((count for _, count in counts), default=1) or 1
    return bars(
        Bar(label=name, count=f"{count:,}", length=count / largest, share=percent(count / whole))
        for name, count in counts
    )


def percent(share: float) -> str:
    """A share in percent: more digits where it is small.

    >>> percent(0.5), percent(0.0004), percent(0)
    ('50.0 %', '0.04 %', '0 %')
    """
    if share == 0:
        return "0 %"
    return f"{100 * share:.1f} %" if abs(share) >= 0.001 else f"{100 * share:.2g} %"


def short_count(count: int) -> str:
    """A large count in few letters.

    >>> short_count(9_999_999), short_count(83_886_080_000)
    ('9,999,999', '83.9 billion')
    """
    if count >= 1_000_000_000:
        return f"{count / 1_000_000_000:,.1f} billion"
    return f"{count / 1_000_000:,.1f} million" if count >= 10_000_000 else f"{count:,}"
