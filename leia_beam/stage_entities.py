"""The stage `entities`: from article titles, redirects and sitelinks to what each title of the wiki is named.

Three steps, each a stage of its own with units and commit records, for Beam has no loops:

1. `titles`: all rows about a title come together in its bucket (a stable hash of the title, the only shuffle of the
   builder, of titles alone). A bucket's unit sorts its rows before it looks at them, so nothing depends on the order in
   which they came, and writes a trie of its titles and one row each.
2. `redirects`: one small unit turns redirects into numbers through the finished tries and follows all chains in an
   int32 array by pointer doubling; loops are found exactly (18 M titles: 1.6 s, 255 MB).
3. `entities`: each bucket's unit writes the final table and its part of the lookup.

Rules: a title's own item comes first, also where it is a redirect (a redirect page may have an item of its own, which
also ends a chain that comes through it). Of two items of one page the lowest number is taken, of two pages of one title
the lowest id; the others are counted, and the pages that lose are listed. A redirect to a section gets no name unless
asked for: the article would often be a broader one.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.entity_names import (
    DISAMBIGUATION,
    LOOP,
    MISSING,
    NO_ITEM,
    OTHER_NAMESPACE,
    OTHER_WIKI,
    SECTION,
    UNRESOLVED,
    NameRules,
)
from leia_beam.holdout import Holdout
from leia_beam.lookup import Status, build_trie, write_arrow, write_lookup_rows
from leia_beam.manifest import Manifest, read_manifest
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.schema import DUPLICATES, ENTITIES, HELD_OUT_NAMES
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.stage_folders import local_copy, stage_manifest
from leia_beam.storage import LocalStorage, Storage
from leia_beam.title_parts import TITLE_TABLES, TITLES, TitleParts, follow_chains, open_title_parts
from leia_beam.title_rows import (
    FILTERED,
    PAGE,
    REDIRECT,
    ROWS,
    SITELINK,
    TitleReader,
    TitleSource,
    place_parts,
    unpack_rows,
)
from leia_beam.titles import parse_target
from leia_beam.units import Unit, UnitOutput
from leia_beam.wikis import Wiki, load_wiki

VERSIONS = ("leia-lm", "pyarrow", "marisa-trie", "unicodedata")
MAX_BUCKETS = 256
TITLES_PER_BUCKET = 1 << 16
_BYTES_A_TITLE = 64

ENDS = UNRESOLVED
"""Where a chain of redirects can end without a page; number n + i in the array of n titles."""

OWN_ITEM, TARGET_ITEM = "own", "target"
NO_SECTIONS, SECTIONS_AS_ARTICLES = "refuse", "article"
NAME_MISSING, REFUSE_MISSING = "name", "refuse"


LINKS_FROM = "links_from"
"""Where the manifest of the titles says what the stage of the links was made from, which may lie in any folder."""


def links_origin(links: Manifest) -> dict[str, Any]:
    """The stage of the links between wikis, with its dumps as its manifest has them."""
    parts = ("verified_sums", "fetched")
    known = {part: links.details[part] for part in parts if part in links.details}
    return {"stage": links.stage, "inputs": [dict(entry) for entry in links.inputs], **known}


def default_bucket_count(titles: int) -> int:
    """A power of two with about 65,536 titles a bucket, at most 256; a function of the input, never of the workers."""
    count = 1
    while count < MAX_BUCKETS and count * TITLES_PER_BUCKET < titles:
        count *= 2
    return count


@dataclass(frozen=True, kw_only=True)
class TitlesStage:
    """Step 1. Its units are buckets; they get their rows from the shuffle (`process_rows`).

    `sitelinks_folder` is a finished stage `sitelinks` or `langlinks`.
    """

    build_folder: str
    articles_folder: str
    sitelinks_folder: str
    wiki_code: str
    siteinfo: SiteInfo | None
    name_wikis: tuple[str, ...]
    bucket_count: int
    rules: NameRules = field(default_factory=NameRules)
    holdout: Holdout = field(default_factory=Holdout)
    spool: str | None = None
    """A folder of this machine that chunks wait in, where all workers are on it; else the shuffle carries them."""
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def folder(self) -> str:
        return f"{self.build_folder}/_titles"

    @cached_property
    def plan(self) -> StagePlan:
        made = stage_manifest(self.storage, self.sitelinks_folder)
        links = made.stage
        return StagePlan(
            stage="titles",
            identity=identity_of(
                "titles",
                [
                    upstream(self.articles_folder, "articles", self.storage),
                    upstream(self.sitelinks_folder, links, self.storage),
                ],
                {
                    "wiki": self.wiki_code,
                    "name_wikis": list(self.name_wikis),
                    "buckets": self.bucket_count,
                    "names": asdict(self.rules),
                    "holdout": asdict(self.holdout),
                },
                VERSIONS,
            ),
            unit_count=self.bucket_count,
            details={LINKS_FROM: links_origin(made)},
        )

    def units(self) -> list[Unit]:
        return _bucket_units(self.bucket_count, self._row_count() * _BYTES_A_TITLE)

    def _row_count(self) -> int:
        """About how many rows there are: each page may have an item."""
        articles = stage_manifest(self.storage, self.articles_folder)
        return 2 * articles.rows_of("articles") + articles.rows_of("redirects")

    def sources(self) -> list[TitleSource]:
        """The files that have rows about titles."""
        articles, links = (
            stage_manifest(self.storage, folder) for folder in (self.articles_folder, self.sitelinks_folder)
        )
        langlinks = tuple(f"{self.sitelinks_folder}/{file.path}" for file in links.files_of("langlinks"))
        facts = {file.unit: f"{self.sitelinks_folder}/{file.path}" for file in links.files_of("facts")}
        pages = [
            TitleSource(table=table, path=f"{self.articles_folder}/{file.path}", unit=file.unit, langlinks=langlinks)
            for table in ("articles", "redirects")
            for file in articles.files_of(table)
        ]
        items = [
            TitleSource(
                table="sitelinks",
                path=f"{self.sitelinks_folder}/{file.path}",
                unit=file.unit,
                facts_path=facts.get(file.unit),
            )
            for file in links.files_of("sitelinks")
        ]
        return pages + items

    def read_titles(self, source: TitleSource, buckets: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """(bucket, packed rows) of what a file says about titles of some buckets."""
        reader = TitleReader(
            wiki=wiki_with(self.wiki_code, self.siteinfo),
            name_wikis=[load_wiki(code) for code in self.name_wikis],
            rules=self.rules,
            holdout=self.holdout,
            bucket_count=self.bucket_count,
            storage=self.storage,
        )
        return reader.read(source, buckets)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """A bucket by itself: its rows are read from all files (what a shuffle would have brought)."""
        own = {unit.number}
        self.process_rows((chunk for source in self.sources() for _, chunk in self.read_titles(source, own)), output)

    def process_rows(self, chunks: Iterable[bytes], output: UnitOutput) -> None:
        """Sort a bucket's rows, make one of those of each title, write trie and rows, and which pages lose."""
        rows = pa.Table.from_batches([unpack_rows(chunk) for chunk in chunks], schema=ROWS)
        output.count("rows/read", rows.num_rows)
        is_filtered = pc.equal(rows.column("kind"), FILTERED)
        for reason in pc.value_counts(rows.filter(is_filtered).column("reason").combine_chunks()).to_pylist():
            output.count(f"rows/filtered/{reason['values']}", reason["counts"])
        known = rows.filter(pc.invert(is_filtered))
        order = pc.sort_indices(known, sort_keys=[(name, "ascending") for name in ROWS.names])
        known = known.take(order).combine_chunks()
        merged = _merge(known, output)
        trie = build_trie(merged.column("title").to_pylist())
        numbers = np.array([trie[title] for title in merged.column("title").to_pylist()], np.int64)
        trie.save(output.file("titles-trie", "lookup", "marisa", merged.num_rows))
        path = output.file("titles-rows", "lookup", "arrow", merged.num_rows)
        write_arrow(path, merged.take(pa.array(np.argsort(numbers))))


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
        return _bucket_units(1)

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
            _count(output, "redirects with an item of their own", parts.redirects_with_item(bucket))
        final = follow_chains(following, parts.size + ENDS.index(LOOP))
        redirects = np.flatnonzero(following[: parts.size] != np.arange(parts.size, dtype=np.int32))
        ended = final[redirects]
        output.count("redirects/emitted/resolved", int((ended < parts.size).sum()))
        for number, reason in enumerate(ENDS):
            _count(output, f"redirects/emitted/{reason}", int((ended == parts.size + number).sum()))
        np.save(output.file("redirect-ends", "lookup", "npy", parts.size), final[: parts.size])
        _write_duplicate_ids(parts, output)


@dataclass(frozen=True, kw_only=True)
class EntitiesStage:
    """Step 3: the entity table and the lookup, a bucket a unit.

    `missing_pages`: whether a title that an item links to has its name though the dump has no such page.
    """

    folder: str
    wiki_code: str
    name_wikis: tuple[str, ...]
    bucket_count: int
    missing_pages: str = NAME_MISSING
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        titles, redirects = (
            stage_manifest(self.storage, f"{self.folder}/{step}").options for step in ("_titles", "_redirects")
        )
        return StagePlan(
            stage="entities",
            identity=identity_of(
                "entities",
                [
                    upstream(f"{self.folder}/_titles", "titles", self.storage),
                    upstream(f"{self.folder}/_redirects", "redirects", self.storage),
                ],
                {
                    "wiki": self.wiki_code,
                    "name_wikis": list(self.name_wikis),
                    "buckets": self.bucket_count,
                    "names": titles["names"],
                    "holdout": titles["holdout"],
                    "sections": redirects["sections"],
                    "missing_pages": self.missing_pages,
                },
                VERSIONS,
            ),
            unit_count=self.bucket_count,
        )

    def units(self) -> list[Unit]:
        titles = stage_manifest(self.storage, f"{self.folder}/_titles").rows_of("titles-rows")
        return _bucket_units(self.bucket_count, titles * _BYTES_A_TITLE)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Each title of the bucket: its own item, else where its redirect leads, else the reason why there is none."""
        titles_folder = f"{self.folder}/_titles"
        titles_sum = str(upstream(titles_folder, "titles", self.storage)["manifest_sha256"])
        parts = open_title_parts(local_copy(self.storage, titles_folder, TITLE_TABLES), titles_sum)
        redirects_folder = local_copy(self.storage, f"{self.folder}/_redirects", ["redirect-ends"])
        redirects = read_manifest(redirects_folder).files_of("redirect-ends")[0]
        ends = np.load(f"{redirects_folder}/{redirects.path}", mmap_mode="r")
        offset, own = parts.offsets[unit.number], parts.rows_of(unit.number)
        own_ends = np.array(ends[offset : offset + own.num_rows], np.int64)
        rows = _entities(own, own_ends, parts, self.missing_pages == REFUSE_MISSING)
        _count_titles(rows, output)
        table = output.table("entities", ENTITIES)
        order = pc.sort_indices(rows, sort_keys=[("title", "ascending")])
        table.write_table(rows.take(order).select(ENTITIES.names).cast(ENTITIES), 100)
        shutil.copyfile(parts.trie_path(unit.number), output.file("lookup-titles", "lookup", "marisa", own.num_rows))
        statuses, status_of_row = _statuses(rows)
        path = output.file("lookup-rows", "lookup", "arrow", own.num_rows)
        write_lookup_rows(path, rows.column("qid_number"), rows.column("name"), statuses, status_of_row)
        _write_held_out(own, output)


def _bucket_units(count: int, size_bytes: int = 0) -> list[Unit]:
    """`size_bytes` is about what all have to read, from which the number of processes is found."""
    size = size_bytes // count
    return [
        Unit(number=number, count=count, name=f"bucket {number}", size_bytes=size, end=size) for number in range(count)
    ]


# ---- step 1: from the rows of a bucket to one row a title


def _merge(known: pa.Table, output: UnitOutput) -> pa.Table:
    """One row a title from sorted rows: the first of each kind counts, others are duplicates; a page beats a redirect."""
    kinds, titles = known.column("kind").to_numpy(), known.column("title")
    is_new = np.ones(len(kinds), bool)
    if len(kinds):
        is_new[1:] = pc.not_equal(titles.slice(1), titles.slice(0, len(kinds) - 1)).to_numpy()
    is_first = is_new.copy()
    is_first[1:] |= kinds[1:] != kinds[:-1]
    group = np.cumsum(is_new) - 1
    count = int(is_new.sum())
    first_row = {}
    for kind in (PAGE, REDIRECT, SITELINK):
        rows = np.full(count, -1, np.int64)
        chosen = np.flatnonzero(is_first & (kinds == kind))
        rows[group[chosen]] = chosen
        first_row[kind] = rows
    first_row[REDIRECT][first_row[PAGE] >= 0] = -1
    for kind, name in ((PAGE, "page"), (REDIRECT, "redirect"), (SITELINK, "sitelink")):
        _count(output, f"rows/emitted/{name}", int((first_row[kind] >= 0).sum()))
    kept = np.zeros(len(kinds), bool)
    for rows in first_row.values():
        kept[rows[rows >= 0]] = True
    losing_pages = np.flatnonzero(~kept & (kinds != SITELINK))
    _count(output, "rows/filtered/duplicate item", int((~kept & (kinds == SITELINK)).sum()))
    _count(output, "rows/filtered/duplicate title", len(losing_pages))
    page_rows = np.where(first_row[PAGE] >= 0, first_row[PAGE], first_row[REDIRECT])
    if len(losing_pages):
        winners = known.column("number").to_numpy()[page_rows[group[losing_pages]]]
        _write_duplicates(known.take(pa.array(losing_pages)), winners, "duplicate title", output)
    return _columns_of_titles(known, np.flatnonzero(is_new), first_row, page_rows)


def _columns_of_titles(
    known: pa.Table, title_rows: np.ndarray, first_row: dict[int, np.ndarray], page_rows: np.ndarray
) -> pa.Table:
    def taken(column: str, rows: np.ndarray) -> pa.Array:
        """Values of a column, null where there is no such row."""
        return known.column(column).combine_chunks().take(pa.array(rows, mask=rows < 0))

    links, redirects = first_row[SITELINK], first_row[REDIRECT]
    name, refusal = taken("name", links), taken("reason", links)
    marked = pc.equal(taken("reason", first_row[PAGE]), DISAMBIGUATION)
    refused = pc.fill_null(pc.and_(pc.and_(marked, pc.invert(taken("typed", links))), pc.is_valid(name)), False)
    nothing = pa.nulls(len(title_rows), pa.string())
    columns = {
        "title": taken("title", title_rows),
        "page_id": taken("number", page_rows),
        "place": taken("place", page_rows),
        "qid": pc.fill_null(taken("number", links), 0),
        "name": pc.if_else(refused, nothing, name),
        "name_language": pc.if_else(refused, nothing, taken("name_language", links)),
        "name_source": pc.if_else(refused, nothing, taken("name_source", links)),
        "refusal": pc.if_else(refused, pa.scalar(DISAMBIGUATION), refusal),
        "held_out": taken("held_out", links),
        **{name: taken(name, redirects) for name in ("redirect_to", "redirect_fragment", "redirect_interwiki")},
        "has_item": pa.array(links >= 0),
    }
    return pa.Table.from_pydict(columns, schema=TITLES)


def _count(output: UnitOutput, name: str, number: int) -> None:
    if number:
        output.count(name, number)


def _write_duplicates(rows: pa.Table, winners: np.ndarray, reason: str, output: UnitOutput) -> None:
    table = output.table("duplicates", DUPLICATES)
    pages = zip(
        *(rows.column(name).to_pylist() for name in ("title", "number", "place")), winners.tolist(), strict=True
    )
    for title, page_id, place, kept in pages:
        of_table, unit, row = place_parts(place)
        values = (of_table, unit, row, page_id, title, kept, reason)
        table.write(dict(zip(DUPLICATES.names, values, strict=True)), 100)


# ---- step 2: where redirects lead


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


def _write_duplicate_ids(parts: TitleParts, output: UnitOutput) -> None:
    """Pages of different titles that share an id: the first in the dump keeps it, the others are listed."""
    ids, places = np.empty(parts.size, np.int64), np.empty(parts.size, np.int64)
    for bucket, (first, behind) in enumerate(itertools.pairwise(parts.offsets)):
        rows = parts.rows_of(bucket)
        ids[first:behind], places[first:behind] = (pc.fill_null(rows.column(of), -1) for of in ("page_id", "place"))
    order = np.lexsort((places, ids))
    again = np.flatnonzero((ids[order][1:] == ids[order][:-1]) & (ids[order][1:] >= 0)) + 1
    if not len(again):
        return
    output.count("duplicate ids", len(again))
    rows = parts.rows_at(order[again], ["title", "page_id", "place"]).rename_columns(["title", "number", "place"])
    _write_duplicates(rows, ids[order][again], "duplicate id", output)


# ---- step 3: the entity table


def _entities(own: pa.Table, ends: np.ndarray, parts: TitleParts, needs_page: bool) -> pa.Table:
    """The columns of the entity table, and `qid_number`, `name_source`, for the titles of one bucket by number.

    `ends` (n,) says for each title the number of the title at which its chain of redirects ends, or of an end;
    with `needs_page` a title without a page is a missing page.
    """
    reached = np.flatnonzero(ends < parts.size)
    columns = ["title", "page_id", "qid", "name", "name_language", "name_source", "refusal", "has_item"]
    rows = parts.rows_at(ends[reached], columns)
    if needs_page:
        has_page = pc.is_valid(rows.column("page_id")).to_numpy()
        ends = ends.copy()
        ends[reached[~has_page]] = parts.size + ENDS.index(MISSING)
        rows, reached = rows.filter(pa.array(has_page)), reached[has_page]
    where = np.full(len(ends), -1, np.int64)
    where[reached] = np.arange(len(reached))
    target = rows.take(pa.array(where, mask=where < 0))
    unresolved = pa.array([*ENDS, None], pa.string()).take(pa.array(np.where(where < 0, ends - parts.size, len(ENDS))))
    no_item = pc.if_else(pc.equal(target.column("has_item"), False), NO_ITEM, target.column("refusal"))
    number = pc.fill_null(target.column("qid"), 0)
    with_number = pc.binary_join_element_wise("Q", pc.cast(number, pa.string()), "")
    return pa.Table.from_pydict(
        {
            "title": own.column("title"),
            "page_id": own.column("page_id"),
            "resolved_title": target.column("title"),
            "qid": pc.if_else(pc.equal(number, 0), pa.scalar(None, pa.string()), with_number),
            "name": target.column("name"),
            "name_language": target.column("name_language"),
            "reason": pc.coalesce(unresolved, no_item.combine_chunks()),
            "qid_number": number,
            "name_source": target.column("name_source"),
        }
    )


def _count_titles(rows: pa.Table, output: UnitOutput) -> None:
    output.count("titles/read", rows.num_rows)
    for reason in pc.value_counts(rows.column("reason").combine_chunks()).to_pylist():
        output.count(f"titles/emitted/{reason['values'] or 'named'}", reason["counts"])
    lone = pc.and_(pc.is_null(rows.column("page_id")), pc.is_valid(rows.column("name")))
    _count(output, "titles without a page/named", pc.sum(lone).as_py() or 0)


def _statuses(rows: pa.Table) -> tuple[list[Status], np.ndarray]:
    """The distinct (language, source, reason) of some rows, sorted, and for each row the number of its own."""
    columns = [rows.column(name).to_pylist() for name in ("name_language", "name_source", "reason")]
    triples: list[Status] = list(zip(*columns, strict=True))
    statuses = sorted(set(triples), key=lambda status: tuple((part is not None, part or "") for part in status))
    number_of = {status: number for number, status in enumerate(statuses)}
    return statuses, np.fromiter((number_of[status] for status in triples), np.uint8, len(triples))


def _write_held_out(own: pa.Table, output: UnitOutput) -> None:
    held_out = own.filter(pc.is_valid(own.column("held_out")))
    if not held_out.num_rows:
        return
    table = output.table("held-out", HELD_OUT_NAMES)
    rows = zip(*(held_out.column(name).to_pylist() for name in ("title", "qid", "held_out")), strict=True)
    for title, number, content in sorted(rows):
        kept: dict[str, Any] = json.loads(content)
        row = {
            "title": title,
            "qid": f"Q{number}" if number else None,
            "name": kept["name"],
            "name_language": kept["language"],
            "name_source": kept["source"],
            "aliases": kept["aliases"],
        }
        table.write(row, 200)
