"""The stage `redirects`, second step of `entities`: from titles to the number of the title that each leads to.

One small unit turns redirects into numbers through the finished tries and follows all chains in an int32 array by pointer
doubling; loops are found exactly (18 M titles: 1.6 s, 255 MB).

A title's own item comes first, also where it is a redirect (a redirect page may have an item of its own, which also ends a
chain that comes through it). A redirect to a section gets no name unless asked for: the article would often be a broader one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from leia_beam.duplicate_pages import write_duplicate_ids
from leia_beam.entity_names import LOOP, MISSING, OTHER_NAMESPACE, OTHER_WIKI, SECTION, UNRESOLVED
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.stage_folders import local_copy
from leia_beam.storage import LocalStorage, Storage
from leia_beam.title_buckets import VERSIONS, bucket_units
from leia_beam.title_parts import TITLE_TABLES, TitleParts, follow_chains
from leia_beam.titles import parse_target
from leia_beam.units import Unit, UnitOutput
from leia_beam.wikis import Wiki

ENDS = UNRESOLVED
"""Where a chain of redirects can end without a page; number n + i in the array of n titles."""
OWN_ITEM, TARGET_ITEM = "own", "target"
NO_SECTIONS, SECTIONS_AS_ARTICLES = "refuse", "article"


@dataclass(frozen=True, kw_only=True)
class RedirectsStage:
    """Step 2: one unit, which writes for each title the number of the title that it leads to (or of an end).

    `sections`: whether redirects to a section lead to its article; `items`: whether a redirect's own item, or its
    target's, comes first.
    """

    build_folder: str
    wiki_code: str
    siteinfo: SiteInfo | None
    sections: str = NO_SECTIONS
    items: str = OWN_ITEM
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def folder(self) -> str:
        return f"{self.build_folder}/_redirects"

    @property
    def titles_folder(self) -> str:
        """Where step 1 stands."""
        return f"{self.build_folder}/_titles"

    @cached_property
    def plan(self) -> StagePlan:
        options = {"sections": self.sections, "items": self.items}
        return StagePlan(
            stage="redirects",
            identity=identity_of(
                "redirects",
                [upstream(self.titles_folder, "titles", self.storage)],
                options,
                (*VERSIONS, "numpy"),
            ),
            unit_count=1,
        )

    def units(self) -> list[Unit]:
        return bucket_units(1)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Turn redirects into numbers, follow them all, write the array; find pages that share an id."""
        parts = TitleParts(local_copy(self.storage, self.titles_folder, TITLE_TABLES))
        wiki = wiki_with(self.wiki_code, self.siteinfo)
        following = np.arange(parts.size + len(ENDS), dtype=np.int32)
        for bucket, offset in enumerate(parts.offsets[:-1]):
            for number, target, fragment, interwiki in parts.redirects(bucket, self.items == OWN_ITEM):
                output.count("redirects/read")
                end = _end_of(target, None if self.sections != NO_SECTIONS else fragment, interwiki, wiki)
                following[offset + number] = _next_number(offset + number, target, end, parts)
            output.count_any("redirects with an item of their own", parts.redirects_with_item(bucket))
        final = follow_chains(following, parts.size + ENDS.index(LOOP))
        redirects = np.flatnonzero(following[: parts.size] != np.arange(parts.size, dtype=np.int32))
        ended = final[redirects]
        output.count("redirects/emitted/resolved", int((ended < parts.size).sum()))
        for number, reason in enumerate(ENDS):
            output.count_any(f"redirects/emitted/{reason}", int((ended == parts.size + number).sum()))
        np.save(output.file("redirect-ends", "lookup", "npy", parts.size), final[: parts.size])
        write_duplicate_ids(parts, output)


def _end_of(target: str, fragment: str | None, interwiki: str | None, wiki: Wiki) -> str | None:
    """Why a redirect leads to no page of the wiki; None where it may."""
    if interwiki is not None:
        return OTHER_WIKI
    if _namespace(target, wiki) != 0:
        return OTHER_NAMESPACE
    return SECTION if fragment else None


def _next_number(own: int, target: str, end: str | None, parts: TitleParts) -> int:
    """Where the redirect with number `own` leads: the number of a title, or of an end. One to itself is a loop."""
    number = parts.number_of(target) if end is None else None
    if number == own:
        number, end = None, LOOP
    return parts.size + ENDS.index(end or MISSING) if number is None else number


def _namespace(title: str, wiki: Wiki) -> int:
    parsed = parse_target(title, wiki) if ":" in title else None
    return parsed.namespace if parsed is not None else 0
