"""From articles with anchors to rows of tokens with the spans and names of their entities.

A few articles at a time: first their names are found, which say where a token boundary may be forced, then their texts
are encoded together, then anchors become token spans. What is dropped is counted by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from leia_beam.alignment import (
    ADDED_TOKEN_IN_NAME,
    ALIGNMENTS,
    BEYOND_MAXIMUM,
    EDGE,
    NAME_WITHOUT_TOKEN,
    SPLIT,
    TokenSpan,
    align_spans,
    cuts_of,
    tokens_within,
)
from leia_beam.article_filters import NO_TEXT, SHORT, ArticleFilters
from leia_beam.article_rows import Article
from leia_beam.errors import UsageError
from leia_beam.holdout import LeakFinder
from leia_beam.linking import LinkedAnchor, Linker, is_equal
from leia_beam.lookup import EntityLookup
from leia_beam.mentions import later_mentions
from leia_beam.records import LATER_MENTION, Anchor
from leia_beam.schema import SHARDS
from leia_beam.shard_statistics import ShardStatistics
from leia_beam.tokenization import EncodedText, TextEncoder
from leia_beam.units import UnitOutput

MIN_MAX_LENGTH = 16
BATCH_ARTICLES = 64
BATCH_CHARACTERS = 1 << 18
"""Texts that are encoded together: some tens of MB while they are."""

ENTITY_COLUMNS = tuple(name for name in SHARDS.names if name.startswith(("entity_", "alternative_entity_")))


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOptions:
    """What becomes a row, and how anchors meet tokens."""

    alignment: str = EDGE
    filters: ArticleFilters = field(default_factory=ArticleFilters)
    later_mentions: bool = False
    max_length: int | None = None
    """Most tokens of a row; what is beyond is cut off."""

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise UsageError(f"--align: {self.alignment!r} is none of {', '.join(ALIGNMENTS)}")
        if self.max_length is not None and self.max_length < max(MIN_MAX_LENGTH, self.filters.min_length):
            raise UsageError(
                f"--max-length {self.max_length}: give at least {max(MIN_MAX_LENGTH, self.filters.min_length)} tokens"
            )


class NamedLink(NamedTuple):
    """An anchor that has a name. `ordinal` is its number in the article; later mentions count on behind the links."""

    ordinal: int
    anchor: Anchor
    link: LinkedAnchor


class _Linked(NamedTuple):
    """An article that is kept so far: its own item, its links that have a name, and what became of the others."""

    article: Article
    qid: str | None
    links: Sequence[NamedLink]
    counts: Counter[str]
    held_out: Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """Turns the articles of one file into shard rows."""

    wiki_code: str
    encoder: TextEncoder
    lookup: EntityLookup
    linker: Linker
    leaks: LeakFinder
    options: RowOptions
    losing: Mapping[int, str]
    """Row of the file → why that article is left out."""
    repeated: Collection[int]
    """Rows of the file whose text stands in an article before."""
    output: UnitOutput
    statistics: ShardStatistics = field(default_factory=ShardStatistics)
    held_out: list[dict[str, str]] = field(default_factory=list)
    """Names of interlanguage templates that are held out, which no table of titles lists."""

    def rows(self, articles: Iterable[Article]) -> Iterator[dict[str, Any]]:
        """The rows of the articles that are kept, in their order."""
        kept = (linked for article in articles if (linked := self._link(article)) is not None)
        for batch in _batches(kept):
            encoded = self.encoder.encode_batch([each.article.text for each in batch], [self._cuts(e) for e in batch])
            for linked, text in zip(batch, encoded, strict=True):
                row = self._row(linked, text)
                if row is not None:
                    yield row

    def _link(self, article: Article) -> _Linked | None:
        """The article with its names, or None where it is filtered (and counted)."""
        self.output.count("articles/read")
        own = self.lookup.find(article.title)
        reason = self.losing.get(article.row) or self.options.filters.reason(
            article.flags, bool(article.anchors), own, article.row in self.repeated
        )
        if reason is not None:
            self.output.count(f"articles/filtered/{reason}")
            return None
        counts: Counter[str] = Counter({"anchors/read": len(article.anchors)})
        links, held_out = self._named_links(article, counts)
        return _Linked(article, own.qid if own is not None else None, links, counts, held_out)

    def _named_links(self, article: Article, counts: Counter[str]) -> tuple[list[NamedLink], list[dict[str, str]]]:
        """The anchors that have a name, later mentions among them, in the order of the text; and names held out."""
        text, links, held_out = article.text, [], []
        for number, anchor in enumerate(article.anchors):
            shown = text[anchor.start_char : anchor.end_char]
            link = self.linker.link(anchor, shown)
            if link.name is None:
                counts[f"anchors/filtered/{link.reason}"] += 1
                if link.held_out_name is not None:
                    held_out.append({"title": anchor.target, "name": link.held_out_name})
                continue
            if is_equal(link.name, shown):
                counts["names equal to the anchor"] += 1
            links.append(NamedLink(number, anchor, link))
        if self.options.later_mentions and links:
            links += self._mentions(article, links)
            counts["mentions/read"] = sum(link.anchor.kind == LATER_MENTION for link in links)
            links.sort(key=lambda link: link.anchor.start_char)
        return links, held_out

    @staticmethod
    def _mentions(article: Article, links: Sequence[NamedLink]) -> list[NamedLink]:
        link_of = {link.anchor.start_char: link.link for link in links}
        mentions = later_mentions(article.text, article.anchors, [link.anchor for link in links])
        behind = len(article.anchors)
        return [NamedLink(behind + n, mention, link_of[first]) for n, (mention, first) in enumerate(mentions)]

    def _cuts(self, linked: _Linked) -> Sequence[int]:
        return cuts_of(linked.article.text, _spans(linked.links)) if self.options.alignment == SPLIT else ()

    def _row(self, linked: _Linked, text: EncodedText) -> dict[str, Any] | None:
        """The row of an encoded article, or None where it is filtered or rejected."""
        article, output = linked.article, self.output
        start_ids, end_ids = self.encoder.document_start_ids, self.encoder.document_end_ids
        added = self.encoder.added_in(text.ids)
        if added:
            raw = json.dumps({"title": article.title, "ids": added}, ensure_ascii=False).encode()
            output.reject("articles", "added token from text", None, str(article.page_id), raw)
            return None
        around = len(start_ids) + len(end_ids)
        if len(text.ids) + around < self.options.filters.min_length:
            output.count(f"articles/filtered/{SHORT}")
            return None
        if not len(text.ids):
            output.count(f"articles/filtered/{NO_TEXT}")
            return None
        kept, characters = len(text.ids), len(article.text)
        if self.options.max_length is not None and kept + around > self.options.max_length:
            kept = tokens_within(text.offsets, self.options.max_length - around)
            characters = int(text.offsets[kept - 1][1]) if kept else 0
            output.count("articles cut at the maximal length")
        row = {
            "wiki": self.wiki_code,
            "page_id": article.page_id,
            "revision_id": article.revision_id,
            "title": article.title,
            "qid": linked.qid,
            "flags": article.flags,
            "input_ids": np.concatenate([start_ids, text.ids[:kept], end_ids], dtype=np.int32, casting="unsafe"),
            **self._entity_columns(linked, text, kept),
        }
        output.counters.update(linked.counts)
        self.held_out.extend(linked.held_out)
        output.count("articles/emitted")
        output.count("tokens/emitted", kept + around)
        output.count("characters/emitted", characters)
        self.statistics.articles += 1
        self.statistics.tokens += kept + around
        self.statistics.characters += characters
        self.statistics.lengths.append(kept + around)
        return row

    def _entity_columns(self, linked: _Linked, text: EncodedText, kept: int) -> dict[str, list[Any]]:
        """The columns about names; positions count what stands before the text."""
        entities: list[tuple[Any, ...]] = []
        counts = linked.counts
        aligned = align_spans(text.offsets, linked.article.text, _spans(linked.links), self.options.alignment)
        for link, span in zip(linked.links, aligned, strict=True):
            thing = "mentions" if link.anchor.kind == LATER_MENTION else "anchors"
            if isinstance(span, TokenSpan):
                span = self._fault(link, span, kept) or span
            if isinstance(span, TokenSpan):
                counts[f"{thing}/emitted"] += 1
                counts[f"edges/{span.edge}"] += 1
                entities.append(self._entity(link, span))
            else:
                counts[f"{thing}/filtered/{span}"] += 1
        if self.leaks:
            self._count_leaks(linked, counts)
        columns = zip(*entities, strict=True) if entities else [()] * len(ENTITY_COLUMNS)
        return dict(zip(ENTITY_COLUMNS, map(list, columns), strict=True))

    def _fault(self, link: NamedLink, span: TokenSpan, kept: int) -> str | None:
        """Why an aligned anchor is dropped all the same."""
        if span.end > kept:
            return BEYOND_MAXIMUM
        name = self.encoder.encode_name(link.link.name or "")
        if not name.ids:
            return NAME_WITHOUT_TOKEN
        return ADDED_TOKEN_IN_NAME if name.has_added_token else None

    def _entity(self, link: NamedLink, span: TokenSpan) -> tuple[Any, ...]:
        """The values of `ENTITY_COLUMNS`."""
        name = self.encoder.encode_name(link.link.name or "")
        self.statistics.names += 1
        self.statistics.names_cut_otherwise_alone += name.is_cut_otherwise_alone
        self.statistics.name_tokens += len(name.ids)
        shift = len(self.encoder.document_start_ids)
        return (
            span.start + shift,
            span.end + shift,
            name.ids,
            link.link.qid,
            link.ordinal,
            link.anchor.kind,
            link.anchor.block,
            span.edge,
            link.link.name_language,
            link.link.name_source,
        )

    def _count_leaks(self, linked: _Linked, counts: Counter[str]) -> None:
        """Held-out names that the trainer sees all the same: in longer names, and in the text itself."""
        for link in linked.links:
            counts["leaks/in longer names"] += sum(1 for _ in self.leaks.find(link.link.name or ""))
        counts["leaks/in texts"] += sum(1 for _ in self.leaks.find(linked.article.text))


def _spans(links: Sequence[NamedLink]) -> list[tuple[int, int]]:
    return [(link.anchor.start_char, link.anchor.end_char) for link in links]


def _batches(articles: Iterable[_Linked]) -> Iterator[list[_Linked]]:
    """Some articles at a time, as many as their texts allow."""
    batch: list[_Linked] = []
    characters = 0
    for linked in articles:
        if batch and (len(batch) == BATCH_ARTICLES or characters + len(linked.article.text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(linked)
        characters += len(linked.article.text)
    if batch:
        yield batch
