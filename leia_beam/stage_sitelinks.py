"""The stage `sitelinks`: from the Wikidata dump to one row an item, in the dump's order.

Units are byte ranges of the dump; nothing crosses a shuffle. All Wikipedias' sitelinks are kept (2 % of the pass's time),
so that adding a wiki never reads Wikidata again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from leia_beam.dumps import Dump, read_range
from leia_beam.entities import LINE_END, FilteredLine, RejectedLine, entity_json, parse_item
from leia_beam.plans import StagePlan, identity_of
from leia_beam.ranges import RangeReport, Record
from leia_beam.schema import SITELINKS
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import TableWriter
from leia_beam.units import Unit, UnitOutput, dump_units, unit_dump
from leia_beam.wikis import wikipedia_codes

VERSIONS = ("leia-lm", "pyarrow", "ujson")
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class SitelinksStage:
    """`label_languages` are the languages whose labels are kept beside the sitelinks."""

    folder: str
    dumps: tuple[Dump, ...]
    label_languages: tuple[str, ...]
    range_bytes: int
    storage: Storage = field(default_factory=LocalStorage)

    @property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="sitelinks",
            identity=identity_of(
                "sitelinks",
                [{"name": dump.name, "size_bytes": dump.size_bytes} for dump in self.dumps],
                {"label_languages": sorted(self.label_languages), "range_bytes": self.range_bytes},
                VERSIONS,
            ),
            unit_count=len(dump_units(self.dumps, self.range_bytes)),
            end_marker="']'",
        )

    def units(self) -> list[Unit]:
        return dump_units(self.dumps, self.range_bytes)

    def process(self, unit: Unit, output: UnitOutput) -> None:
        """Each line of the range: a row, or counted by the reason why it is none."""
        languages, wikis = frozenset(self.label_languages), wikipedia_codes()
        table = output.table("sitelinks", SITELINKS)
        report = RangeReport()
        for record in read_range(unit_dump(unit), unit.start, unit.end, LINE_END, report, MAX_LINE_BYTES):
            _process_line(record, languages, wikis, table, output)
        output.take_places(report)


def _process_line(
    record: Record, languages: frozenset[str], wikis: frozenset[str], table: TableWriter, output: UnitOutput
) -> None:
    if record.size_bytes > MAX_LINE_BYTES:
        output.count("lines/read")
        output.reject("lines", "line too long", record.place, None, record.data)
        return
    content = entity_json(record.data)
    if record.data.rstrip().endswith(b"]"):
        output.end_marker = True
    if not content:
        return
    output.count("lines/read")
    try:
        item = parse_item(content, languages, wikis)
    except FilteredLine as reason:
        output.count(f"lines/filtered/{reason}")
        return
    except RejectedLine as reason:
        output.reject("lines", str(reason), record.place, None, content)
        return
    output.count("lines/emitted")
    output.count("sitelinks/emitted", len(item.sitelinks))
    row = {
        "qid": item.qid,
        "sitelinks": [{"wiki": wiki, "title": title} for wiki, title in item.sitelinks],
        "labels": [{"language": language, "label": label} for language, label in item.labels],
    }
    table.write(row, 50 * (len(item.sitelinks) + len(item.labels) + 1))
