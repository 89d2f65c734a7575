"""What the passes over one page share: its options, what is set aside, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from leia_beam.markup.marks import FOREIGN, FOREIGN_END, PAYLOAD, PAYLOAD_END
from leia_beam.wikis import Wiki


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionOptions:
    """Which blocks of a page are kept. `end_matter`: the sections of references, notes, see also and the like.

    `as_rendered` is the page as its reader sees it: everything above is kept, external links without a label show their
    number, interlanguage templates show the note on the foreign article's language.
    """

    tables: bool = False
    captions: bool = False
    lists: bool = True
    headings: bool = True
    end_matter: bool = False
    as_rendered: bool = False

    def keeps(self, block: str) -> bool:
        """Whether a kind of block (the name of a field) is kept."""
        return self.as_rendered or bool(getattr(self, block))


class LinkTarget(NamedTuple):
    """Where a link leads, whatever page it stands on."""

    shown: str
    """What it shows without a label."""
    namespace: int
    is_hidden: bool
    """Categories, files and interlanguage links show nothing where they stand."""
    no_anchor: str
    """Why there is no anchor; '' where there is one."""
    title: str
    fragment: str | None
    foreign_wiki: str | None
    foreign_title: str | None


class ForeignArticle(NamedTuple):
    """The article of another wiki that an interlanguage template names."""

    wiki: str | None
    title: str | None
    qid: str | None


class ShownLink(NamedTuple):
    """A link as it stands in the text. `label` may hold marks still; `no_anchor` says why it is no anchor."""

    label: str
    target: LinkTarget
    foreign: ForeignArticle | None
    no_anchor: str


@dataclass(slots=True)
class PageState:
    """One page under work. A payload is raw text that is shown as it stands, or a link."""

    title: str
    wiki: Wiki
    options: ExtractionOptions
    payloads: list[str | ShownLink] = field(default_factory=list)
    foreign: list[ForeignArticle] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)
    """What is counted by a name that pages choose: templates dropped, end matter by title."""
    flags: set[str] = field(default_factory=set)

    def set_aside(self, payload: str | ShownLink) -> str:
        """The mark that stands for a payload."""
        self.payloads.append(payload)
        return f"{PAYLOAD}{len(self.payloads) - 1}{PAYLOAD_END}"

    def note_foreign(self, article: ForeignArticle) -> str:
        """The mark that stands for a foreign article in a link's target."""
        self.foreign.append(article)
        return f"{FOREIGN}{len(self.foreign) - 1}{FOREIGN_END}"

    def tally(self, kind: str, name: str) -> None:
        """Count a name."""
        self.tallies.setdefault(kind, Counter())[name] += 1

    def counted(self) -> Mapping[str, int]:
        """The counters that counted anything."""
        return {name: number for name, number in self.counters.items() if number}
