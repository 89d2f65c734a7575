"""One record type at each arrow: what the corpus builder's functions hand to one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LINK = "link"
INTERLANGUAGE_TEMPLATE = "interlanguage template"
LATER_MENTION = "later mention"
KINDS = (LINK, INTERLANGUAGE_TEMPLATE, LATER_MENTION)

PROSE, LIST, HEADING, TABLE, CAPTION = "prose", "list", "heading", "table", "caption"
BLOCKS = (PROSE, LIST, HEADING, TABLE, CAPTION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One `<page>` of a dump: its newest revision. `title` is as the dump has it."""

    page_id: int
    namespace: int
    title: str
    revision_id: int | None
    redirect_title: str | None
    model: str
    text: str | None
    """Wikitext; None where the dump has none (a deleted revision)."""


class Anchor(NamedTuple):
    """A link in an article's text: text[start_char:end_char] is exactly what a reader sees as the link.

    `target` is the normalised title in the same wiki, with its namespace's name where that is not 0, and '' for a link
    to another wiki only. An interlanguage-link template has a target and says besides which foreign article it means.
    """

    start_char: int
    end_char: int
    target: str
    fragment: str | None = None
    kind: str = LINK
    block: str = PROSE
    foreign_wiki: str | None = None
    foreign_title: str | None = None
    foreign_qid: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """What wikitext comes to: plain text, anchors sorted and apart, flags of the page, what was dropped by reason."""

    text: str
    anchors: Sequence[Anchor]
    flags: Sequence[str] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    tallies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What is counted by a name that pages choose: kind (`templates`, `end matter`) → name → number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A Wikidata item's links: (wiki, title) of all Wikipedias, sorted, and (language, label) of those asked for.

    `claims` are (property, item) of the properties asked for, of best rank alone; `aliases` are (language, alias).
    """

    qid: str
    sitelinks: Sequence[tuple[str, str]]
    labels: Sequence[tuple[str, str]]
    claims: Sequence[tuple[str, str]] = ()
    aliases: Sequence[tuple[str, str]] = ()
