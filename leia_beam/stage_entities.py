"""The stage `entities`: from titles and where their redirects lead to what each title of the wiki is named.

Its first two steps, `titles` and `redirects`, are stages of their own with units and commit records, for Beam has no loops.
Here each bucket's unit writes its part of the final table and of the lookup.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from leia_beam.entity_names import MISSING, NO_ITEM
from leia_beam.lookup import Status, write_lookup_rows
from leia_beam.manifest import read_manifest
from leia_beam.plans import StagePlan, identity_of, upstream
from leia_beam.schema import ENTITIES, HELD_OUT_NAMES
from leia_beam.stage_folders import local_copy, stage_manifest
from leia_beam.stage_redirects import ENDS
from leia_beam.storage import LocalStorage, Storage
from leia_beam.title_buckets import BYTES_A_TITLE, VERSIONS, bucket_units
from leia_beam.title_parts import TITLE_TABLES, TitleParts, open_title_parts
from leia_beam.units import Unit, UnitOutput

NAME_MISSING, REFUSE_MISSING = "name", "refuse"


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
        return bucket_units(self.bucket_count, titles * BYTES_A_TITLE)

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
    output.count_any("titles without a page/named", pc.sum(lone).as_py() or 0)


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
