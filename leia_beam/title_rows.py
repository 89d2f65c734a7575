"""From the files of earlier stages to rows about titles, packed in chunks by bucket.

A row says one thing about a title: a page has it, a redirect has it, an item links to it. Files are read by columns, so
that of all items only those that link to the wiki become Python's objects; rows travel as compressed Arrow batches of
some hundreds, since Beam's in-memory shuffle takes 0.33 KB for an element (a row so packed: about 25 bytes).
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leia_beam.entity_names import DISAMBIGUATION, HELD_OUT, INSTANCE_OF, Name, NameRules, choose_name
from leia_beam.holdout import Holdout
from leia_beam.lookup import bucket_of
from leia_beam.storage import LocalStorage, Storage
from leia_beam.titles import normalise_title, title_fault
from leia_beam.wikis import Wiki, fold_namespace, label_language

PAGE, REDIRECT, SITELINK, FILTERED = range(4)
CHUNK_ROWS = 1 << 15
"""Rows that are held, over all buckets, before they are packed."""
_BATCH_ROWS = 1 << 13
_LANGLINKS_PAGES = 1 << 16


class TitleRow(NamedTuple):
    """One thing that is known about a title. `number` is a page's id or an item's number, 0 where there is neither.

    `place` tells a page's row among all articles and redirects (`place_of`). `reason` says why the row is filtered, why
    an item has no name, or that a page's mark-up makes it a disambiguation page. `held_out` is JSON.
    """

    title: str
    kind: int
    number: int = 0
    place: int = 0
    reason: str | None = None
    name: str | None = None
    name_language: str | None = None
    name_source: str | None = None
    typed: bool = False
    held_out: str | None = None
    redirect_to: str | None = None
    redirect_fragment: str | None = None
    redirect_interwiki: str | None = None


ROWS = pa.schema(
    [
        ("title", pa.string()),
        ("kind", pa.int8()),
        ("number", pa.int64()),
        ("place", pa.int64()),
        ("reason", pa.string()),
        ("name", pa.string()),
        ("name_language", pa.string()),
        ("name_source", pa.string()),
        ("typed", pa.bool_()),
        ("held_out", pa.string()),
        ("redirect_to", pa.string()),
        ("redirect_fragment", pa.string()),
        ("redirect_interwiki", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TitleSource:
    """One file of an earlier stage that has rows about titles; beside sitelinks the file of facts in the same order."""

    table: str
    path: str
    unit: int
    facts_path: str | None = None
    langlinks: tuple[str, ...] = ()
    """Beside articles and redirects: files of the stage `langlinks`."""


def place_of(table: str, unit: int, row: int) -> int:
    """Where a page stands among the rows of `articles` and `redirects`: in the dump's order."""
    return unit << 33 | (table == "redirects") << 32 | row


def place_parts(place: int) -> tuple[str, int, int]:
    """(table, unit, row) of a place.

    >>> place_parts(place_of("redirects", 7, 12))
    ('redirects', 7, 12)
    """
    return "redirects" if place >> 32 & 1 else "articles", place >> 33, place & 0xFFFFFFFF


def pack_rows(rows: Sequence[TitleRow]) -> bytes:
    """Rows as the bytes of a compressed Arrow batch."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [() for _ in ROWS]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, ROWS, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=ROWS)
    return zlib.compress(batch.serialize().to_pybytes(), 1)


def unpack_rows(chunk: bytes) -> pa.RecordBatch:
    """The inverse of `pack_rows`, as a batch of ROWS."""
    return pa.ipc.read_record_batch(pa.py_buffer(zlib.decompress(chunk)), ROWS)


def spooled(chunks: Iterable[tuple[int, bytes]], folder: str) -> Iterator[tuple[int, bytes]]:
    """(bucket, where the chunk lies) for (bucket, chunk): chunks go into a file of the folder.

    Beam's in-memory shuffle keeps three times the bytes that it carries (1.8 M rows in chunks of 43 MB: 140 MB).
    """
    handle, path = tempfile.mkstemp(prefix="titles-", dir=folder)
    with os.fdopen(handle, "wb") as file:
        held: list[tuple[int, bytes]] = []
        for bucket, chunk in chunks:
            held.append((bucket, json.dumps([path, file.tell(), len(chunk)]).encode()))
            file.write(chunk)
    yield from held


def unspooled(references: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks that `spooled` put away."""
    for reference in references:
        path, start, size = json.loads(reference)
        with open(path, "rb") as file:
            file.seek(start)
            yield file.read(size)


@dataclass(frozen=True, kw_only=True)
class TitleReader:
    """Reads rows about titles for some buckets."""

    wiki: Wiki
    name_wikis: Sequence[Wiki]
    rules: NameRules
    holdout: Holdout
    bucket_count: int
    storage: Storage = field(default_factory=LocalStorage)

    def read(self, source: TitleSource, buckets: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """(bucket, packed rows) of a file; the rows of other buckets are left out."""
        held: defaultdict[int, list[TitleRow]] = defaultdict(list)
        count = 0
        for bucket, row in self._rows(source, buckets):
            held[bucket].append(row)
            count += 1
            if count == CHUNK_ROWS:
                yield from ((bucket, pack_rows(rows)) for bucket, rows in held.items())
                held.clear()
                count = 0
        yield from ((bucket, pack_rows(rows)) for bucket, rows in held.items())

    def _rows(self, source: TitleSource, buckets: Collection[int]) -> Iterator[tuple[int, TitleRow]]:
        if source.table == "sitelinks":
            yield from self._sitelink_rows(source, buckets)
            return
        rows = self._page_rows(source) if source.table == "articles" else self._redirect_rows(source)
        if source.langlinks:
            rows = self._with_langlinks(rows, source.langlinks)
        yield from self._in_buckets(rows, buckets)

    def _with_langlinks(self, rows: Iterator[TitleRow], paths: Sequence[str]) -> Iterator[TitleRow]:
        """Rows of pages, and behind each what the wiki's own table says of its name.

        Every article has such a row, perhaps with the reason why it has no name; a redirect only where it has a link.
        """
        while batch := list(itertools.islice(rows, _LANGLINKS_PAGES)):
            titles_of = self._titles_of_pages(paths, [row.number for row in batch])
            for row in batch:
                yield row
                titles = titles_of.get(row.number)
                if row.kind == PAGE or titles:
                    name = choose_name(titles or (), (), self.name_wikis, self.rules)
                    yield self.named_row(row.title, 0, name, False, ())

    def _titles_of_pages(self, paths: Sequence[str], page_ids: Sequence[int]) -> Mapping[int, list[tuple[str, str]]]:
        """Page id → (wiki, title) in the name languages. Of the files only row groups with such ids are read."""
        codes = {wiki.code for wiki in self.name_wikis}
        prefixes = {prefix: code for prefix, code in self.wiki.wikipedia_prefixes.items() if code in codes}
        wanted = (
            (pc.field("page_id") >= min(page_ids))
            & (pc.field("page_id") <= max(page_ids))
            & pc.field("language").isin(sorted(prefixes))
        )
        found: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for path in paths:
            for link in pq.read_table(self.storage.table_file(path), filters=wanted).to_pylist():
                found[link["page_id"]].append((prefixes[link["language"]], link["title"]))
        return found

    def _in_buckets(self, rows: Iterable[TitleRow], buckets: Collection[int]) -> Iterator[tuple[int, TitleRow]]:
        for row in rows:
            bucket = bucket_of(row.title, self.bucket_count)
            if bucket in buckets:
                yield bucket, row

    def _sitelink_rows(self, source: TitleSource, buckets: Collection[int]) -> Iterator[tuple[int, TitleRow]]:
        facts = _Facts(None if source.facts_path is None else self.storage.table_file(source.facts_path))
        codes = [wiki.code for wiki in self.name_wikis]
        languages = [label_language(code) for code in codes]
        with pq.ParquetFile(self.storage.table_file(source.path), page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                qids = batch.column("qid").to_pylist()
                facts.take(batch.column("qid"))
                sitelinks, labels = batch.column("sitelinks"), batch.column("labels")
                own = list(_members(sitelinks, "wiki", "title", [self.wiki.code]))
                if not own:
                    continue
                linked = sorted({row for row, _, _ in own})
                facts_of = facts.of({qids[row] for row in linked})
                titles = _by_row(_members(sitelinks, "wiki", "title", codes))
                labels_of = _by_row(_members(labels, "language", "label", languages))
                for at, _, raw in own:
                    title, fault = self._title(raw)
                    bucket = bucket_of(title, self.bucket_count)
                    if bucket not in buckets:
                        continue
                    if fault is not None:
                        yield bucket, TitleRow(title, FILTERED, reason=fault)
                        continue
                    types, aliases = facts_of.get(qids[at], ((), ()))
                    name = choose_name(titles.get(at, ()), labels_of.get(at, ()), self.name_wikis, self.rules, types)
                    yield bucket, self.named_row(title, int(qids[at][1:]), name, bool(types), aliases)

    def _page_rows(self, source: TitleSource) -> Iterator[TitleRow]:
        for row, (title, page_id, flags) in enumerate(self._columns(source.path, ["title", "page_id", "flags"])):
            reason = DISAMBIGUATION if "disambiguation" in flags else None
            yield TitleRow(title, PAGE, page_id, place_of("articles", source.unit, row), reason)

    def _redirect_rows(self, source: TitleSource) -> Iterator[TitleRow]:
        rows = self._columns(source.path, ["from", "page_id", "to", "fragment", "to_interwiki"])
        for row, (title, page_id, to, fragment, interwiki) in enumerate(rows):
            yield TitleRow(
                title,
                REDIRECT,
                page_id,
                place_of("redirects", source.unit, row),
                redirect_to=to,
                redirect_fragment=fragment,
                redirect_interwiki=interwiki,
            )

    def _columns(self, path: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        with pq.ParquetFile(self.storage.table_file(path), page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(names)):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)

    def _title(self, raw: str) -> tuple[str, str | None]:
        """(the normalised title, None), or (the title as it is, why it is filtered)."""
        prefix, colon, _ = raw.partition(":")
        if colon and fold_namespace(prefix) in self.wiki.namespace_numbers:
            return raw, "sitelink to another namespace"
        title = normalise_title(raw, self.wiki)
        return (raw, f"sitelink to an illegal title: {title_fault(raw)}") if title is None else (title, None)

    def named_row(self, title: str, number: int, name: Name, typed: bool, aliases: Sequence[str]) -> TitleRow:
        """The row of an item's link to a title, with its name unless that is held out."""
        if name.name is None or not self.holdout.holds(name.name):
            return TitleRow(
                title,
                SITELINK,
                number,
                reason=name.reason,
                name=name.name,
                name_language=name.language,
                name_source=name.source,
                typed=typed,
            )
        kept = {"name": name.name, "language": name.language, "source": name.source, "aliases": sorted(aliases)}
        held_out = json.dumps(kept, ensure_ascii=False)
        return TitleRow(title, SITELINK, number, reason=HELD_OUT, typed=typed, held_out=held_out)


def _members(lists: pa.ListArray, key: str, value: str, wanted: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(row, key, value) of the members of a list of structs whose key is wanted, in order."""
    flat, rows = lists.flatten(), pc.list_parent_indices(lists)
    found = pc.is_in(flat.field(key), value_set=pa.array(sorted(set(wanted)), pa.string()))
    columns = (rows, flat.field(key), flat.field(value))
    return zip(*(column.filter(found).to_pylist() for column in columns), strict=True)


def _by_row(members: Iterable[tuple[int, str, str]]) -> Mapping[int, list[tuple[str, str]]]:
    grouped: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for row, key, value in members:
        grouped[row].append((key, value))
    return grouped


class _Facts:
    """The facts beside a file of sitelinks, read along with it: both are in the dump's order, facts for some rows only."""

    def __init__(self, path: str | BinaryIO | None):
        self._file = None if path is None else pq.ParquetFile(path, page_checksum_verification=True)
        self._batches = iter(()) if self._file is None else self._file.iter_batches(_BATCH_ROWS)
        self._pending: list[pa.RecordBatch] = []
        self._taken: list[pa.RecordBatch] = []

    def take(self, qids: pa.Array) -> None:
        """Go on to the facts of the next rows of sitelinks."""
        self._taken = []
        while self._fill():
            batch = self._pending.pop()
            inside = pc.is_in(batch.column("qid"), value_set=qids).to_numpy(zero_copy_only=False)
            count = len(inside) if inside.all() else int(np.argmin(inside))
            self._taken.append(batch.slice(0, count))
            if count < len(inside):
                self._pending.append(batch.slice(count))
                return

    def _fill(self) -> bool:
        if not self._pending:
            self._pending.extend(batch for batch in [next(self._batches, None)] if batch is not None)
        return bool(self._pending)

    def of(self, qids: Collection[str]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """(types, aliases) of some of the items of these rows."""
        found = {}
        for batch in self._taken:
            mask = pc.is_in(batch.column("qid"), value_set=pa.array(sorted(qids), pa.string()))
            for row in batch.filter(mask).to_pylist():
                types = tuple(claim["item"] for claim in row["claims"] if claim["property"] == INSTANCE_OF)
                found[row["qid"]] = types, tuple(alias["alias"] for alias in row["aliases"])
        return found
