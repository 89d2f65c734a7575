"""The stage `articles`: from the pages of a wiki's dump to articles with their anchors, and redirects.

Units are byte ranges of the dump files; nothing crosses a shuffle. Every page of the dump ends as an article, a
redirect, filtered by a reason (other namespaces, other content models, deleted text), or rejected by a reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property

from leia_beam.dumps import Dump, DumpReader, ReadOptions, provenance
from leia_beam.errors import DamagedInput, LeiaError, UsageError
from leia_beam.pages import (
    END_TAG,
    PAGE_END,
    RejectedPage,
    identifier_of,
    last_page_start,
    namespace_of,
    page_start,
    parse_page,
    title_of,
)
from leia_beam.plans import StagePlan, identity_of
from leia_beam.ranges import RangeReport, Record
from leia_beam.records import Extraction, Page
from leia_beam.redirects import redirect_of
from leia_beam.schema import ARTICLES, REDIRECTS
from leia_beam.siteinfo import SiteInfo, parse_siteinfo, siteinfo_json, wiki_with
from leia_beam.storage import LocalStorage, Storage
from leia_beam.tables import TableWriter
from leia_beam.titles import namespace_of_title, normalise_title, title_fault
from leia_beam.units import Unit, UnitOutput, dump_units
from leia_beam.wikitext import ExtractionOptions, extract

VERSIONS = ("leia-lm", "pyarrow", "lxml", "unicodedata")
MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class ArticlesStage:
    """`siteinfo` is the header of the first dump file; None keeps to the package's own facts about the wiki."""

    folder: str
    wiki_code: str
    dumps: tuple[Dump, ...]
    siteinfo: SiteInfo | None
    extraction: ExtractionOptions
    range_bytes: int
    max_page_bytes: int
    max_bad_blocks: int = 0
    salvage: bool = False
    storage: Storage = field(default_factory=LocalStorage)

    @cached_property
    def plan(self) -> StagePlan:
        return StagePlan(
            stage="articles",
            identity=identity_of(
                "articles",
                [{"name": dump.name, "size_bytes": dump.size_bytes} for dump in self.dumps],
                {
                    "wiki": self.wiki_code,
                    "extraction": asdict(self.extraction),
                    "range_bytes": self.range_bytes,
                    "max_page_bytes": self.max_page_bytes,
                    "siteinfo": siteinfo_json(self.siteinfo),
                },
                VERSIONS,
            ),
            unit_count=len(self.units()),
            end_marker=END_TAG.decode(),
            required_counter="pages/read",
            details=provenance(self.dumps),
        )

    def units(self) -> list[Unit]:
        return dump_units(self.dumps, self.range_bytes)

    def open_reader(self, dump: Dump) -> DumpReader:
        """A reader of what ends in `</page>`."""
        return DumpReader(dump, PAGE_END, self._read_options)

    def process_range(self, unit: Unit, reader: DumpReader, output: UnitOutput) -> None:
        """Each page of the range: an article or a redirect, or counted by the reason why it is neither."""
        pages = _PageProcessor(self, output)
        report = RangeReport()
        for record in reader.records(unit.start, unit.end, report):
            pages.process(record)
        output.take_report(report)

    @property
    def _read_options(self) -> ReadOptions:
        return ReadOptions(
            max_record_bytes=self.max_page_bytes, max_bad_blocks=self.max_bad_blocks, salvage=self.salvage
        )


def read_siteinfo(dump: Dump, wiki_code: str) -> SiteInfo | None:
    """The site information in a dump's header.

    Raises: DamagedInput if the file is no MediaWiki dump; UsageError if it is another wiki's.
    """
    with DumpReader(dump, PAGE_END, ReadOptions(max_record_bytes=MAX_HEADER_BYTES)) as reader:
        first = next(iter(reader.records(0, dump.size_bytes, RangeReport())), None)
    if first is None:
        raise DamagedInput(f"{dump.path}: not a MediaWiki dump, there is nothing in it; give a pages-articles dump")
    at = page_start(first.data)
    header = first.data if at < 0 else first.data[:at]
    siteinfo = parse_siteinfo(header, dump.path)
    if siteinfo is not None and siteinfo.dbname and siteinfo.dbname != wiki_code:
        raise UsageError(
            f"{dump.path}: this is a dump of {siteinfo.dbname}, not of {wiki_code}; give --wiki {siteinfo.dbname}, "
            "or --ignore-siteinfo if the header is wrong"
        )
    return siteinfo


class _PageProcessor:
    """Turns the records of one unit into rows."""

    def __init__(self, stage: ArticlesStage, output: UnitOutput):
        self._stage = stage
        self._wiki = wiki_with(stage.wiki_code, stage.siteinfo)
        self._by_title = stage.siteinfo is not None and not stage.siteinfo.has_page_namespaces
        self._output = output
        self._articles: TableWriter = output.table("articles", ARTICLES)
        self._redirects: TableWriter = output.table("redirects", REDIRECTS)

    def process(self, record: Record) -> None:
        """What stands before one `</page>`, or after the last one."""
        start, output = page_start(record.data), self._output
        if start < 0 and not record.data.strip():
            return
        output.end_marker = record.data.rstrip().endswith(END_TAG)
        if start < 0 and output.end_marker:
            return
        if record.size_bytes > self._stage.max_page_bytes:
            self._reject("over --max-page-bytes", record, record.data[max(0, start) :])
        elif start < 0:
            self._reject("no <page> before </page>", record, record.data)
        else:
            self._process_page(record, record.data[start:] + PAGE_END)

    def _process_page(self, record: Record, content: bytes) -> None:
        again = last_page_start(content)
        if again > 0:
            self._reject("page that does not end", record, content[:again])
            content = content[again:]
        namespace = self._namespace_of(content)
        if namespace not in (0, None):
            self._output.count("pages/read")
            self._output.count("pages/filtered/other namespace")
            self._output.last_id = identifier_of(content) or self._output.last_id
            return
        try:
            page = parse_page(content, namespace)
            self._write(page)
        except RejectedPage as reason:
            self._reject(str(reason), record, content)
        else:
            self._output.count("pages/read")
            self._output.last_id = f"page id {page.page_id}"

    def _namespace_of(self, content: bytes) -> int | None:
        """By `<ns>`; where the dump's schema has none, by the title's prefix."""
        if not self._by_title:
            return namespace_of(content)
        title = title_of(content)
        return namespace_of_title(title, self._wiki) if title is not None else None

    def _reject(self, reason: str, record: Record, content: bytes) -> None:
        self._output.count("pages/read")
        self._output.reject("pages", reason, record.place, identifier_of(content), content)

    def _write(self, page: Page) -> None:
        reason = _filter_reason(page)
        if reason is not None:
            self._output.count(f"pages/filtered/{reason}")
            return
        title = normalise_title(page.title, self._wiki, page.namespace)
        if title is None:
            raise RejectedPage(f"illegal title: {title_fault(page.title)}")
        if page.redirect_title is not None:
            self._write_redirect(page, title)
        else:
            self._write_article(page, title)

    def _write_redirect(self, page: Page, title: str) -> None:
        redirect = redirect_of(page, self._wiki)
        if redirect is None or not (redirect.to or redirect.to_interwiki):
            raise RejectedPage("redirect to no title")
        row = {
            "wiki": self._stage.wiki_code,
            "page_id": page.page_id,
            "from": title,
            "to": redirect.to,
            "fragment": redirect.fragment,
            "to_interwiki": redirect.to_interwiki,
        }
        self._redirects.write(row, 100 + 2 * len(title))
        self._output.count("pages/emitted/redirect")

    def _write_article(self, page: Page, title: str) -> None:
        extraction = self._extract(page, title)
        row = {
            "wiki": self._stage.wiki_code,
            "page_id": page.page_id,
            "revision_id": page.revision_id,
            "title": title,
            "text": extraction.text,
            "text_hash": text_hash(extraction.text),
            "anchors": [anchor._asdict() for anchor in extraction.anchors],
            "flags": list(extraction.flags),
        }
        self._articles.write(row, 2 * len(extraction.text) + 100 * len(extraction.anchors))
        self._output.count("pages/emitted/article")
        self._output.counters.update(extraction.counters)
        self._output.tally(extraction.tallies)

    def _extract(self, page: Page, title: str) -> Extraction:
        assert page.text is not None
        try:
            return extract(page.text, title, self._wiki, self._stage.extraction)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise LeiaError(
                f"page {title!r} (id {page.page_id}): its wikitext could not be read ({type(error).__name__}: {error}); "
                "this is a fault of the program, please report it"
            ) from error


def text_hash(text: str) -> bytes:
    """16 bytes that tell texts apart."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _filter_reason(page: Page) -> str | None:
    if page.namespace != 0:
        return "other namespace"
    if page.model != "wikitext":
        return "other content model"
    if page.text is None:
        return "deleted text"
    return None
