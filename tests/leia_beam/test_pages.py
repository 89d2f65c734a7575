"""pages: one page's bytes come to a Page or to one reason, and nothing in them opens a file or brings down the unit."""

from __future__ import annotations

import random
import socket

import pytest

from leia_beam.pages import RejectedPage, hardened_parser, namespace_of, page_start, parse_page
from leia_beam.records import Page

TITLE, NS, ID = "<title>東京</title>", "<ns>0</ns>", "<id>17</id>"
REVISION = (
    "<revision><id>90</id><parentid>80</parentid><timestamp>2026-01-01T00:00:00Z</timestamp>"
    "<contributor><username>x</username><id>5</id></contributor><model>wikitext</model><format>text/x-wiki</format>"
    '<text bytes="3" xml:space="preserve">abc</text><sha1>x</sha1></revision>'
)
EXPECTED = Page(
    page_id=17, namespace=0, title="東京", revision_id=90, redirect_title=None, model="wikitext", text="abc"
)


def page(*parts: str) -> bytes:
    return f"<page>{''.join(parts)}</page>".encode()


def with_text(text: str) -> bytes:
    return page(TITLE, NS, ID, f"<revision><id>90</id><text>{text}</text></revision>")


def test_a_page_of_a_dump_is_read_whole():
    """Every field of an ordinary page."""
    assert parse_page(page(TITLE, NS, ID, REVISION)) == EXPECTED


@pytest.mark.parametrize("newline", ["", "\n", "\r\n", "\n    \t"])
def test_white_space_between_the_elements_does_not_matter(newline):
    """Indented, on one line or with CRLF, a page is the same."""
    assert parse_page(newline.join(("<page>", TITLE, NS, ID, REVISION, "</page>")).encode()) == EXPECTED


def test_line_ends_in_the_text_are_those_of_xml():
    """CRLF in the bytes is one line feed, as XML says; `&#13;` stays."""
    assert parse_page(with_text("a\r\nb\rc&#13;d")).text == "a\nb\nc\rd"


def test_attributes_of_the_page_do_not_matter():
    """A start tag with attributes or white space is a start tag."""
    content = b'<page  x="1" >' + page(TITLE, NS, ID, REVISION)[6:]
    assert (page_start(b"junk" + content), parse_page(content)) == (4, EXPECTED)


@pytest.mark.parametrize(
    ("record", "start"),
    [(b"  <page>\n", 2), (b"<pages><page>", 7), (b"</mediawiki>", -1), (b"<siteinfo/>\n<page\n>", 12), (b"", -1)],
)
def test_the_start_of_the_page_is_found(record, start):
    """What stands before the page is left out; `<pages>` is no page."""
    assert page_start(record) == start


def test_of_several_revisions_the_newest_is_taken():
    """By time, then by number, wherever it stands; a page of a history dump is one article."""

    def revision(number, time, text):
        return f"<revision><id>{number}</id><timestamp>{time}</timestamp><text>{text}</text></revision>"

    revisions = [
        revision(9, "2020-01-01T00:00:00Z", "old"),
        revision(11, "2021-01-01T00:00:00Z", "new"),
        revision(10, "2021-01-01T00:00:00Z", "same time"),
    ]
    found = []
    for seed in range(6):
        random.Random(seed).shuffle(revisions)
        parsed = parse_page(page(TITLE, NS, ID, *revisions))
        found.append((parsed.revision_id, parsed.text))
    assert found == [(11, "new")] * 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<text deleted="deleted" />', None),
        ('<text bytes="9" deleted="deleted"></text>', None),
        ("<text/>", ""),
        ("<text></text>", ""),
        ('<text xml:space="preserve">  a  </text>', "  a  "),
    ],
)
def test_deleted_text_is_told_from_no_text(text, expected):
    """None where it was deleted, '' where the page is empty."""
    assert parse_page(page(TITLE, NS, ID, f"<revision><id>90</id>{text}</revision>")).text == expected


def test_the_content_model_is_read():
    """Pages of other models are told by it; without one it is wikitext."""
    models = ["<model>css</model>", "<model>wikitext</model>", "", "<model/>"]
    parsed = [parse_page(page(TITLE, NS, ID, f"<revision>{model}<text>x</text></revision>")).model for model in models]
    assert parsed == ["css", "wikitext", "wikitext", "wikitext"]


def test_a_redirect_says_where_it_leads():
    """The element's title, entities decoded."""
    assert parse_page(page(TITLE, NS, ID, '<redirect title="A &amp; B" />', REVISION)).redirect_title == "A & B"


def test_escaped_mark_up_is_text():
    """Tags of wikitext are escaped in a dump and come back as they were written."""
    text = "&lt;page&gt;&lt;!DOCTYPE html&gt;&lt;/text&gt; &amp;nbsp; &quot;"
    assert parse_page(with_text(text)).text == '<page><!DOCTYPE html></text> &nbsp; "'


def test_the_namespace_is_told_without_a_parse():
    """From the header alone; a page without one has None."""
    pages = [page(TITLE, f"<ns>{ns}</ns>", ID) for ns in ("0", "14", "-1", " 6 ")] + [page(TITLE, ID)]
    assert [namespace_of(content) for content in pages] == [0, 14, -1, 6, None]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (page(NS, ID, REVISION), "no title"),
        (page("<title/>", NS, ID, REVISION), "no title"),
        (page("<title> </title>", NS, ID, REVISION), "no title"),
        (page(TITLE, NS, REVISION), "no id"),
        (page(TITLE, NS, "<id>x</id>", REVISION), "no id"),
        (page(TITLE, NS, "<id>-3</id>", REVISION), "no id"),
        (page(TITLE, ID, REVISION), "no namespace"),
        (page(TITLE, NS, ID), "no revision"),
        (page(TITLE, NS, ID, "<revision><id>1</id></revision>"), "no text"),
        (with_text("<b>"), "not well-formed XML"),
        (with_text("<page>"), "not well-formed XML"),
        (with_text("&#1;"), "not well-formed XML"),
        (with_text("&#0;"), "not well-formed XML"),
        (with_text("&#xD800;"), "not well-formed XML"),
        (with_text("&#xFFFE;"), "not well-formed XML"),
        (with_text("a\0b"), "not well-formed XML"),
        (with_text("a\x01b"), "not well-formed XML"),
        (with_text("&nosuch;"), "not well-formed XML"),
        (with_text("&nbsp;"), "not well-formed XML"),
        (with_text("]]>"), "not well-formed XML"),
        (with_text("X").replace(b"X", b"\xff\xfe"), "not well-formed XML"),
        (with_text("X").replace(b"X", b"\xed\xa0\x80"), "not well-formed XML"),
        (with_text("<a>" * 100_000), "not well-formed XML"),
        (with_text("<a>" * 3_000 + "</a>" * 3_000), "not well-formed XML"),
        (page(TITLE, TITLE + "<ns>", ID), "not well-formed XML"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_page_that_cannot_be_read_has_one_reason(content, reason):
    """Each damage is counted under a reason, and never passes in silence."""
    with pytest.raises(RejectedPage, match=f"^{reason}$"):
        parse_page(content)


@pytest.mark.parametrize(
    "content",
    [
        page(TITLE, "<ns>abc</ns>", ID, REVISION),
        page(TITLE, "<ns/>", ID, REVISION),
        page(TITLE, "<ns>1.5</ns>", ID, REVISION),
        page(TITLE, NS, ID, REVISION.replace("<id>90</id>", "<id>abc</id>")),
        page(TITLE, NS, "<id>" + "9" * 30 + "</id>", REVISION),
        page(TITLE, NS, "<id>" + "9" * 5_000 + "</id>", REVISION),
        page(TITLE, NS, ID, REVISION.replace("<id>90</id>", "<id>" + "9" * 30 + "</id>")),
        page(TITLE, NS, ID, REVISION.replace("<id>90</id>", "<id>" + "9" * 5_000 + "</id>")),
    ],
    ids=[
        "word ns",
        "empty ns",
        "fraction ns",
        "word rev",
        "30-digit id",
        "5000-digit id",
        "30-digit rev",
        "5000-digit rev",
    ],
)
def test_a_number_that_is_none_rejects_the_page_alone(content):
    """An id or namespace that is no int64 ends in a reason, or is left out, but never in another exception."""
    try:
        parsed = parse_page(content)
    except RejectedPage:
        return
    assert parsed.page_id < 2**63 and (parsed.revision_id or 0) < 2**63


@pytest.mark.parametrize("inside", ["abc<!-- c -->def", "abc<b>x</b>def", "abc<?pi x?>def", "<!-- c -->abc"])
def test_text_is_never_cut_off_at_an_element_or_a_comment(inside):
    """Dumps escape all of these; where one is not escaped the page is rejected, or its text is whole."""
    try:
        text = parse_page(with_text(inside)).text
    except RejectedPage:
        return
    assert text in ("abcdef", "abcxdef", "abc")
    assert text.endswith("def") or "def" not in inside


def test_cdata_is_text():
    """A CDATA section is another way to write the same text."""
    assert parse_page(with_text("a<![CDATA[<b>&amp;]]>c")).text == "a<b>&amp;c"


def test_a_large_text_is_read():
    """A text node above lxml's usual limit of 10 MB passes; --max-page-bytes is the limit."""
    assert len(parse_page(with_text("x" * 12_000_000)).text) == 12_000_000


def test_no_doctype_is_read(tmp_path, monkeypatch):
    """Billion laughs, external entities and external DTDs end before a parser sees them, and open nothing."""

    def no_socket(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    canary = tmp_path / "canary.txt"
    canary.write_text("CANARY")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctypes = [
        f'<!DOCTYPE page [<!ENTITY l0 "ha">{laughs}]>',
        f'<!DOCTYPE page [<!ENTITY xxe SYSTEM "file://{canary}">]>',
        '<!DOCTYPE page SYSTEM "http://127.0.0.1:9/x.dtd">',
        f'<!DOCTYPE page [<!ENTITY % p SYSTEM "file://{canary}"> %p;]>',
    ]
    for doctype in doctypes:
        for content in (doctype.encode() + with_text("&xxe;&l9;"), with_text(doctype)):
            with pytest.raises(RejectedPage, match=r"^(DOCTYPE in a page)$"):
                parse_page(content)


def test_the_parser_itself_expands_no_external_entity(tmp_path):
    """Defence in depth: also where a DOCTYPE would reach the parser, the canary does not come out."""
    from lxml import etree

    canary = tmp_path / "canary.txt"
    canary.write_text("CANARY")
    document = f'<!DOCTYPE a [<!ENTITY xxe SYSTEM "file://{canary}">]><a>&xxe;</a>'.encode()
    root = etree.fromstring(document, hardened_parser())
    assert b"CANARY" not in etree.tostring(root) and root.text is None


def test_damage_of_any_byte_is_a_page_or_a_reason():
    """Random bytes put into a page never raise anything but RejectedPage."""
    rng = random.Random(5)
    whole = page(TITLE, NS, ID, REVISION)
    outcomes = {"page": 0, "rejected": 0}
    for _ in range(3_000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            parse_page(bytes(damaged))
            outcomes["page"] += 1
        except RejectedPage:
            outcomes["rejected"] += 1
    assert min(outcomes.values()) > 50, outcomes
