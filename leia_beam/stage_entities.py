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
the lowest id; the others are counted. A redirect to a section gets no name: the article would often be a broader one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
import pyarrow as pa

from leia_beam.entity_names import (
    LOOP,
    MISSING,
    NO_ITEM,
    OTHER_NAMESPACE,
    OTHER_WIKI,
    SECTION,
    UNRESOLVED,
    Name,
    choose_name,
)
from leia_beam.lookup import LOOKUP_SCHEMA, bucket_of, build_trie, open_trie, read_columns, write_columns
from leia_beam.manifest import Manifest, read_manifest
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.schema import ENTITIES
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import read_rows
from leia_beam.titles import normalise_title, parse_target, title_fault
from leia_beam.units import Unit, UnitOutput
from leia_beam.wikis import Wiki, fold_namespace, load_wiki

VERSIONS = ("leia-lm", "pyarrow", "marisa-trie", "unicodedata")
MAX_BUCKETS = 256
TITLES_PER_BUCKET = 1 << 16

PAGE, REDIRECT, SITELINK, FILTERED = range(4)
TitleRow = tuple[Any, ...]
"""(title, kind, sort key, …): see `_page_rows`, `_redirect_rows`, `_sitelink_rows`."""

_TITLES = pa.schema(
    [
        ("title", pa.string()),
        ("page_id", pa.int64()),
        ("qid", pa.string()),
        ("name", pa.string()),
        ("name_language", pa.string()),
        ("name_source", pa.string()),
        ("refusal", pa.string()),
        ("redirect_to", pa.string()),
        ("redirect_fragment", pa.string()),
        ("redirect_interwiki", pa.string()),
    ]
)

ENDS = UNRESOLVED
"""Where a chain of redirects can end without a page; number n + i in the array of n titles."""


def default_bucket_count(titles: int) -> int:
    """A power of two with about 65,536 titles a bucket, at most 256; a function of the input, never of the workers."""
    count = 1
    while count < MAX_BUCKETS and count * TITLES_PER_BUCKET < titles:
        count *= 2
    return count


@dataclass(frozen=True, kw_only=True, slots=True)
class TitleSource:
    """One file of an earlier stage that has rows about titles."""

    table: str
    path: str


@dataclass(frozen=True, kw_only=True)
class TitlesStage:
    """Step 1. Its units are buckets; they get their rows from the shuffle (`process_rows`)."""

    build_folder: str
    articles_folder: str
    sitelinks_folder: str
    wiki_code: str
    siteinfo: SiteInfo | None
    name_wikis: tuple[str, ...]
    bucket_count: int
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def folder(self) -> str:
        return f"{self.build_folder}/_titles"

    @property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="titles",
            identity=identity_of(
                "titles",
                [upstream(self.articles_folder, "articles"), upstream(self.sitelinks_folder, "sitelinks")],
                {"wiki": self.wiki_code, "name_wikis": list(self.name_wikis), "buckets": self.bucket_count},
                VERSIONS,
            ),
            unit_count=self.bucket_count,
        )

    def units(self) -> list[Unit]:
        return _bucket_units(self.bucket_count)

    def sources(self) -> list[TitleSource]:
        """The files that have rows about titles."""
        articles, sitelinks = read_manifest(self.articles_folder), read_manifest(self.sitelinks_folder)
        return [
            TitleSource(table=table, path=f"{folder}/{file.path}")
            for manifest, folder, table in (
                (articles, self.articles_folder, "articles"),
                (articles, self.articles_folder, "redirects"),
                (sitelinks, self.sitelinks_folder, "sitelinks"),
            )
            for file in manifest.files_of(table)
        ]

    def read_titles(self, source: TitleSource) -> Iterator[tuple[int, TitleRow]]:
        """(bucket, row) for each row about a title in a file."""
        if source.table == "articles":
            rows = _page_rows(source.path)
        elif source.table == "redirects":
            rows = _redirect_rows(source.path)
        else:
            wiki = wiki_with(self.wiki_code, self.siteinfo)
            rows = _sitelink_rows(source.path, wiki, [load_wiki(code) for code in self.name_wikis])
        for row in rows:
            yield bucket_of(row[0], self.bucket_count), row

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """A bucket by itself: its rows are read from all files (what a shuffle would have brought)."""
        rows = (row for source in self.sources() for bucket, row in self.read_titles(source) if bucket == unit.number)
        self.process_rows(rows, output)

    def process_rows(self, rows: Iterable[TitleRow], output: UnitOutput) -> None:
        """Sort a bucket's rows, make one of those of each title, write trie and rows."""
        known = []
        for row in sorted(rows, key=_sort_key):
            output.count("rows/read")
            if row[1] == FILTERED:
                output.count(f"rows/filtered/{row[2]}")
            else:
                known.append(row)
        merged = {title: _merge(title, list(group), output) for title, group in groupby(known, key=lambda row: row[0])}
        trie = build_trie(list(merged))
        columns = _columns_by_number(trie, merged)
        trie.save(output.file("titles-trie", "lookup", "marisa", len(merged)))
        write_columns(output.file("titles-rows", "lookup", "arrow", len(merged)), columns, _TITLES)


@dataclass(frozen=True, kw_only=True)
class RedirectsStage:
    """Step 2: one unit, which writes for each title the number of the title that it leads to (or of an end)."""

    build_folder: str
    wiki_code: str
    siteinfo: SiteInfo | None
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def folder(self) -> str:
        return f"{self.build_folder}/_redirects"

    @property
    def titles_folder(self) -> str:
        """Where step 1 stands."""
        return f"{self.build_folder}/_titles"

    @property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="redirects",
            identity=identity_of("redirects", [upstream(self.titles_folder, "titles")], {}, (*VERSIONS, "numpy")),
            unit_count=1,
        )

    def units(self) -> list[Unit]:
        return _bucket_units(1)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Turn redirects into numbers, follow them all, write the array."""
        parts = TitleParts(self.titles_folder)
        wiki = wiki_with(self.wiki_code, self.siteinfo)
        following = np.arange(parts.size + len(ENDS), dtype=np.int32)
        for bucket, offset in enumerate(parts.offsets[:-1]):
            for number, (target, fragment, interwiki) in parts.redirects(bucket):
                output.count("redirects/read")
                following[offset + number] = _next_number(offset + number, target, fragment, interwiki, parts, wiki)
        final = follow_chains(following, parts.size + ENDS.index(LOOP))
        redirects = np.flatnonzero(following[: parts.size] != np.arange(parts.size, dtype=np.int32))
        ended = final[redirects]
        output.count("redirects/emitted/resolved", int((ended < parts.size).sum()))
        for end, reason in enumerate(ENDS):
            count = int((ended == parts.size + end).sum())
            if count:
                output.count(f"redirects/emitted/{reason}", count)
        np.save(output.file("redirect-ends", "lookup", "npy", parts.size), final[: parts.size])


@dataclass(frozen=True, kw_only=True)
class EntitiesStage:
    """Step 3: the entity table and the lookup, a bucket a unit."""

    folder: str
    wiki_code: str
    name_wikis: tuple[str, ...]
    bucket_count: int
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="entities",
            identity=identity_of(
                "entities",
                [upstream(f"{self.folder}/_titles", "titles"), upstream(f"{self.folder}/_redirects", "redirects")],
                {"wiki": self.wiki_code, "name_wikis": list(self.name_wikis), "buckets": self.bucket_count},
                VERSIONS,
            ),
            unit_count=self.bucket_count,
        )

    def units(self) -> list[Unit]:
        return _bucket_units(self.bucket_count)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Each title of the bucket: its own item, else where its redirect leads, else the reason why there is none."""
        parts = TitleParts(f"{self.folder}/_titles")
        redirects = read_manifest(f"{self.folder}/_redirects").files_of("redirect-ends")[0]
        ends = np.load(f"{self.folder}/_redirects/{redirects.path}", mmap_mode="r")
        offset = parts.offsets[unit.number]
        own_rows = parts.rows_of(unit.number)
        own_ends = ends[offset : offset + len(own_rows)]
        reached = parts.rows_at(own_ends[own_ends < parts.size])
        rows = [_entity(own, int(end), parts.size, reached) for own, end in zip(own_rows, own_ends, strict=True)]
        table = output.table("entities", ENTITIES)
        for row in sorted(rows, key=lambda row: row["title"].encode()):
            output.count("titles/read")
            output.count("titles/emitted/named" if row["name"] is not None else f"titles/emitted/{row['reason']}")
            table.write(row, 200)
        columns = {name: [row[name] for row in rows] for name in LOOKUP_SCHEMA.names}
        shutil.copyfile(parts.trie_path(unit.number), output.file("lookup-titles", "lookup", "marisa", len(rows)))
        write_columns(output.file("lookup-rows", "lookup", "arrow", len(rows)), columns, LOOKUP_SCHEMA)


class TitleParts:
    """The buckets of step 1, mapped. A title's number in the whole is its bucket's offset plus its number in the trie."""

    def __init__(self, folder: str):
        manifest: Manifest = read_manifest(folder)
        self._trie_paths = [os.path.join(folder, file.path) for file in manifest.files_of("titles-trie")]
        self._tries: list[marisa_trie.Trie] = [open_trie(path) for path in self._trie_paths]
        self._rows = [read_columns(str(Path(folder) / file.path)) for file in manifest.files_of("titles-rows")]
        counts = [rows.num_rows for rows in self._rows]
        self.offsets: list[int] = [0, *np.cumsum(counts).tolist()]

    @property
    def size(self) -> int:
        """The number of titles."""
        return self.offsets[-1]

    def trie_path(self, bucket: int) -> str:
        """The file of a bucket's trie."""
        return self._trie_paths[bucket]

    def number_of(self, title: str) -> int | None:
        """A title's number in the whole, or None if nothing has this title."""
        bucket = bucket_of(title, len(self._tries))
        number = self._tries[bucket].get(title)
        return None if number is None else self.offsets[bucket] + number

    def rows_of(self, bucket: int) -> list[dict[str, Any]]:
        """The rows of a bucket, by number."""
        rows: list[dict[str, Any]] = self._rows[bucket].to_pylist()
        return rows

    def rows_at(self, numbers: np.ndarray) -> dict[int, dict[str, Any]]:
        """The rows of titles by their numbers in the whole."""
        distinct = np.unique(numbers)
        buckets = np.searchsorted(self.offsets, distinct, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for bucket in np.unique(buckets).tolist():
            wanted = distinct[buckets == bucket]
            rows = self._rows[bucket].take(pa.array(wanted - self.offsets[bucket])).to_pylist()
            found.update(zip(wanted.tolist(), rows, strict=True))
        return found

    def redirects(self, bucket: int) -> Iterator[tuple[int, tuple[str, str | None, str | None]]]:
        """(number in the bucket, (target, fragment, interwiki)) of each redirect that has no item of its own."""
        rows = self._rows[bucket]
        columns = [rows.column(name).to_pylist() for name in ("redirect_to", "redirect_fragment", "redirect_interwiki")]
        own_items = rows.column("qid").to_pylist()
        for number, (target, fragment, interwiki) in enumerate(zip(*columns, strict=True)):
            if target is not None and own_items[number] is None:
                yield number, (target, fragment, interwiki)


def follow_chains(following: np.ndarray, loop_end: int) -> np.ndarray:
    """Where each chain ends, by pointer doubling; chains that never end lead to `loop_end`.

    `following` (n,) int32 maps each number to the next; a number that maps to itself is an end.

    >>> follow_chains(np.array([1, 2, 2, 4, 3, 3, 6], np.int32), 6).tolist()
    [2, 2, 2, 6, 6, 6, 6]
    """
    final = following
    for _ in range(max(1, len(following).bit_length())):
        doubled = final[final]
        if np.array_equal(doubled, final):
            break
        final = doubled
    is_end = following[final] == final
    return np.where(is_end, final, np.int32(loop_end)).astype(np.int32)


def _bucket_units(count: int) -> list[Unit]:
    return [Unit(number=number, count=count, name=f"bucket {number}") for number in range(count)]


def _sort_key(row: TitleRow) -> tuple[Any, ...]:
    """Title bytes, kind, page id or item number (or why it is filtered), then all the rest: no two ways to sort."""
    rest = tuple((value is not None, value) for value in row[3:])
    return row[0].encode("utf-8", "surrogatepass"), row[1], row[2], *rest


def _page_rows(path: str) -> Iterator[TitleRow]:
    for row in read_rows(path, ["title", "page_id"]):
        yield row["title"], PAGE, row["page_id"]


def _redirect_rows(path: str) -> Iterator[TitleRow]:
    for row in read_rows(path, ["page_id", "from", "to", "fragment", "to_interwiki"]):
        yield row["from"], REDIRECT, row["page_id"], row["to"], row["fragment"], row["to_interwiki"]


def _sitelink_rows(path: str, wiki: Wiki, name_wikis: Sequence[Wiki]) -> Iterator[TitleRow]:
    for row in read_rows(path):
        sitelinks = [(link["wiki"], link["title"]) for link in row["sitelinks"]]
        for site, title in sitelinks:
            if site != wiki.code:
                continue
            prefix, colon, _ = title.partition(":")
            if colon and fold_namespace(prefix) in wiki.namespace_numbers:
                yield title, FILTERED, "sitelink to another namespace"
                continue
            normalised = normalise_title(title, wiki)
            if normalised is None:
                yield title, FILTERED, f"sitelink to an illegal title: {title_fault(title)}"
                continue
            labels = [(label["language"], label["label"]) for label in row["labels"]]
            name = choose_name(sitelinks, labels, name_wikis)
            yield normalised, SITELINK, int(row["qid"][1:]), name.name, name.language, name.source, name.reason


def _merge(title: str, rows: Sequence[TitleRow], output: UnitOutput) -> dict[str, Any]:
    """One row from all rows of a title, which are sorted: the first of each kind counts, others are duplicates."""
    merged: dict[str, Any] = dict.fromkeys(_TITLES.names)
    merged["title"] = title
    seen: set[int] = set()
    for row in rows:
        kind = row[1]
        if kind in seen or (kind == REDIRECT and PAGE in seen):
            output.count("rows/filtered/" + ("duplicate item" if kind == SITELINK else "duplicate title"))
            continue
        seen.add(kind)
        output.count("rows/emitted/" + ("page", "redirect", "sitelink")[kind])
        if kind == PAGE:
            merged["page_id"] = row[2]
        elif kind == REDIRECT:
            merged["page_id"] = row[2]
            merged["redirect_to"], merged["redirect_fragment"], merged["redirect_interwiki"] = row[3:6]
        else:
            name = Name(name=row[3], language=row[4], source=row[5], reason=row[6])
            merged.update(
                qid=f"Q{row[2]}",
                name=name.name,
                name_language=name.language,
                name_source=name.source,
                refusal=name.reason,
            )
    return merged


def _columns_by_number(trie: marisa_trie.Trie, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    ordered = sorted(rows.values(), key=lambda row: trie[row["title"]])
    return {name: [row[name] for row in ordered] for name in _TITLES.names}


def _next_number(
    own: int, target: str, fragment: str | None, interwiki: str | None, parts: TitleParts, wiki: Wiki
) -> int:
    """Where the redirect with number `own` leads: the number of a title, or of an end. One to itself is a loop."""
    end = None
    if interwiki is not None:
        end = OTHER_WIKI
    elif _namespace(target, wiki) != 0:
        end = OTHER_NAMESPACE
    elif fragment:
        end = SECTION
    number = parts.number_of(target) if end is None else None
    if number == own:
        number, end = None, LOOP
    return parts.size + ENDS.index(end or MISSING) if number is None else number


def _namespace(title: str, wiki: Wiki) -> int:
    parsed = parse_target(title, wiki) if ":" in title else None
    return parsed.namespace if parsed is not None else 0


def _entity(
    own: Mapping[str, Any], end: int, title_count: int, reached: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """The row of the entity table for one title, whose chain of redirects ends at number `end`."""
    row: dict[str, Any] = {"title": own["title"], "page_id": own["page_id"], "resolved_title": None}
    if end >= title_count:
        row.update(qid=None, name=None, name_language=None, name_source=None, reason=ENDS[end - title_count])
        return row
    target = reached[end]
    row["resolved_title"] = target["title"]
    row.update({column: target[column] for column in ("qid", "name", "name_language", "name_source")})
    row["reason"] = NO_ITEM if target["qid"] is None else target["refusal"]
    return row
