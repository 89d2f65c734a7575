"""From a dump's header to what it says of its wiki, and to the wiki's facts completed by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.first_letters import rule_of
from leia_beam.pages import hardened_parser
from leia_beam.wikis import FIRST_LETTER, Wiki, load_wiki, with_siteinfo

READ_SCHEMAS = frozenset(f"0.{minor}" for minor in range(3, 12))
SCHEMAS_WITHOUT_NS = frozenset(("0.3", "0.4", "0.5"))
"""Export schemas whose pages have no `<ns>`: the namespace is told by the title's prefix."""

_SCHEMA_URI = re.compile(rb"xmlns\s*=\s*[\"']([^\"']*)[\"']")
_SCHEMA_VERSION = re.compile(rb"<mediawiki[^>]*\sversion\s*=\s*[\"'](0\.\d+)[\"']")
_SITEINFO = re.compile(rb"<siteinfo\b.*?</siteinfo>", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteInfo:
    """What a dump says of its wiki. `namespaces` maps numbers to local names."""

    dbname: str
    case: str
    namespaces: Mapping[int, str]
    case_sensitive_namespaces: frozenset[int]
    has_page_namespaces: bool = True
    """Whether pages of the dump's schema have `<ns>`."""
    generator: str = ""
    """The MediaWiki that wrote it, which decides how first letters are raised."""


def parse_siteinfo(header: bytes, where: str) -> SiteInfo | None:
    """The site information in what stands before a dump's first page; None where the header has no `<siteinfo>`.

    Raises: DamagedInput if this is no dump, or one of a schema that is not read; UsageError if it is Wikidata's.
    """
    schema = _checked_schema(header, where)
    match = _SITEINFO.search(header)
    if match is None:
        return None
    try:
        root = etree.fromstring(match.group(), hardened_parser())
    except etree.XMLSyntaxError as error:
        raise DamagedInput(f"{where}: the header's <siteinfo> is no XML ({error}); download the dump again") from error
    namespaces, case_sensitive = {}, set()
    for element in root.iterfind("namespaces/namespace"):
        key = element.get("key", "")
        if not key.removeprefix("-").isdecimal() or not key.isascii():
            raise DamagedInput(f"{where}: the header has a namespace with key {key!r}; download the dump again")
        number = int(key)
        namespaces[number] = element.text or ""
        if number != 0 and element.get("case") == "case-sensitive":
            case_sensitive.add(number)
    return SiteInfo(
        dbname=root.findtext("dbname", ""),
        case=root.findtext("case", FIRST_LETTER),
        namespaces=namespaces,
        case_sensitive_namespaces=frozenset(case_sensitive),
        has_page_namespaces=schema not in SCHEMAS_WITHOUT_NS,
        generator=root.findtext("generator", "").strip(),
    )


def _checked_schema(header: bytes, where: str) -> str | None:
    """The version of the export schema that a header names, or None if it names none."""
    if b"<mediawiki" not in header:
        if header.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{")):
            raise UsageError(f"{where}: JSON, not a MediaWiki dump; give Wikidata's dump with --wikidata")
        start = header.lstrip()[:40].decode("utf-8", "replace")
        advice = (
            "it looks like an error page; download it again"
            if b"<html" in header[:2000].lower()
            else "give a pages-articles dump"
        )
        raise DamagedInput(f"{where}: not a MediaWiki dump, it starts with {start!r}; {advice}")
    uri = _SCHEMA_URI.search(header)
    if uri is None:
        attribute = _SCHEMA_VERSION.search(header)
        return attribute.group(1).decode() if attribute else None
    version = uri.group(1).rstrip(b"/").rpartition(b"export-")[2].decode("utf-8", "replace")
    if version not in READ_SCHEMAS:
        raise DamagedInput(
            f"{where}: export schema {uri.group(1).decode('utf-8', 'replace')!r} is not read; "
            "known are export-0.3 to export-0.11"
        )
    return version


def siteinfo_json(siteinfo: SiteInfo | None) -> dict[str, Any] | None:
    """Site information as JSON holds it (with text for keys)."""
    if siteinfo is None:
        return None
    return {
        "dbname": siteinfo.dbname,
        "case": siteinfo.case,
        "namespaces": {str(number): name for number, name in sorted(siteinfo.namespaces.items())},
        "case_sensitive_namespaces": sorted(siteinfo.case_sensitive_namespaces),
        "has_page_namespaces": siteinfo.has_page_namespaces,
        "generator": siteinfo.generator,
    }


def siteinfo_from_json(content: Mapping[str, Any] | None) -> SiteInfo | None:
    """The inverse of `siteinfo_json`."""
    if content is None:
        return None
    return SiteInfo(
        dbname=content["dbname"],
        case=content["case"],
        namespaces={int(number): name for number, name in content["namespaces"].items()},
        case_sensitive_namespaces=frozenset(content["case_sensitive_namespaces"]),
        has_page_namespaces=content["has_page_namespaces"],
        generator=content.get("generator", ""),
    )


def wiki_with(code: str, siteinfo: SiteInfo | None) -> Wiki:
    """A wiki's facts, completed by its dump's header."""
    wiki = load_wiki(code)
    if siteinfo is None:
        return wiki
    rule = rule_of(siteinfo.generator)
    return with_siteinfo(wiki, siteinfo.namespaces, siteinfo.case, siteinfo.case_sensitive_namespaces, rule)
