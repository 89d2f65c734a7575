"""Faults in dumps, from bytes to manifest: exact, or set aside and counted, or a loud error with the place; never silent."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.commits import read_done_record, write_record
from leia_beam.coverage import STRICT, Tolerance
from leia_beam.dumps import find_dump
from leia_beam.errors import DamagedInput, LeiaError, TooManyRejects
from leia_beam.finish import MaxRejects, finish_stage
from leia_beam.manifest import Manifest
from leia_beam.plans import claim_folder
from leia_beam.ranges import RangeReport
from leia_beam.stage_articles import ArticlesStage, read_siteinfo
from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.units import RangeStage, chains, run_chain
from leia_beam.wikitext import ExtractionOptions
from tests.build_files import rows_of

HEADER = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n'
    "<siteinfo><dbname>enwiki</dbname><case>first-letter</case><namespaces>"
    '<namespace key="0" case="first-letter" /><namespace key="1" case="first-letter">Talk</namespace>'
    "</namespaces></siteinfo>\n"
)
END = "</mediawiki>\n"


def page(number: int, text: str | None = None, extra: str = "") -> str:
    """An article of some bytes that do not compress away."""
    text = text or f"[[Page {number + 1}]] " + hashlib.sha256(str(number).encode()).hexdigest() * 3
    return (
        f"<page><title>Page {number}</title><ns>0</ns><id>{number}</id>{extra}<revision><id>{1000 + number}</id>"
        f'<model>wikitext</model><text xml:space="preserve">{text}</text></revision></page>\n'
    )


PAGES = [page(number) for number in range(1, 61)]
DUMP = HEADER + "".join(PAGES) + END


@dataclass
class Outcome:
    """What a stage came to: a manifest, or the error that stopped it."""

    folder: Path
    manifest: Manifest | None
    error: LeiaError | None

    @property
    def ids(self) -> list[int]:
        """The ids of the pages that became articles."""
        return [row["page_id"] for row in rows_of(self.folder, "articles", "articles")]

    def rejects(self, stage: str) -> list[dict[str, object]]:
        """What was set aside."""
        files = sorted((self.folder / stage / "rejects").glob("*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run(stage: RangeStage, folder: Path, tolerance: Tolerance = STRICT, max_rejects: int = 3) -> Outcome:
    """Run a stage over a dump, unit by unit."""
    claim_folder(stage.storage, stage.folder, stage.plan, overwrite=False)
    for chain in chains(stage.units()):
        run_chain(stage, chain)
    try:
        manifest = finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=max_rejects), tolerance)
    except LeiaError as error:
        assert not (folder / stage.plan.stage / "_manifest.json").exists()
        return Outcome(folder, None, error)
    return Outcome(folder, manifest, None)


def articles_stage(path: Path, folder: Path, range_bytes: int = 700, **options: object) -> ArticlesStage:
    """The stage over one dump."""
    dump = find_dump(str(path))
    return ArticlesStage(
        folder=str(folder / "articles"),
        wiki_code="enwiki",
        dumps=(dump,),
        siteinfo=read_siteinfo(dump, "enwiki"),
        extraction=ExtractionOptions(),
        range_bytes=range_bytes,
        **{"max_page_bytes": 1 << 20, **options},  # type: ignore[arg-type]
    )


def articles(path: Path, folder: Path, range_bytes: int = 700, max_rejects: int = 3, **options: object) -> Outcome:
    """Run `articles`; `max_bad_blocks` and `salvage` count for the stage and for its finish."""
    stage = articles_stage(path, folder, range_bytes, **options)
    return run(stage, folder, Tolerance(max_bad_blocks=stage.max_bad_blocks, salvage=stage.salvage), max_rejects)


def multistream(text: str, pages_a_stream: int = 5) -> tuple[bytes, list[int]]:
    """Header, streams of some pages, the last page with the end; and the byte where each stream begins."""
    head, *pages = text.split("<page>")
    pages = [f"<page>{each}" for each in pages]
    last = pages.pop() if pages else ""
    parts = [head, *_joined(pages, pages_a_stream), last]
    streams = [bz2.compress(part.encode(), 1) for part in parts]
    begins = [sum(map(len, streams[:number])) for number in range(len(streams))]
    return b"".join(streams), begins


def _joined(pages: list[str], count: int) -> list[str]:
    return ["".join(pages[i : i + count]) for i in range(0, len(pages), count)]


def put(folder: Path, content: bytes, name: str = "enwiki-pages.xml.bz2") -> Path:
    """A dump file."""
    path = folder / name
    path.write_bytes(content)
    return path


ALL_IDS = list(range(1, 61))


# ---- the bytes of the file


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_dump_is_loud_and_can_be_salvaged(tmp_path: Path, share: float) -> None:
    """I1: file, byte, last whole page; with salvage all pages before the end, and a manifest that says so."""
    blob, begins = multistream(DUMP, pages_a_stream=2)
    size = int(len(blob) * share)
    path = put(tmp_path, blob[:size])
    whole_streams = sum(begin <= size for begin in begins) - 1
    wanted = ALL_IDS[: min(59, 2 * (whole_streams - 1))]
    failed = articles(path, tmp_path / "strict")
    assert isinstance(failed.error, DamagedInput) and 1 < len(wanted) < 60
    assert f"enwiki-pages.xml.bz2: ends early at byte {size:,}" in str(failed.error)
    assert f"; the last whole one is page id {wanted[-1]}" in str(failed.error)
    kept = articles(path, tmp_path / "salvaged", salvage=True)
    assert kept.ids == wanted and kept.manifest is not None
    assert f"ends early at byte {size:,}" in kept.manifest.details["partial"][0]
    assert kept.manifest.warnings[0] == kept.manifest.details["partial"][0]


def test_a_dump_without_its_last_streams_is_loud_and_can_be_salvaged(tmp_path: Path) -> None:
    """I2: whole bzip2, but no end tag."""
    blob, begins = multistream(DUMP)
    path = put(tmp_path, blob[: begins[7]])
    failed = articles(path, tmp_path / "strict")
    assert f"ends early at byte {begins[7]:,}: no </mediawiki> after its last record; download it again" in str(
        failed.error
    )
    assert str(failed.error).endswith("the last whole one is page id 30")
    kept = articles(path, tmp_path / "salvaged", salvage=True)
    assert kept.ids == ALL_IDS[:30] and kept.manifest is not None and kept.manifest.details["partial"]


@pytest.mark.parametrize("tail", [b"\0" * 3_000, b"<html>an error page</html>" * 90])
def test_what_stands_after_the_end_is_a_warning(tmp_path: Path, tail: bytes) -> None:
    """I3: the same files as without it, and one warning with the byte."""
    blob, _ = multistream(DUMP)
    found = articles(put(tmp_path, blob + tail), tmp_path)
    assert found.ids == ALL_IDS and found.manifest is not None
    assert (
        len(found.manifest.warnings) == 1
        and f"after the last stream at byte {len(blob):,}" in found.manifest.warnings[0]
    )


def test_a_damaged_block_is_loud_and_can_be_skipped(tmp_path: Path) -> None:
    """I4: the block's byte; with --max-bad-blocks only the pages that touch it are lost, and it is listed."""
    blob, begins = multistream(DUMP)
    damaged = bytearray(blob)
    damaged[(begins[4] + begins[5]) // 2] ^= 16
    path = put(tmp_path, bytes(damaged))
    block = begins[4] + 4
    failed = articles(path, tmp_path / "strict")
    assert f"damaged: the bzip2 block at byte {block:,} (bit {block * 8:,}) does not decode" in str(failed.error)
    kept = articles(path, tmp_path / "skipping", max_bad_blocks=1)
    # The fourth stream's pages, and what stands between the last `</page>` before it and the first one behind it.
    assert kept.ids == [number for number in ALL_IDS if not 16 <= number <= 21] and kept.manifest is not None
    assert f"the bzip2 block at bytes {block:,} to " in kept.manifest.warnings[0]
    assert [reject["byte"] for reject in kept.rejects("articles")] == [block]
    damaged[(begins[7] + begins[8]) // 2] ^= 16
    more = articles(put(tmp_path, bytes(damaged)), tmp_path / "more", max_bad_blocks=1)
    assert isinstance(more.error, DamagedInput) and "block" in str(more.error)


def test_units_that_skip_one_block_each_are_too_many_together(tmp_path: Path) -> None:
    """The limit holds for the dump, not for each unit."""
    blob, begins = multistream(DUMP)
    damaged = bytearray(blob)
    for stream in (3, 9):
        damaged[(begins[stream] + begins[stream + 1]) // 2] ^= 16
    path = put(tmp_path, bytes(damaged))
    failed = articles(path, tmp_path / "one", max_bad_blocks=1)
    assert "2 bzip2 blocks do not decode, more than --max-bad-blocks 1" in str(failed.error)
    assert len(articles(path, tmp_path / "two", max_bad_blocks=2).ids) == 60 - 12


def test_a_bomb_of_a_page_costs_that_page(tmp_path: Path) -> None:
    """I9: 200 MB of zeros in a page are counted by their size, and nothing beside them is touched."""
    middle = bz2.compress(b"<page><title>Bomb</title><ns>0</ns><id>99</id><revision><text>") + bz2.compress(
        b"0" * (200 << 20)
    )
    content = (
        bz2.compress((HEADER + PAGES[0]).encode())
        + middle
        + bz2.compress(("</text></revision></page>" + PAGES[1] + END).encode())
    )
    found = articles(put(tmp_path, content), tmp_path, range_bytes=1 << 20)
    assert found.ids == [1, 2] and found.manifest is not None
    assert found.manifest.counters["pages/rejected/over --max-page-bytes"] == 1
    assert [(reject["id"], reject["reason"]) for reject in found.rejects("articles")] == [
        ("page id 99", "over --max-page-bytes")
    ]


def test_a_dump_that_changes_while_it_is_read_is_loud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """I10: by its size or time at each open, and once more before the manifest is written."""
    path = put(tmp_path, multistream(DUMP)[0])
    stage = articles_stage(path, tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    claim_folder(stage.storage, stage.folder, stage.plan, overwrite=False)
    records = [record for chain in chains(stage.units()) for record in run_chain(stage, chain)]
    assert {record.status for record in records} == {"failed"} and "when the build began" in str(records[0].error)

    from pipelines import stage_runs as build_module

    def run_and_touch(*arguments: object) -> None:
        run_units(*arguments)
        path.write_bytes(path.read_bytes())

    run_units = build_module.run_units
    monkeypatch.setattr(build_module, "run_units", run_and_touch)
    arguments = ["articles", "--pages", str(path), "--wiki", "en", "--output", str(tmp_path / "late")]
    assert main(arguments) == 3
    assert "replaced since the build began" in capsys.readouterr().err
    assert not (tmp_path / "late/articles/_manifest.json").exists()


# ---- XML


def with_pages(*pages: str) -> str:
    """A dump of these pages between pages 1 and 2."""
    return HEADER + PAGES[0] + "".join(pages) + PAGES[1] + END


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (page(9, "a&#1;b"), "not well-formed XML"),
        (page(9, "a\ufffeb"), "not well-formed XML"),
        (page(9, "a\x0bb"), "not well-formed XML"),
        (page(9, "a<b>b"), "not well-formed XML"),
        (page(9, "a ]]> b"), "not well-formed XML"),
        (page(9, "&undefined;"), "not well-formed XML"),
        (page(9, "a").replace("<title>Page 9</title>", "<title/>"), "no title"),
        (page(9, "a").replace("<ns>0</ns>", ""), "no namespace"),
        (page(9, "a").replace("<id>9</id>", ""), "no id"),
        (page(9, "a").replace('<text xml:space="preserve">a</text>', ""), "no text"),
        (page(9, "<!-- a --><i>b</i>"), "mark-up inside text"),
        (page(9, "x" * (2 << 20)), "over --max-page-bytes"),
        (page(9, "<a>" * 3_000 + "</a>" * 3_000), "not well-formed XML"),
        (page(9).replace("</page>", ""), "page that does not end"),
    ],
    ids=lambda value: value if len(value) < 40 else "",
)
def test_a_damaged_page_costs_that_page(tmp_path: Path, damage: str, reason: str) -> None:
    """X1, X2, X4, X6: one reject with reason, byte and id; both neighbours are there."""
    content = with_pages(damage).encode()
    found = articles(put(tmp_path, content, "enwiki.xml"), tmp_path, range_bytes=max(700, len(content) // 30))
    assert found.error is None and found.ids == [1, 2]
    (reject,) = found.rejects("articles")
    assert reject["reason"] == reason and reject["id"] in ("page id 9", "page id 1009")
    assert reject["byte"] == (HEADER + PAGES[0]).index("</page>") + len("</page>")


@pytest.mark.parametrize("raw", [b"a\x00b", b"a\xffb", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_cost_their_page(tmp_path: Path, raw: bytes) -> None:
    """X1: NUL, invalid UTF-8, a lone surrogate."""
    content = with_pages(page(9, "MARK")).encode().replace(b"MARK", raw)
    found = articles(put(tmp_path, content, "enwiki.xml"), tmp_path)
    assert found.ids == [1, 2] and [reject["reason"] for reject in found.rejects("articles")] == ["not well-formed XML"]


def test_entity_bombs_and_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X3: no entity is expanded, no file or socket is opened; the page is set aside."""
    canary = tmp_path / "canary"
    canary.write_text("secret")
    import socket

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    doctype = f'<!DOCTYPE page [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file://{canary}">]>'
    damaged = page(9, doctype + "&b;&f;")
    outside = page(9).replace("<page>", f"{doctype}<page>")
    for number, pages in enumerate((damaged, outside)):
        found = articles(put(tmp_path, with_pages(pages).encode(), "enwiki.xml"), tmp_path / str(number))
        assert found.error is None and {1, 2} <= set(found.ids)
        texts = [row["text"] for row in rows_of(found.folder, "articles", "articles")]
        assert not any("secret" in text or "aaaa" in text for text in texts)


@pytest.mark.parametrize("version", ["0.3", "0.4", "0.5", "0.6", "0.10", "0.11", None])
def test_all_schemas_give_the_same_articles(tmp_path: Path, version: str | None) -> None:
    """X5: those without `<ns>` go by the title's prefix; a header without any namespace is read too."""
    text = with_pages(page(8).replace("<ns>0</ns>", "<ns>1</ns>").replace("Page 8<", "Talk:Page 8<"), page(9))
    uri = 'xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11"'
    assert uri in text
    text = text.replace(uri, f'xmlns="http://www.mediawiki.org/xml/export-{version}/"' if version else "")
    if version in ("0.3", "0.4", "0.5"):
        text = text.replace("<ns>0</ns>", "").replace("<ns>1</ns>", "").replace("<model>wikitext</model>", "")
    found = articles(put(tmp_path, text.encode(), "enwiki.xml"), tmp_path)
    assert found.ids == [1, 9, 2] and found.manifest is not None
    assert found.manifest.counters["pages/filtered/other namespace"] == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.replace("\n", "").encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("><", ">\n  <").encode(),
        lambda text: text.replace("<page>", '<page a="b">').encode(),
        lambda text: text.encode("utf-16"),
        lambda text: gzip.compress(text.encode("utf-16")),
        lambda text: bz2.compress(text.encode("utf-16")),
        lambda text: gzip.compress(text.encode()),
        lambda text: multistream(text)[0],
        lambda text: b"".join(bz2.compress(text[i : i + 999].encode(), 1 + i % 9) for i in range(0, len(text), 999)),
    ],
    ids=[
        "one line",
        "CRLF",
        "indented",
        "attributes",
        "UTF-16",
        "UTF-16 gz",
        "UTF-16 bz2",
        "gz",
        "multistream",
        "levels",
    ],
)
def test_the_form_of_the_file_changes_nothing(tmp_path: Path, write: Callable[[str], bytes]) -> None:
    """X7, I5: pages on one line, CRLF, white space, attributes, encodings and compressions give the same rows."""
    plain = articles(put(tmp_path, DUMP.encode(), "enwiki.xml"), tmp_path / "plain")
    other = articles(put(tmp_path, write(DUMP), "enwiki-other.xml"), tmp_path / "other")
    assert rows_of(other.folder, "articles", "articles") == rows_of(plain.folder, "articles", "articles")
    assert plain.ids == ALL_IDS and plain.manifest is not None
    assert len([file for file in plain.manifest.files if file.table == "articles"]) > 20


def test_of_several_revisions_the_newest_counts_and_other_content_is_filtered(tmp_path: Path) -> None:
    """X6: history dumps, deleted text, other content models, a wrong `bytes`."""
    older = "<revision><id>5</id><timestamp>2020-01-01T00:00:00Z</timestamp><text>old [[A]]</text></revision>"
    newer = "<revision><id>6</id><timestamp>2021-01-01T00:00:00Z</timestamp><text bytes='1'>new [[B]]</text></revision>"
    head = "<page><title>H</title><ns>0</ns><id>7</id>"
    deleted = page(8, "x").replace('<text xml:space="preserve">x</text>', '<text deleted="deleted" />')
    model = page(9).replace("<model>wikitext</model>", "<model>json</model>")
    text = with_pages(head + newer + older + "</page>", deleted, model)
    found = articles(put(tmp_path, text.encode(), "enwiki.xml"), tmp_path)
    assert found.ids == [1, 7, 2] and found.manifest is not None
    row = rows_of(found.folder, "articles", "articles")[1]
    assert (row["revision_id"], row["text"]) == (6, "new B")
    counters = found.manifest.counters
    assert (counters["pages/filtered/deleted text"], counters["pages/filtered/other content model"]) == (1, 1)
    assert counters["pages/read"] == 5


# ---- Wikidata


def line(number: int, **changes: object) -> str:
    """An item with one link."""
    links = {"enwiki": {"site": "enwiki", "title": f"Page {number}", "badges": []}}
    return json.dumps({"type": "item", "id": f"Q{number}", "labels": {}, "claims": {}, "sitelinks": links, **changes})


LINES = [line(number) for number in range(1, 201)]


def sitelinks(path: Path, folder: Path, range_bytes: int = 700, max_rejects: int = 3, **options: object) -> Outcome:
    """Run `sitelinks`."""
    stage = SitelinksStage(
        folder=str(folder / "sitelinks"),
        dumps=(find_dump(str(path)),),
        label_languages=("en",),
        range_bytes=range_bytes,
        **options,  # type: ignore[arg-type]
    )
    return run(stage, folder, Tolerance(max_bad_blocks=stage.max_bad_blocks, salvage=stage.salvage), max_rejects)


def qids(outcome: Outcome) -> list[str]:
    """The items' ids, in order."""
    return [row["qid"] for row in rows_of(outcome.folder, "sitelinks", "sitelinks")]


@pytest.mark.parametrize(
    "text",
    [
        "[\n" + ",\n".join(LINES) + "\n]\n",
        "[\n" + ",\n\n".join(LINES) + "\n\n]\n\n",
        "\ufeff[\r\n" + ",\r\n".join(LINES) + "\r\n]\r\n",
        "[\n" + "\n".join(LINES) + "\n]",
        "\n".join(LINES) + "\n]",
        "[" + ",\n".join(LINES) + "]",
        "[\n" + "\n,".join(LINES) + "\n]",
    ],
    ids=[
        "array",
        "blank lines",
        "BOM and CRLF",
        "no commas",
        "no opening bracket",
        "brackets beside items",
        "commas first",
    ],
)
@pytest.mark.parametrize(
    "compress", [str.encode, lambda text: bz2.compress(text.encode()), lambda text: gzip.compress(text.encode())]
)
def test_every_form_of_the_array_is_read(tmp_path: Path, text: str, compress: Callable[[str], bytes]) -> None:
    """J1: blank lines, BOM, CRLF, commas and brackets anywhere."""
    found = sitelinks(put(tmp_path, compress(text), "wikidata.json"), tmp_path)
    assert found.error is None and qids(found) == [f"Q{number}" for number in range(1, 201)]


@pytest.mark.parametrize(
    "text", ["[\n" + ",\n".join(LINES) + "\n", "[\n" + ",\n".join(LINES) + '\n{"a":[1]'], ids=["none", "inner"]
)
def test_an_array_that_does_not_end_is_loud(tmp_path: Path, text: str) -> None:
    """J1: the missing bracket is found, also where the last line is cut behind another one."""
    found = sitelinks(put(tmp_path, text.encode(), "wikidata.json"), tmp_path)
    assert f"wikidata.json: ends early at byte {len(text):,}: no ']' after its last record" in str(found.error)
    assert str(found.error).endswith("the last whole one is Q200")


def test_an_end_in_the_middle_of_the_array_is_not_its_end(tmp_path: Path) -> None:
    """A bracket that more items follow closes nothing, also where it and the items stand in different units."""
    text = "[\n" + "\n".join(LINES[:3]) + "\n]" + " " * 40 + "\n" + "\n".join(LINES[3:6]) + "\n"
    found = sitelinks(put(tmp_path, text.encode(), "wikidata.json"), tmp_path, range_bytes=20)
    assert "no ']' after its last record" in str(found.error)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (LINES[0][:-20], "malformed JSON"),
        (LINES[0].replace('"claims": {}', '"claims": {"P31": [}'), "malformed JSON"),
        (line(1, claims="\ud800", sitelinks={"enwiki": {"title": "\ud800"}}), "lone surrogate in title"),
        (line(1, sitelinks={"enwiki": {"title": None}}), "title is no text"),
        (line(1, sitelinks={"enwiki": {"title": "a\x01"}}), "control character in title"),
        (line(1, sitelinks=[{"site": "enwiki", "title": "x"}]), "sitelinks is no object"),
        ('{"id":"Q1","x":' + "[" * 100_000 + "]" * 100_000 + "}", "malformed JSON"),
        (line(1).replace('"claims": {}', '"claims": ' + "9" * 5_000), "malformed JSON"),
    ],
    ids=lambda value: "" if len(value) > 40 else value,
)
def test_a_damaged_line_costs_that_line(tmp_path: Path, bad: str, reason: str) -> None:
    """J2-J7: reason, byte of the line, id and its first 200 bytes; all other items are there."""
    text = "[\n" + ",\n".join([*LINES[:100], bad, *LINES[101:]]) + "\n]\n"
    found = sitelinks(put(tmp_path, text.encode(), "wikidata.json"), tmp_path, range_bytes=len(text) // 30)
    assert qids(found) == [f"Q{number}" for number in range(1, 201) if number != 101]
    (reject,) = found.rejects("sitelinks")
    assert (reject["reason"], reject["id"], reject["byte"]) == (
        reason,
        "Q1",
        len("[\n" + ",\n".join(LINES[:100]) + ",\n"),
    )
    assert str(reject["first_bytes"])[:20] == bad[:20] and len(str(reject["first_bytes"])) <= 200


def test_too_many_damaged_lines_are_loud(tmp_path: Path) -> None:
    """J2: over the limit the stage is refused with reasons and the first place."""
    text = "[\n" + ",\n".join([*LINES, *["{"] * 4]) + "\n]\n"
    found = sitelinks(put(tmp_path, text.encode(), "wikidata.json"), tmp_path)
    assert isinstance(found.error, TooManyRejects)
    assert f"4 of 204 lines rejected (malformed JSON 4); the first: wikidata.json byte {text.index('{,'):,}" in str(
        found.error
    )


def test_what_is_no_item_or_not_read_changes_nothing(tmp_path: Path) -> None:
    """J8-J10: properties, lexemes, unknown types, NaN and Infinity in fields that are not read, empty links."""
    odd = [
        line(1, type="property", id="P1"),
        line(1, type="lexeme", id="L1"),
        line(1, type="mediainfo", id="M1"),
        line(1, type="new thing"),
        line(901, claims=float("nan")),
        line(902, claims=float("-inf")),
        line(903, sitelinks=[]),
    ]
    text = "[\n" + ",\n".join([*odd, *LINES]) + "\n]\n"
    found = sitelinks(put(tmp_path, bz2.compress(text.encode()), "wikidata.json.bz2"), tmp_path)
    assert qids(found) == ["Q901", "Q902", *(f"Q{number}" for number in range(1, 201))] and found.manifest is not None
    filtered = {name: n for name, n in found.manifest.counters.items() if "filtered" in name}
    assert filtered == {
        "lines/filtered/type property": 1,
        "lines/filtered/type lexeme": 1,
        "lines/filtered/type mediainfo": 1,
        "lines/filtered/other type": 1,
        "lines/filtered/no link or label": 1,
    }


# ---- completeness


def test_a_commit_that_is_lost_or_made_with_other_cuts_is_noticed(tmp_path: Path) -> None:
    """A unit whose range was read with a shifted cut does not meet its neighbour; a missing one is missing."""
    blob = bz2.compress("".join(f"{hashlib.sha512(str(n).encode()).hexdigest()}\n" for n in range(9_000)).encode(), 1)
    text = bz2.decompress(blob).decode()
    lines = [line(n, claims=each) for n, each in enumerate(text.split()[:6_000], 1)]
    path = put(tmp_path, bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode(), 1), "wikidata.json.bz2")
    assert qids(sitelinks(path, tmp_path / "whole", 50_000)) == [f"Q{n}" for n in range(1, 6_001)]
    stage = SitelinksStage(
        folder=str(tmp_path / "whole/sitelinks"),
        dumps=(find_dump(str(path)),),
        label_languages=("en",),
        range_bytes=50_000,
    )
    units = stage.units()
    assert len(units) > 5

    def finish() -> Manifest:
        return finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))

    record_path = tmp_path / "whole/sitelinks/_done/00002.json"
    record_path.unlink()
    with pytest.raises(LeiaError, match=r"1 of .* units are not done"):
        finish()
    blocks = RangeReport()
    from leia_beam.dumps import DumpReader, ReadOptions

    with DumpReader(stage.dumps[0], b"\n", ReadOptions(max_record_bytes=1 << 20)) as reader:
        list(reader.records(0, stage.dumps[0].size_bytes, blocks))
    inside = [bit // 8 for bit, _ in blocks.block_crcs if units[2].start * 8 <= bit < units[2].end * 8]
    for shifted in (replace(units[2], start=inside[0] + 1), replace(units[2], end=inside[-1])):
        run_chain(stage, [shifted])
        with pytest.raises(DamagedInput, match=r"unit \d ends at .* but unit \d begins at|has another checksum"):
            finish()
        record_path.unlink()
    run_chain(stage, [units[2]])
    assert finish() == finish()


def test_a_block_that_no_unit_or_two_units_read_is_noticed_by_the_stream_checksum(tmp_path: Path) -> None:
    """Places that meet are not enough: the blocks' checksums, folded over the units, must give the stream's."""
    lines = [line(n, claims=hashlib.sha512(str(n).encode()).hexdigest()) for n in range(1, 6_001)]
    path = put(tmp_path, bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode(), 1), "wikidata.json.bz2")
    stage = SitelinksStage(
        folder=str(tmp_path / "sitelinks"), dumps=(find_dump(str(path)),), label_languages=("en",), range_bytes=50_000
    )
    assert run(stage, tmp_path).error is None
    fingerprint = stage.plan.fingerprint
    shutil.copytree(tmp_path / "sitelinks", tmp_path / "kept")
    for number in range(len(stage.units())):
        record = read_done_record(stage.storage, stage.folder, number, fingerprint)
        assert record is not None and record.stream_check is not None
        check = record.stream_check
        for changed in (
            replace(check, head_crc=check.head_crc ^ 1 << number),
            replace(check, head_blocks=check.head_blocks + 1),
        ):
            write_record(stage.storage, stage.folder, replace(record, stream_check=changed))
            if changed.head_blocks != check.head_blocks and number == 0:
                continue  # before the first unit there is nothing that a rotation would change
            with pytest.raises(DamagedInput, match="has another checksum than the blocks that were read"):
                finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))
        write_record(stage.storage, stage.folder, record)
    finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))


def test_a_sequential_dump_goes_on_behind_what_is_done(tmp_path: Path) -> None:
    """A gzip dump of several units: a lost record costs that unit alone, and the files are the same bytes as before."""
    lines = [line(n, claims=hashlib.sha512(str(n).encode()).hexdigest()) for n in range(1, 20_001)]
    path = put(tmp_path, gzip.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode(), 6), "wikidata.json.gz")
    stage = SitelinksStage(
        folder=str(tmp_path / "sitelinks"), dumps=(find_dump(str(path)),), label_languages=("en",), range_bytes=1
    )
    units = stage.units()
    assert len(units) > 4 and chains(units) == [tuple(units)]
    first = run(stage, tmp_path)
    assert qids(first) == [f"Q{n}" for n in range(1, 20_001)]
    before = {path.name: path.read_bytes() for path in (tmp_path / "sitelinks").rglob("*.*")}
    for number in (1, 3):
        (tmp_path / f"sitelinks/_done/{number:05d}.json").unlink()
        next((tmp_path / "sitelinks/data").glob(f"sitelinks-{number:05d}-*")).unlink()
    (tmp_path / "sitelinks/_manifest.json").unlink()
    assert run(stage, tmp_path).manifest == first.manifest
    assert {path.name: path.read_bytes() for path in (tmp_path / "sitelinks").rglob("*.*")} == before
    run_chain(stage, [units[3]])  # done: nothing is read again
    rows = [record.counters.get("lines/read", 0) for record in run_chain(stage, units)]
    assert sum(rows) == 20_000 and all(rows)


# ---- options of the command line


def test_inputs_are_verified_against_the_sums_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I11: the sum is recorded in the manifest; a wrong one, or none, is an error before anything is built."""
    blob, _ = multistream(DUMP)
    path = put(tmp_path, blob, "enwiki-20260101-pages.xml.bz2")
    arguments = ["articles", "--pages", str(path), "--wiki", "en", "--output", str(tmp_path / "out"), "--verify-inputs"]
    assert main(arguments) == 2
    assert "no list of sums in " in capsys.readouterr().err and not (tmp_path / "out").exists()
    sums = tmp_path / "enwiki-20260101-sha1sums.txt"
    sums.write_text(f"{'0' * 40}  other.bz2\n{'1' * 40}  {path.name}\n")
    assert main(arguments) == 3
    assert f"SHA1 is {hashlib.sha1(blob).hexdigest()}, the list of sums beside it says 111" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    sums.write_text(f"{hashlib.sha1(blob).hexdigest()}  {path.name}\n")
    assert main(arguments) == 0
    assert "once more for its sha1" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "out/articles/_manifest.json").read_text())
    assert manifest["details"]["verified_sums"] == {path.name: f"sha1:{hashlib.sha1(blob).hexdigest()}"}


def test_dump_files_are_found_by_wildcards_and_each_must_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several files in the order of their names; a pattern that means none is an error; each has its own end."""
    for number in (1, 2):
        put(
            tmp_path,
            multistream(HEADER + "".join(PAGES[number * 20 - 20 : number * 20]) + END)[0],
            f"en-{number}.xml.bz2",
        )
    arguments = ["articles", "--pages", str(tmp_path / "en-*.bz2"), "--wiki", "en", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert [row["page_id"] for row in rows_of(tmp_path / "out", "articles", "articles")] == ALL_IDS[:40]
    capsys.readouterr()
    assert main([*arguments[:2], str(tmp_path / "no-*.bz2"), *arguments[3:]]) == 2
    assert "no-*.bz2: no file has such a name" in capsys.readouterr().err


def test_the_command_line_salvages_and_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command with the option goes on from where the strict one failed."""
    blob, begins = multistream(DUMP)
    path = put(tmp_path, blob[: begins[6] + 30])
    arguments = [
        "articles",
        "--pages",
        str(path),
        "--wiki",
        "en",
        "--output",
        str(tmp_path / "out"),
        "--range-bytes",
        "700",
    ]
    assert main(arguments) == 3
    assert "--salvage" in capsys.readouterr().err
    assert main([*arguments, "--salvage"]) == 0
    assert "warning: " in capsys.readouterr().err
    assert [row["page_id"] for row in rows_of(tmp_path / "out", "articles", "articles")] == ALL_IDS[:25]
