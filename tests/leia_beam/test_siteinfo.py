"""siteinfo: a dump's header says whose dump it is, or the message says why the file is none."""

from __future__ import annotations

import json

import pytest

from leia_beam.errors import DamagedInput, UsageError
from leia_beam.first_letters import SIMPLE, TITLE_CASE
from leia_beam.siteinfo import SiteInfo, parse_siteinfo, siteinfo_from_json, siteinfo_json, wiki_with
from leia_beam.wikis import load_wiki

SITEINFO = """<siteinfo>
    <sitename>Wikipedia</sitename><dbname>jawiki</dbname><base>https://ja.wikipedia.org/</base>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-2" case="first-letter">メディア</namespace>
      <namespace key="0" case="case-sensitive" />
      <namespace key="6" case="first-letter">ファイル</namespace>
      <namespace key="2300" case="case-sensitive">Gadget</namespace>
    </namespaces>
  </siteinfo>"""
EXPECTED = SiteInfo(
    dbname="jawiki",
    case="first-letter",
    namespaces={-2: "メディア", 0: "", 6: "ファイル", 2300: "Gadget"},
    case_sensitive_namespaces=frozenset({2300}),
)


def header(version="0.11", siteinfo=SITEINFO, tag=None):
    uri = f"http://www.mediawiki.org/xml/export-{version}/"
    start = (
        tag or f'<mediawiki xmlns="{uri}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="{version}">'
    )
    return f"{start}\n  {siteinfo}\n  ".encode()


@pytest.mark.parametrize("version", ["0.6", "0.7", "0.8", "0.9", "0.10", "0.11"])
def test_the_header_is_read(version):
    """All schemas whose pages carry their namespace."""
    assert parse_siteinfo(header(version), "x.xml") == EXPECTED


@pytest.mark.parametrize(
    "tag",
    [
        "<mediawiki>",
        '<mediawiki version="0.10" xml:lang="ja">',
        "<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.11/'>",
    ],
)
def test_a_header_without_a_namespace_or_with_single_quotes_is_read(tag):
    """The schema is looked at where it is given."""
    assert parse_siteinfo(header(tag=tag), "x.xml") == EXPECTED


def test_one_line_and_crlf_do_not_matter():
    """White space between the elements says nothing."""
    for content in (header().replace(b"\n", b""), header().replace(b"\n", b"\r\n")):
        assert parse_siteinfo(content, "x.xml") == EXPECTED


@pytest.mark.parametrize(
    ("generator", "rule"),
    [("MediaWiki 1.34.0-wmf.7", SIMPLE), (" MediaWiki 1.46.0-wmf.16\n", TITLE_CASE), ("", SIMPLE)],
)
def test_the_mediawiki_that_wrote_a_dump_decides_how_first_letters_are_raised(generator, rule):
    """Wikimedia's wikis renamed their pages when the rule changed."""
    found = parse_siteinfo(
        header(siteinfo=SITEINFO.replace("<case>", f"<generator>{generator}</generator><case>")), "x"
    )
    assert (found.generator, wiki_with("jawiki", found).first_letter_rule) == (generator.strip(), rule)


def test_a_header_without_siteinfo_gives_none():
    """The package's own facts are used then."""
    assert parse_siteinfo(header(siteinfo=""), "x.xml") is None


@pytest.mark.parametrize("version", ["0.12", "1.0", "0.1", "x"])
def test_an_unknown_schema_is_refused_with_its_uri(version):
    """A dump of a schema that nobody has seen is not guessed at."""
    message = rf"^x\.xml: export schema 'http://www\.mediawiki\.org/xml/export-{version}/' is not read; known are"
    with pytest.raises(DamagedInput, match=message):
        parse_siteinfo(header(version), "x.xml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><head><title>404</title>", "it looks like an error page; download it again"),
        (b"  <!DOCTYPE HTML><HTML>", "it looks like an error page; download it again"),
        (b"", "it starts with ''; give a pages-articles dump"),
        (b"\xff\xfe\x00", "not a MediaWiki dump"),
    ],
)
def test_what_is_no_dump_is_said_to_be_none(content, message):
    """An error page, nothing at all; the other dump is told as such."""
    with pytest.raises(UsageError, match=r"^x\.xml: JSON, not a MediaWiki dump; give Wikidata's dump with --wikidata$"):
        parse_siteinfo(b'[\n{"id":"Q1"}', "x.xml")
    with pytest.raises(DamagedInput, match=rf"^x\.xml: not a MediaWiki dump, .*{message}|{message}"):
        parse_siteinfo(content, "x.xml")


@pytest.mark.parametrize("damage", ["<case>&laugh;</case>", "<case>", "\x01"])
def test_a_damaged_siteinfo_is_an_error(damage):
    """Entities are not expanded, and a header that is no XML is damage."""
    content = b'<!DOCTYPE mediawiki [<!ENTITY laugh "ha">]>' + header().replace(b"<case>", damage.encode() + b"<case>")
    with pytest.raises(DamagedInput, match=r"^x\.xml: the header's <siteinfo> is no XML"):
        parse_siteinfo(content, "x.xml")


def test_an_external_entity_in_the_header_opens_nothing(tmp_path):
    """The canary does not come out."""
    canary = tmp_path / "canary.txt"
    canary.write_text("CANARY")
    doctype = f'<!DOCTYPE mediawiki [<!ENTITY xxe SYSTEM "file://{canary}">]>'.encode()
    content = doctype + header().replace(b"jawiki", b"&xxe;")
    with pytest.raises(DamagedInput, match="is no XML"):
        parse_siteinfo(content, "x.xml")


def test_a_namespace_key_that_is_no_number_is_damage():
    """One line and exit code 3, not a traceback."""
    with pytest.raises(DamagedInput, match=r"x\.xml"):
        parse_siteinfo(header().replace(b'key="6"', b'key="six"'), "x.xml")


def test_site_information_passes_through_json():
    """What a manifest holds of it gives it back."""
    for siteinfo in (EXPECTED, None):
        assert siteinfo_from_json(json.loads(json.dumps(siteinfo_json(siteinfo)))) == siteinfo


def test_the_wiki_s_facts_are_completed_by_the_header():
    """Local names of the header, aliases of the table; without a header the table alone."""
    wiki = wiki_with("jawiki", EXPECTED)
    assert (wiki.namespaces[2300], wiki.case_sensitive_namespaces) == (("Gadget",), frozenset({2300}))
    assert wiki.namespaces[6][0] == "ファイル" and "Image" in wiki.namespaces[6]
    assert wiki_with("jawiki", None) is load_wiki("jawiki")
