"""The stage `langlinks`: from a wiki's own table of links between languages to one row a link, in the dump's order.

What Wikidata's 100 GB say of one wiki stands in its `…-langlinks.sql.gz` too (some 200 MB for Japanese), by page id and
without items. The table is read in ranges as the other dumps are, so a run that died goes on behind what is done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from leia_beam.dumps import Dump, DumpReader, ReadOptions, decoded_head, provenance
from leia_beam.errors import DamagedInput, UsageError
from leia_beam.plans import StagePlan, identity_of
from leia_beam.ranges import RangeReport, Record
from leia_beam.schema import LANGLINKS
from leia_beam.sql_inserts import DamagedSql, Value, inserted_rows, inserts_into
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import TableWriter
from leia_beam.units import Unit, UnitOutput, dump_units

VERSIONS = ("leia-lm", "pyarrow")
MAX_LINE_BYTES = 256 << 20
TABLE = "langlinks"
END_LINE = b"-- Dump completed"
_COLUMNS = ("ll_from", "ll_lang", "ll_title")
_DATABASE = re.compile(rb"^-- Host: \S+\s+Database: (\S+)", re.MULTILINE)
_ABOUT_TABLE = re.compile(rb"(?:CREATE TABLE|INSERT INTO)\s+`?(\w+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class LangLinksStage:
    """`dumps` are the parts of one wiki's table."""

    folder: str
    wiki_code: str
    dumps: tuple[Dump, ...]
    range_bytes: int
    salvage: bool = False
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="langlinks",
            identity=identity_of(
                "langlinks",
                [{"name": dump.name, "size_bytes": dump.size_bytes} for dump in self.dumps],
                {"wiki": self.wiki_code, "range_bytes": self.range_bytes},
                VERSIONS,
            ),
            unit_count=len(dump_units(self.dumps, self.range_bytes)),
            end_marker=f"'{END_LINE.decode()}'",
            required_counter="links/emitted",
            details=provenance(self.dumps),
        )

    def units(self) -> list[Unit]:
        return dump_units(self.dumps, self.range_bytes)

    def open_reader(self, dump: Dump) -> DumpReader:
        """A reader of lines."""
        return DumpReader(dump, b"\n", ReadOptions(max_record_bytes=MAX_LINE_BYTES, salvage=self.salvage))

    def process_range(self, unit: Unit, reader: DumpReader, output: UnitOutput) -> None:
        """Each link of the range's lines: a row, or counted by the reason why it is none.

        Raises: DamagedInput where a line is no SQL of this table.
        """
        table = output.table(TABLE, LANGLINKS)
        report = RangeReport()
        for record in reader.records(unit.start, unit.end, report):
            _process(record, unit, table, output)
        output.take_report(report)


def check_langlinks(dump: Dump, wiki_code: str) -> None:
    """Find that a dump begins as the table of a wiki's links between languages.

    Raises: UsageError for another table or wiki; DamagedInput for anything else.
    """
    head = decoded_head(dump)
    table = _ABOUT_TABLE.search(head)
    if table is None:
        start = head[:40].decode("utf-8", "replace")
        raise DamagedInput(f"{dump.path}: not an SQL dump of a table, it starts with {start!r}; download it again")
    name = table.group(1).decode("utf-8", "replace")
    if name != TABLE:
        raise UsageError(f"{dump.path}: the table {name!r}, not langlinks; give the wiki's …-langlinks.sql.gz")
    database = _DATABASE.search(head)
    if database is not None and database.group(1).decode() != wiki_code:
        raise UsageError(f"{dump.path}: the table of {database.group(1).decode()}, not of {wiki_code}")


def _process(record: Record, unit: Unit, table: TableWriter, output: UnitOutput) -> None:
    line = record.data.strip()
    if not line:
        return
    output.end_marker = line.startswith(END_LINE)
    if record.size_bytes > MAX_LINE_BYTES:
        raise DamagedInput(f"{unit.name}: a line of {record.size_bytes:,} bytes{_where(record)}; download it again")
    try:
        if inserts_into(line) not in (None, (), _COLUMNS):
            raise DamagedSql(f"columns {inserts_into(line)}, not {_COLUMNS}")
        for values in inserted_rows(line, TABLE):
            _write(values, record, table, output)
    except DamagedSql as error:
        raise DamagedInput(f"{unit.name}: damaged SQL{_where(record)} ({error}); download it again") from error


def _write(values: tuple[Value, ...], record: Record, table: TableWriter, output: UnitOutput) -> None:
    if len(values) != len(_COLUMNS):
        raise DamagedSql(f"a row of {len(values)} values, not of page id, language and title")
    page_id, language, title = values
    if not isinstance(page_id, int) or not isinstance(language, bytes) or not isinstance(title, bytes):
        raise DamagedSql(f"a row of other types: {values!r}"[:200])
    output.count("links/read")
    if not title or not language:
        output.count("links/filtered/no title")
        return
    try:
        row = {"page_id": page_id, "language": language.decode(), "title": title.decode().replace("_", " ")}
    except UnicodeDecodeError:  # a title that the database cut at its 255 bytes
        output.reject("links", "no UTF-8", record.place, f"page id {page_id}", title)
        return
    output.count("links/emitted")
    output.last_id = f"page id {page_id}"
    table.write(row, 40 + len(title))


def _where(record: Record) -> str:
    place = record.place
    return f" at byte {place.block_bit // 8 if place.block_bit else place.offset:,}" if place is not None else ""
