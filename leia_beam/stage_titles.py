"""The stage `titles`, first step of `entities`: from articles, redirects and sitelinks to one row a title, by bucket.

All rows about a title come together in its bucket (a stable hash of the title, the only shuffle of the builder, of titles
alone). A bucket's unit sorts its rows before it looks at them, so nothing depends on the order in which they came, and
writes a trie of its titles and one row each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.entity_names import NameRules
from leia_beam.holdout import Holdout
from leia_beam.lookup import build_trie, write_arrow
from leia_beam.manifest import Manifest
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.siteinfo import SiteInfo, wiki_with
from leia_beam.stage_folders import stage_manifest
from leia_beam.storage import LocalStorage, Storage
from leia_beam.title_buckets import BYTES_A_TITLE, VERSIONS, bucket_units
from leia_beam.title_merging import merge_rows
from leia_beam.title_rows import FILTERED, ROWS, TitleReader, TitleSource, unpack_rows
from leia_beam.units import Unit, UnitOutput
from leia_beam.wikis import load_wiki

LINKS_FROM = "links_from"
"""Where the manifest of the titles says what the stage of the links was made from, which may lie in any folder."""


def links_origin(links: Manifest) -> dict[str, Any]:
    """The stage of the links between wikis, with its dumps as its manifest has them."""
    parts = ("verified_sums", "fetched")
    known = {part: links.details[part] for part in parts if part in links.details}
    return {"stage": links.stage, "inputs": [dict(entry) for entry in links.inputs], **known}


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
        return bucket_units(self.bucket_count, self._row_count() * BYTES_A_TITLE)

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
        merged = merge_rows(known, output)
        trie = build_trie(merged.column("title").to_pylist())
        numbers = np.array([trie[title] for title in merged.column("title").to_pylist()], np.int64)
        trie.save(output.file("titles-trie", "lookup", "marisa", merged.num_rows))
        path = output.file("titles-rows", "lookup", "arrow", merged.num_rows)
        write_arrow(path, merged.take(pa.array(np.argsort(numbers))))
