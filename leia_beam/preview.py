"""From a build's shards to single articles as people see them: text, the names beside their links, links without one.

Where the stages before lie beside the shards, text and links are the stage `articles`' own, and a link without a name
has its reason; what --max-length cut off is not shown. Shards that were copied away are decoded with the tokenizer that came
with them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from leia_beam.alignment import BEYOND_MAXIMUM, SPLIT, cuts_of
from leia_beam.article_filters import REASONS
from leia_beam.article_rows import Article, read_articles
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.linking import LinkedAnchor, Linker, LinkRules
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import MANIFEST_NAME, Manifest, StageFile, read_manifest
from leia_beam.mentions import later_mentions
from leia_beam.records import Anchor
from leia_beam.siteinfo import siteinfo_from_json, wiki_with
from leia_beam.tokenization import EncodingOptions, TextEncoder
from leia_beam.tokenizer_identity import find_tokenizer

NOT_ALIGNED = "not aligned to tokens"
MAX_SUGGESTIONS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of an article's text: plain, or a link with its name or with the reason why it has none."""

    text: str
    is_link: bool = False
    target: str | None = None
    name: str | None = None
    name_language: str | None = None
    qid: str | None = None
    edge: str | None = None
    """How the link's edges fall on tokens, where it has a name."""
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownArticle:
    """An article of the shards. `tokens` are (id, piece), where they were asked for."""

    wiki: str
    page_id: int
    title: str
    qid: str | None
    flags: Sequence[str]
    token_count: int
    segments: Sequence[Segment]
    tokens: Sequence[tuple[int, str]] | None = None
    characters_cut: int = 0
    """How much of the article's text the shards do not hold, for its length; 0 too where that is not known."""

    @property
    def names(self) -> int:
        """Links that have a name."""
        return sum(segment.name is not None for segment in self.segments)

    @property
    def unnamed(self) -> list[Segment]:
        """Links that have none."""
        return [segment for segment in self.segments if segment.is_link and segment.name is None]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which articles: by title, or so many at random, or with the most or fewest names for their length."""

    titles: Sequence[str] = ()
    random: int = 0
    seed: int = 0
    most_covered: int = 0
    least_covered: int = 0


class Preview:
    """Shows articles of a build's folder, or of a folder of shards alone."""

    def __init__(self, folder: str | Path):
        root = Path(folder)
        self._shards = root if (root / MANIFEST_NAME).is_file() else root / "shards"
        self.manifest: Manifest = read_manifest(self._shards)
        if self.manifest.stage != "shards":
            raise UsageError(f"{folder}: holds the stage {self.manifest.stage}, not shards; give a build's folder")
        self._files = self.manifest.files_of("train")
        self._links = _Links(root, self._shards, self.manifest) if _is_made_from(root, self.manifest) else None
        path = self._shards / self.manifest.details["tokenizer"]["path"]
        if not path.is_file():
            raise DamagedInput(f"{path}: missing, but the manifest lists it; copy the shards' whole folder")
        self._tokenizer = Tokenizer.from_file(str(path))

    def articles(self, choice: Choice, with_tokens: bool = False) -> Iterator[ShownArticle]:
        """The articles that are asked for, in that order.

        Raises: UsageError for a title that no shard has.
        """
        for file, row in self._places(choice):
            yield self._show(file, row, with_tokens)

    def _places(self, choice: Choice) -> list[tuple[StageFile, int]]:
        """(file, row) of the articles."""
        if choice.titles:
            return [self._place_of(title) for title in choice.titles]
        if choice.most_covered or choice.least_covered:
            return self._by_coverage(choice)
        total = sum(file.rows for file in self._files)
        wanted = min(choice.random, total)
        return [self._place_at(number) for number in random.Random(choice.seed).sample(range(total), wanted)]

    def _place_at(self, number: int) -> tuple[StageFile, int]:
        for file in self._files:
            if number < file.rows:
                return file, number
            number -= file.rows
        raise IndexError(number)

    def _place_of(self, title: str) -> tuple[StageFile, int]:
        wanted = title.replace("_", " ").strip()
        similar: list[str] = []
        for file in self._files:
            titles = pq.read_table(self._shards / file.path, columns=["title"]).column(0)
            found = pc.index(titles, wanted).as_py()
            if found >= 0:
                return file, found
            if len(similar) < MAX_SUGGESTIONS:
                mask = pc.match_substring(titles, wanted, ignore_case=True)
                similar += titles.filter(mask).to_pylist()[: MAX_SUGGESTIONS - len(similar)]
        hint = f"; there is {', '.join(similar)}" if similar else ""
        why = self._links.why_left_out(wanted) if self._links is not None else None
        if why is not None:
            raise UsageError(f"--title {title}: this article is in no shard: {why}")
        raise UsageError(f"--title {title}: no article of the shards has this title{hint}")

    def _by_coverage(self, choice: Choice) -> list[tuple[StageFile, int]]:
        """The articles with the most names a token first, then those with the fewest."""
        shares = []
        for file in self._files:
            table = pq.read_table(self._shards / file.path, columns=["input_ids", "entity_ordinals"])
            tokens, names = (pc.list_value_length(column).to_numpy() for column in table.columns)
            shares.append(names / np.maximum(tokens, 1))
        order = np.argsort(-np.concatenate(shares), kind="stable").tolist()
        least = order[::-1][: choice.least_covered]
        return [self._place_at(number) for number in (*order[: choice.most_covered], *least)]

    def _show(self, file: StageFile, number: int, with_tokens: bool) -> ShownArticle:
        row = _row(self._shards / file.path, number)
        cut = 0
        if self._links is not None:
            segments, cut = self._links.segments(file.unit, row)
        else:
            segments = self._decoded(row)
        pieces = None
        if with_tokens:
            pieces = [(token_id, self._piece(token_id)) for token_id in row["input_ids"]]
        return ShownArticle(
            wiki=row["wiki"],
            page_id=row["page_id"],
            title=row["title"],
            qid=row["qid"],
            flags=row["flags"],
            token_count=len(row["input_ids"]),
            segments=segments,
            tokens=pieces,
            characters_cut=cut,
        )

    def _piece(self, token_id: int) -> str:
        """A token's text, or how the vocabulary writes it where it is but a part of a character."""
        text = self._tokenizer.decode([token_id], False)
        return self._tokenizer.id_to_token(token_id) or "" if not text or "\ufffd" in text else text

    def _decoded(self, row: Mapping[str, Any]) -> list[Segment]:
        """The text and the names as the tokens have them."""
        ids, segments, tokenizer = row["input_ids"], [], self.manifest.details["tokenizer"]
        ids = ids[len(tokenizer["document_start_ids"]) : len(ids) - len(tokenizer["document_end_ids"])]
        shift, at = len(tokenizer["document_start_ids"]), 0
        spans = zip(
            row["entity_start_positions"],
            row["entity_end_positions"],
            row["alternative_entity_input_ids"],
            row["entity_qids"],
            row["entity_edges"],
            row["entity_name_languages"],
            strict=True,
        )
        for first, behind, name, qid, edge, language in spans:
            start, end = first - shift, behind - shift
            segments.append(Segment(text=self._decode(ids[at:start], at)))
            shown, text = self._decode(ids[start:end], start), self._tokenizer.decode(name).strip()
            segments.append(Segment(text=shown, is_link=True, name=text, name_language=language, qid=qid, edge=edge))
            at = end
        segments.append(Segment(text=self._decode(ids[at:], at)))
        return [segment for segment in segments if segment.text]

    def _decode(self, ids: Sequence[int], at: int) -> str:
        """The text of some ids as they stand within a text: decoders take the space off what they think is its start."""
        if not ids or not at:
            return self._tokenizer.decode(ids, False)
        letter = self._tokenizer.encode("a", add_special_tokens=False).ids
        return self._tokenizer.decode([*letter, *ids], False)[len(self._tokenizer.decode(letter, False)) :]


def _is_made_from(root: Path, shards: Manifest) -> bool:
    """Whether the stages beside the shards are those that they were made from."""
    for entry in shards.inputs:
        path = root / str(entry["name"]) / MANIFEST_NAME
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["manifest_sha256"]:
            return False
    return True


class _Links:
    """The links of a build's articles, with their names or reasons."""

    def __init__(self, root: Path, shards_folder: Path, shards: Manifest):
        self._root, self._options = root, shards.options
        articles, entities = read_manifest(root / "articles"), read_manifest(root / "entities")
        self._files = articles.files_of("articles")
        rules = LinkRules.from_options(shards.options["links"])
        wiki = wiki_with(entities.options["wiki"], siteinfo_from_json(articles.options["siteinfo"]))
        self._lookup = EntityLookup(str(root / "entities"))
        self._linker = Linker(self._lookup, wiki, entities.options["name_wikis"], rules)
        self._encoder = None
        if self._options["rows"]["max_length"] is not None:
            encoding = EncodingOptions(**self._options["encoding"])
            self._encoder = TextEncoder(find_tokenizer(str(shards_folder / "tokenizer")), encoding)

    def segments(self, unit: int, row: Mapping[str, Any]) -> tuple[list[Segment], int]:
        """The article's text as far as the shards hold it, cut at its links; and the number of characters beyond."""
        article = self._article(unit, row["page_id"])
        edges = dict(zip(row["entity_ordinals"], row["entity_edges"], strict=True))
        links = self._all_links(article)
        end = self._end_of(article, links, row)
        text, segments, at = article.text[:end], [], 0
        for ordinal, anchor, link in links:
            if anchor.start_char >= end:
                break
            edge = edges.get(ordinal)
            shown = text[anchor.start_char : anchor.end_char]
            reason = BEYOND_MAXIMUM if anchor.end_char > end else NOT_ALIGNED
            segments.append(Segment(text=text[at : anchor.start_char]))
            segments.append(
                Segment(
                    text=shown,
                    is_link=True,
                    target=anchor.target or anchor.foreign_title,
                    name=link.name if edge is not None else None,
                    name_language=link.name_language if edge is not None else None,
                    qid=link.qid,
                    edge=edge,
                    reason=None if edge is not None else link.reason or reason,
                )
            )
            at = anchor.end_char
        segments.append(Segment(text=text[at:]))
        return [segment for segment in segments if segment.text], len(article.text) - end

    def _end_of(
        self, article: Article, links: Sequence[tuple[int, Anchor, LinkedAnchor]], row: Mapping[str, Any]
    ) -> int:
        """The character of the article at which its row ends: it is encoded again as the stage did."""
        if self._encoder is None:
            return len(article.text)
        spans = [(anchor.start_char, anchor.end_char) for _, anchor, link in links if link.name is not None]
        cuts = cuts_of(article.text, spans) if self._options["rows"]["alignment"] == SPLIT else ()
        offsets = self._encoder.encode(article.text, cuts).offsets
        kept = len(row["input_ids"]) - len(self._encoder.document_start_ids) - len(self._encoder.document_end_ids)
        if kept >= len(offsets):
            return len(article.text)
        return int(offsets[kept - 1][1]) if kept else 0

    def _all_links(self, article: Article) -> list[tuple[int, Anchor, LinkedAnchor]]:
        """(ordinal, anchor, what it comes to) of links and, where they were asked for, of later mentions."""
        text, anchors = article.text, article.anchors
        linked = [
            (number, anchor, self._linker.link(anchor, text[anchor.start_char : anchor.end_char]))
            for number, anchor in enumerate(anchors)
        ]
        if not self._options["rows"]["later_mentions"]:
            return linked
        named = {anchor.start_char: link for _, anchor, link in linked if link.name is not None}
        mentions = later_mentions(text, anchors, [anchor for _, anchor, link in linked if link.name is not None])
        linked += [(len(anchors) + number, mention, named[first]) for number, (mention, first) in enumerate(mentions)]
        return sorted(linked, key=lambda entry: entry[1].start_char)

    def _article(self, unit: int, page_id: int) -> Article:
        path = str(self._root / "articles" / self._files[unit].path)
        for article in read_articles(path):
            if article.page_id == page_id:
                return article
        raise DamagedInput(
            f"{path}: page id {page_id} of the shards is not in it; `leia-beam validate` says what is wrong"
        )

    def why_left_out(self, title: str) -> str | None:
        """Why an article of the dump is in no shard; None if the dump has no such article."""
        for file in self._files:
            path = self._root / "articles" / file.path
            found = pc.index(pq.read_table(path, columns=["title"]).column(0), title).as_py()
            if found < 0:
                continue
            if not pq.read_table(path, columns=["anchors"]).column(0)[found].as_py():
                return REASONS["no-link"]
            return "it was filtered; the funnel of `leia-beam stats` says what is"
        row = self._lookup.find(title)
        return "the title is a redirect or a page without text" if row is not None and row.qid is not None else None


def _row(path: Path, number: int) -> dict[str, Any]:
    """One row of a Parquet file; its row group is read."""
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if number < count:
                table: pa.Table = parquet.read_row_group(group)
                row: dict[str, Any] = table.slice(number, 1).to_pylist()[0]
                return row
            number -= count
    raise IndexError(number)
