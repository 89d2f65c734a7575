"""The stage `sitelinks`: from the Wikidata dump to one row an item, in the dump's order.

Units are byte ranges of the dump; nothing crosses a shuffle. All Wikipedias' sitelinks are kept (2 % of the pass's time),
so that adding a wiki never reads Wikidata again. Item values of some properties, and aliases, go into a file set of their
own beside them, in the same order, so that who needs the links alone does not read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from leia_beam.dumps import Dump, DumpReader, ReadOptions, decoded_head, provenance
from leia_beam.entities import LINE_END, FilteredLine, ItemParts, RejectedLine, entity_id, entity_json, parse_item
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.plans import StagePlan, identity_of
from leia_beam.ranges import RangeReport, Record
from leia_beam.records import Item
from leia_beam.schema import FACTS, SITELINKS
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import TableWriter
from leia_beam.units import Unit, UnitOutput, dump_units
from leia_beam.wikis import wikipedia_codes

VERSIONS = ("leia-lm", "pyarrow", "pysimdjson", "ujson")
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class SitelinksStage:
    """`label_languages` are the languages whose labels are kept beside the sitelinks, and with `aliases` their aliases;
    `claims` are the properties whose item values are kept."""

    folder: str
    dumps: tuple[Dump, ...]
    label_languages: tuple[str, ...]
    range_bytes: int
    claims: tuple[str, ...] = ()
    aliases: bool = False
    max_bad_blocks: int = 0
    salvage: bool = False
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="sitelinks",
            identity=identity_of(
                "sitelinks",
                [{"name": dump.name, "size_bytes": dump.size_bytes} for dump in self.dumps],
                {
                    "label_languages": sorted(self.label_languages),
                    "claims": sorted(self.claims),
                    "aliases": self.aliases,
                    "range_bytes": self.range_bytes,
                },
                VERSIONS,
            ),
            unit_count=len(dump_units(self.dumps, self.range_bytes)),
            end_marker="']'",
            required_counter="lines/emitted",
            details=provenance(self.dumps),
        )

    def units(self) -> list[Unit]:
        return dump_units(self.dumps, self.range_bytes)

    def open_reader(self, dump: Dump) -> DumpReader:
        """A reader of lines."""
        options = ReadOptions(max_record_bytes=MAX_LINE_BYTES, max_bad_blocks=self.max_bad_blocks, salvage=self.salvage)
        return DumpReader(dump, LINE_END, options)

    def process_range(self, unit: Unit, reader: DumpReader, output: UnitOutput) -> None:
        """Each line of the range: a row, or counted by the reason why it is none."""
        lines = _LineProcessor(self, output)
        report = RangeReport()
        for record in reader.records(unit.start, unit.end, report):
            lines.process(record)
        output.take_report(report)


def check_wikidata(dump: Dump) -> None:
    """Find that a dump begins as JSON does.

    Raises: UsageError for a wiki's dump; DamagedInput for anything else.
    """
    head = decoded_head(dump).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head or head.startswith((b"[", b"{")):
        return
    start = head[:40].decode("utf-8", "replace")
    if b"<mediawiki" in head:
        raise UsageError(f"{dump.path}: a wiki's dump, not Wikidata's; give it with --pages")
    raise DamagedInput(f"{dump.path}: not a Wikidata JSON dump, it starts with {start!r}; download it again")


class _LineProcessor:
    """Turns the lines of one unit into rows."""

    def __init__(self, stage: SitelinksStage, output: UnitOutput):
        languages = frozenset(stage.label_languages)
        self._parts = ItemParts(
            wikis=wikipedia_codes(),
            label_languages=languages,
            alias_languages=languages if stage.aliases else frozenset(),
            properties=frozenset(stage.claims),
        )
        self._output = output
        self._table: TableWriter = output.table("sitelinks", SITELINKS)
        self._facts = output.table("facts", FACTS) if stage.claims or stage.aliases else None

    def process(self, record: Record) -> None:
        output = self._output
        if record.size_bytes > MAX_LINE_BYTES:
            output.count("lines/read")
            output.reject("lines", "line too long", record.place, entity_id(record.data), record.data)
            output.end_marker = False
            return
        content, ends_array = entity_json(record.data)
        if content or ends_array:
            output.end_marker = ends_array
        if not content:
            return
        output.count("lines/read")
        try:
            item = parse_item(content, self._parts)
        except FilteredLine as reason:
            output.count(f"lines/filtered/{reason}")
        except RejectedLine as reason:
            output.reject("lines", str(reason), record.place, entity_id(content), content)
            output.end_marker = False  # a bracket of a line that was cut closes nothing
        else:
            self._write(item)

    def _write(self, item: Item) -> None:
        self._output.last_id = item.qid
        self._output.count("lines/emitted")
        self._output.count("sitelinks/emitted", len(item.sitelinks))
        row = {
            "qid": item.qid,
            "sitelinks": [{"wiki": wiki, "title": title} for wiki, title in item.sitelinks],
            "labels": [{"language": language, "label": label} for language, label in item.labels],
        }
        self._table.write(row, 50 * (len(item.sitelinks) + len(item.labels) + 1))
        if self._facts is not None and (item.claims or item.aliases):
            self._output.count("claims/emitted", len(item.claims))
            self._output.count("aliases/emitted", len(item.aliases))
            facts = {
                "qid": item.qid,
                "claims": [{"property": name, "item": value} for name, value in item.claims],
                "aliases": [{"language": language, "alias": alias} for language, alias in item.aliases],
            }
            self._facts.write(facts, 50 * (len(item.claims) + len(item.aliases) + 1))
