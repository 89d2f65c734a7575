"""Faults T1 to T6, J8 and X8 through the whole join: dumps and Wikidata as files, the entity table and anchors as rows."""

from __future__ import annotations

import bz2
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pytest

from leia_beam.cli import main
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import read_manifest
from leia_beam.siteinfo import siteinfo_from_json, wiki_with
from tests.build_files import rows_of

OLD, NEW = "MediaWiki 1.34.0-wmf.7", "MediaWiki 1.46.0-wmf.16"
Page = tuple[int, int, str, str]
"""(id, namespace, title, wikitext)"""


@dataclass(frozen=True)
class Join:
    """What became of a wiki: the entity table, links by their page and text, and the counters of each stage."""

    entities: dict[str, dict[str, Any]]
    links: dict[str, tuple[str | None, str | None]]
    """The text of an anchor → (name, reason)."""
    counters: dict[str, dict[str, int]]

    def name(self, title: str) -> str | None:
        """The name of a title."""
        found: str | None = self.entities[title]["name"]
        return found


def join(
    folder: Path,
    wiki: str,
    pages: list[Page],
    items: list[dict[str, Any]],
    *more: str,
    generator: str = NEW,
    case: str = "first-letter",
    namespaces: str = "",
) -> Join:
    """Dumps of the pages and items, through the stages `articles`, `sitelinks` and `entities`."""
    body = ""
    for page_id, namespace, title, text in pages:
        redirect = (
            f'<redirect title="{escape(text[11:].partition("]]")[0])}" />' if text.startswith("#REDIRECT") else ""
        )
        body += (
            f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{page_id}</id>{redirect}<revision>"
            f"<id>{page_id}</id><model>wikitext</model><text>{escape(text)}</text></revision></page>\n"
        )
    header = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11"><siteinfo>'
        f"<dbname>{wiki}</dbname><generator>{generator}</generator><case>{case}</case><namespaces>"
        f'<namespace key="0" case="{case}" />{namespaces}</namespaces></siteinfo>\n'
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pages.xml.bz2").write_bytes(bz2.compress((header + body + "</mediawiki>\n").encode()))
    lines = ",\n".join(json.dumps({"type": "item", "labels": {}, **item}) for item in items)
    (folder / "wikidata.json.bz2").write_bytes(bz2.compress(f"[\n{lines}\n]\n".encode()))
    out = ["--output", str(folder / "out"), "--quiet"]
    assert main(["articles", "--pages", str(folder / "pages.xml.bz2"), "--wiki", wiki, *out]) == 0
    assert main(["sitelinks", "--wikidata", str(folder / "wikidata.json.bz2"), *out]) == 0
    assert main(["entities", "--wiki", wiki, *out, *more]) == 0
    lookup = EntityLookup(str(folder / "out/entities"))
    facts = wiki_with(wiki, siteinfo_from_json(read_manifest(folder / "out/articles").options["siteinfo"]))
    links = {}
    for row in rows_of(folder / "out", "articles", "articles"):
        for anchor in row["anchors"]:
            linked = link_anchor(anchor, lookup, facts, ["enwiki"])
            links[row["text"][anchor["start_char"] : anchor["end_char"]]] = linked.name, linked.reason
    stages = ("articles", "sitelinks", "entities/_titles", "entities/_redirects", "entities")
    entities = {row["title"]: row for row in rows_of(folder / "out", "entities", "entities")}
    entities.pop("Hub", None)
    return Join(
        entities=entities,
        links=links,
        counters={stage: dict(read_manifest(folder / "out" / stage).counters) for stage in stages},
    )


def item(number: int, **sitelinks: str) -> dict[str, Any]:
    """An item with sitelinks {wiki: title}."""
    return {
        "id": f"Q{number}",
        "sitelinks": {site: {"site": site, "title": title, "badges": []} for site, title in sitelinks.items()},
    }


# ---- T1


def test_illegal_titles_are_set_aside_by_reason_and_cleaned_ones_join(tmp_path: Path) -> None:
    """Pages, sitelinks and links with tabs, controls, marks of direction and too many bytes; nothing splits a row."""
    pages = [
        (900, 0, "Hub", "x [[Tokyo|one]] [[A\u200eB|two]] [[A\u2028C|three]] [[A\u2066B|four]]"),
        (1, 0, "A\u202eB", "x"),
        (2, 0, "A\tB", "tab"),
        (3, 0, "A\x85B", "next line"),
        (4, 0, "あ" * 86, "long"),
        (5, 0, "A\u2028C", "line"),
        (6, 0, "A\u200bB", "zero width"),
        (7, 0, "A\u2066B", "isolate"),
    ]
    items = [
        item(1, simplewiki="A\u202aB", enwiki="AB"),
        item(2, simplewiki="A\u2067B", enwiki="isolate"),
        item(3, simplewiki="A C", enwiki="A C"),
        item(4, simplewiki="A\u200bB", enwiki="zero"),
        item(5, simplewiki="Tokyo", enwiki="To\u2066kyo"),
    ]
    found = join(tmp_path, "simplewiki", pages, items)
    assert {title: row["name"] for title, row in found.entities.items()} == {
        "AB": "AB",
        "A C": "A C",
        "A\u200bB": "zero",
        "Tokyo": None,
    }
    assert found.links == {
        "one": (None, "refused name: control or direction character"),
        "two": ("AB", None),
        "three": ("A C", None),
        "four": (None, "missing page"),
    }
    rejected = {name: n for name, n in found.counters["articles"].items() if "rejected" in name}
    assert rejected == {
        "pages/rejected/illegal title: control or direction character": 3,
        "pages/rejected/illegal title: over 255 bytes": 1,
    }


# ---- T2


GEORGIAN: list[Page] = [
    (
        900,
        0,
        "Hub",
        "x [[საქართველო|one]] [[თბილისი|two]] [[Თბილისი|three]] [[ӏаьржа|four]] [[ﬁ|five]] [[ßa|six]]",
    ),
    (1, 0, "საქართველო", "x"),
    (2, 0, "თბილისი", "x"),
    (3, 0, "Ӏаьржа", "x"),
    (4, 0, "Fi", "x"),
    (5, 0, "ßa", "x"),
]
GEORGIAN_ITEMS = [
    item(1, kawiki="საქართველო", enwiki="Georgia (country)"),
    item(2, kawiki="თბილისი", enwiki="Tbilisi"),
    item(3, kawiki="Ӏаьржа", enwiki="Black"),
    item(4, kawiki="Fi", enwiki="Fi"),
    item(5, kawiki="ßa", enwiki="Sharp s"),
]


@pytest.mark.parametrize(
    ("generator", "four", "five"),
    [(NEW, ("Black", None), ("Fi", None)), (OLD, (None, "missing page"), (None, "missing page"))],
)
def test_georgian_titles_keep_their_letters(
    tmp_path: Path, generator: str, four: tuple[str | None, str | None], five: tuple[str | None, str | None]
) -> None:
    """By the rule of the MediaWiki that wrote the dump; Mtavruli letters are other letters by both."""
    found = join(tmp_path, "kawiki", GEORGIAN, GEORGIAN_ITEMS, generator=generator)
    assert found.links == {
        "one": ("Georgia", None),
        "two": ("Tbilisi", None),
        "three": (None, "missing page"),
        "four": four,
        "five": five,
        "six": ("Sharp s", None),
    }


def test_a_case_sensitive_wiki_tells_its_titles_apart(tmp_path: Path) -> None:
    """Lower-case and capital pages, composed and decomposed letters."""
    pages = [
        (900, 0, "Hub", "x [[iPod|one]] [[IPod|two]] [[Cafe\u0301|three]] [[café|four]]"),
        (1, 0, "iPod", "x"),
        (2, 0, "IPod", "x"),
        (3, 0, "Café", "x"),
    ]
    items = [item(1, simplewiki="iPod", enwiki="IPod"), item(2, simplewiki="Cafe\u0301", enwiki="Café")]
    sensitive = join(tmp_path / "sensitive", "simplewiki", pages, items, case="case-sensitive")
    assert sensitive.links == {
        "one": ("IPod", None),
        "two": (None, "no item"),
        "three": ("Café", None),
        "four": (None, "missing page"),
    }
    usual = join(tmp_path / "usual", "simplewiki", pages[2:], items)
    assert usual.name("IPod") == "IPod" and "iPod" not in usual.entities


# ---- T3, T4


def test_redirects_of_every_kind(tmp_path: Path) -> None:
    """A chain, loops, itself, a section, another wiki, another namespace, a missing page; a link's own title first."""
    chain = [(100 + n, 0, f"C{n}", f"#REDIRECT [[C{n + 1}]]") for n in range(50)]
    redirects = [
        ("Self", "Self"),
        ("Ring 1", "Ring 2"),
        ("Ring 2", "Ring 1"),
        ("In", "Ring 1"),
        ("Sec", "Tokyo#History"),
        ("Wiki", ":fr:Tokyo"),
        ("Space", "Category:Tokyo"),
        ("Gone", "Nowhere"),
        ("Own", "Tokyo"),
    ]
    titles = [*(title for title, _ in redirects), "C0", "Tokyo#History", "Nowhere", "Plain"]
    pages = [
        (1, 0, "Tokyo", "x"),
        (900, 0, "Hub", "x " + " ".join(f"[[{title}|{title}!]]" for title in titles)),
        (2, 0, "Plain", "x"),
        (150, 0, "C50", "#REDIRECT [[Tokyo]]"),
        *chain,
        *((200 + n, 0, title, f"#REDIRECT [[{to}]]") for n, (title, to) in enumerate(redirects)),
    ]
    items = [item(1, simplewiki="Tokyo", enwiki="Tokyo"), item(2, simplewiki="Own", enwiki="Edo")]
    found = join(tmp_path, "simplewiki", pages, items, "--buckets", "3")
    assert found.links == {
        "Self!": (None, "loop"),
        "Ring 1!": (None, "loop"),
        "Ring 2!": (None, "loop"),
        "In!": (None, "loop"),
        "Sec!": (None, "section"),
        "Wiki!": (None, "other wiki"),
        "Space!": (None, "other namespace"),
        "Gone!": (None, "missing page"),
        "Own!": ("Edo", None),
        "C0!": ("Tokyo", None),
        "Tokyo#History!": (None, "section"),
        "Nowhere!": (None, "missing page"),
        "Plain!": (None, "no item"),
    }
    assert found.counters["entities/_redirects"] == {
        "redirects with an item of their own": 1,
        "redirects/read": 59,
        "redirects/emitted/resolved": 51,
        "redirects/emitted/loop": 4,
        "redirects/emitted/section": 1,
        "redirects/emitted/other wiki": 1,
        "redirects/emitted/other namespace": 1,
        "redirects/emitted/missing page": 1,
    }


def test_items_and_pages_that_do_not_meet_are_counted(tmp_path: Path) -> None:
    """A sitelink to a page that the dump does not have still names the title; a page without item has the reason."""
    pages = [(1, 0, "Here", "x [[Absent|one]]")]
    found = join(tmp_path, "simplewiki", pages, [item(1, simplewiki="Absent", enwiki="Somewhere")])
    assert found.links["one"] == ("Somewhere", None)
    assert found.counters["entities"] == {
        "titles/read": 2,
        "titles/emitted/named": 1,
        "titles/emitted/no item": 1,
        "titles without a page/named": 1,
    }


# ---- T5, T6


def test_sites_whose_names_are_no_language_codes(tmp_path: Path) -> None:
    """zh_min_nan and be_x_old are Wikipedias; commons, species, meta and wikidata are none."""
    pages = [(1, 0, "Tang-kiaⁿ", "x"), (900, 0, "Hub", "x [[Tang-kiaⁿ|one]] [[:zh-min-nan:Tang-kiaⁿ|two]]")]
    items = [
        item(1, zh_min_nanwiki="Tang-kiaⁿ", enwiki="Tokyo", be_x_oldwiki="Токіё", commonswiki="Tokyo", specieswiki="T"),
    ]
    found = join(tmp_path, "zh_min_nanwiki", pages, items)
    assert found.links == {"one": ("Tokyo", None), "two": ("Tokyo", None)}
    assert found.counters["sitelinks"]["sitelinks/emitted"] == 3


def test_an_unknown_wiki_is_an_error_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read."""
    assert main(["entities", "--wiki", "zh-min-nanwiki", "--output", str(tmp_path / "x")]) == 2
    assert "unknown wiki 'zh-min-nanwiki'; did you mean zh_min_nanwiki?" in capsys.readouterr().err


def test_a_colon_in_a_title_is_no_namespace(tmp_path: Path) -> None:
    """By `<ns>`; a link by the wiki's own names and aliases of namespaces."""
    namespace = '<namespace key="10" case="first-letter">Şablon</namespace>'
    pages = [
        (
            1,
            0,
            "Hub",
            "x [[2001: a Space Odyssey|one]] [[2001: A Space Odyssey|two]] [[:şablon:x|three]]",
        ),
        (2, 10, "Şablon:X", "x"),
        (3, 0, "2001: A Space Odyssey", "x"),
    ]
    items = [item(1, trwiki="2001: A Space Odyssey", enwiki="2001: A Space Odyssey (film)")]
    found = join(tmp_path, "trwiki", pages, items, namespaces=namespace)
    assert found.links["two"] == ("2001: A Space Odyssey", None)
    assert found.links["one"] == (None, "missing page")
    assert found.links["three"] == (None, "other namespace")


# ---- J8, X8


def test_items_that_stand_twice_and_pages_that_two_items_link(tmp_path: Path) -> None:
    """The lowest number is taken, whatever the order of the dump."""
    items = [
        item(100, simplewiki="Tokyo", enwiki="Hundred"),
        item(20, simplewiki="Tokyo", enwiki="Twenty"),
        item(20, simplewiki="Tokyo", enwiki="Twenty"),
        item(3, simplewiki="Osaka", enwiki="Three"),
        item(3, simplewiki="Kyoto", enwiki="Three again"),
    ]
    for name, ordered in (("one", items), ("other", items[::-1])):
        found = join(tmp_path / name, "simplewiki", [(1, 0, "Tokyo", "x")], ordered)
        assert {title: row["name"] for title, row in found.entities.items()} == {
            "Tokyo": "Twenty",
            "Osaka": "Three",
            "Kyoto": "Three again",
        }
        assert found.counters["entities/_titles"]["rows/filtered/duplicate item"] == 2


def test_pages_of_one_title_are_listed(tmp_path: Path) -> None:
    """The lowest id stays; the file and the row of the other one are written down."""
    pages = [(9, 0, "tokyo", "second [[Tokyo|a]]"), (4, 0, "Tokyo", "first [[Tokyo|b]]")]
    found = join(tmp_path, "simplewiki", pages, [item(1, simplewiki="Tokyo", enwiki="Tokyo")])
    assert found.entities["Tokyo"]["page_id"] == 4
    duplicates = rows_of(tmp_path / "out", "entities/_titles", "duplicates")
    assert duplicates == [
        {
            "table": "articles",
            "unit": 0,
            "row": 0,
            "page_id": 9,
            "title": "Tokyo",
            "kept_page_id": 4,
            "reason": "duplicate title",
        }
    ]
