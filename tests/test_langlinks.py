"""Names from a wiki's own langlinks table: the same entity table as from Wikidata, without items."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from leia_beam.cli import main
from leia_beam.entity_names import LABEL_CASE, NO_ITEM, NO_SITELINK, REFUSED_NAME
from leia_beam.manifest import read_manifest
from leia_beam.wikis import wiki_code, wikipedia_codes
from tests.build_files import kept_files, rows_of
from tests.conftest import Sample
from tests.local_mirror import LANGLINKS_TABLE

HEAD = f"""-- MySQL dump 10.19  Distrib 10.3.38-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: db1234    Database: jawiki
-- ------------------------------------------------------
{LANGLINKS_TABLE}/*!40000 ALTER TABLE `langlinks` DISABLE KEYS */;
"""
TAIL = """/*!40000 ALTER TABLE `langlinks` ENABLE KEYS */;
-- Dump completed on 2026-01-01  1:02:03
"""
Link = tuple[int, str, str]


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def sql(links: Iterable[Link], rows_a_statement: int = 100, newline: str = "") -> bytes:
    """A dump of the table: some rows a statement, by `newline` a row a line."""
    rows = [f"({page_id},{quoted(language)},{quoted(title)})" for page_id, language, title in links]
    statements = [
        f"INSERT INTO `langlinks` VALUES {newline}" + f",{newline}".join(rows[first : first + rows_a_statement]) + ";\n"
        for first in range(0, len(rows), rows_a_statement)
    ]
    return (HEAD + "".join(statements) + TAIL).encode()


@pytest.fixture(scope="module")
def wikidata_build(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the Japanese sample from Wikidata."""
    output = tmp_path_factory.mktemp("wikidata") / "ja"
    assert main(sample.build_arguments("jawiki", output)) == 0
    return output


@pytest.fixture(scope="module")
def links(sample: Sample, wikidata_build: Path) -> list[Link]:
    """What the table would hold of the sample's Wikidata, by page id."""
    page_ids = {
        row["title"]: row["page_id"] for row in rows_of(wikidata_build, "entities", "entities") if row["page_id"]
    }
    found = []
    for line in bz2.decompress(Path(sample.wikidata).read_bytes()).decode().splitlines():
        entity = json.loads(line.strip("[],") or "{}")
        sitelinks = entity.get("sitelinks") or {}
        title = sitelinks.get("jawiki", {}).get("title")
        if title in page_ids:
            for site, link in sitelinks.items():
                if site in wikipedia_codes() and site != "jawiki":
                    found.append((page_ids[title], site.removesuffix("wiki").replace("_", "-"), link["title"]))
    assert {wiki_code(language) for _, language, _ in found} >= {"enwiki", "dewiki"}
    return sorted(set(found))


def build(sample: Sample, output: Path, table: Path, *more: str) -> int:
    arguments = sample.build_arguments("jawiki", output)
    at = arguments.index("--wikidata")
    arguments[at : at + 2] = ["--sitelinks-from", "langlinks", "--langlinks", str(table)]
    return main([*arguments, "--quiet", *more])


def entity_table(output: Path) -> dict[str, tuple[str | None, str | None]]:
    """Title → (name, reason)."""
    return {row["title"]: (row["name"], row["reason"]) for row in rows_of(output, "entities", "entities")}


def test_the_names_are_those_of_wikidata(
    sample: Sample, wikidata_build: Path, links: list[Link], tmp_path: Path
) -> None:
    """But for what only items can say: labels' case, types, and titles without a page in the dump."""
    table = tmp_path / "jawiki-20260101-langlinks.sql.gz"
    table.write_bytes(gzip.compress(sql(links)))
    assert build(sample, tmp_path / "out", table) == 0
    expected, found = entity_table(wikidata_build), entity_table(tmp_path / "out")
    same = differing = 0
    for title, (name, reason) in found.items():
        if expected[title] == (name, reason):
            same += name is not None
            continue
        differing += 1
        other_name, other_reason = expected[title]
        by_case = name is not None and other_name is not None and name.casefold() == other_name.casefold()
        by_type = other_reason is not None and other_reason.startswith(REFUSED_NAME)
        assert by_case or by_type or (other_reason, reason) == (NO_ITEM, NO_SITELINK), title
    assert same > 60 and differing < 25
    rows = rows_of(tmp_path / "out", "entities", "entities")
    assert {row["qid"] for row in rows} == {None}
    lone = {row["title"] for row in rows_of(wikidata_build, "entities", "entities") if row["page_id"] is None}
    assert set(expected) - set(found) <= lone
    named = [name for row in rows_of(tmp_path / "out", "shards", "train") for name in row["entity_name_sources"]]
    assert len(named) > 700 and LABEL_CASE not in named


@pytest.mark.parametrize("newline", ["", "\n"])
def test_the_form_of_the_dump_changes_nothing(sample: Sample, links: list[Link], tmp_path: Path, newline: str) -> None:
    """Plain or compressed, many ranges or one, statements on a line or a row a line: the same rows."""
    plain, packed = tmp_path / "a.sql", tmp_path / "a.sql.gz"
    plain.write_bytes(sql(links, 7, newline))
    packed.write_bytes(gzip.compress(sql(links, 1000, newline)))
    rows = []
    for number, (table, size) in enumerate([(plain, "1000"), (packed, "1000"), (packed, "48MiB")]):
        output = tmp_path / str(number)
        common = ["--wiki", "ja", "--output", str(output), "--quiet"]
        assert main(["langlinks", "--langlinks", str(table), "--range-bytes", size, *common]) == 0
        rows.append(rows_of(output, "langlinks", "langlinks"))
    assert rows[0] == rows[1] == rows[2]
    assert [(row["page_id"], row["language"], row["title"]) for row in rows[0]] == [
        (page_id, language, title.replace("_", " ")) for page_id, language, title in links
    ]
    assert read_manifest(tmp_path / "0" / "langlinks").counters["links/read"] == len(links)


def test_a_table_that_is_cut_is_an_error(links: list[Link], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it is cut, plain or compressed: exit code 3 with the file, and nothing published."""
    whole = sql(links, 20)
    contents = {f"plain-{share}.sql": whole[: int(len(whole) * share)] for share in (0.3, 0.5, 0.9, 0.995)}
    contents |= {"packed.sql.gz": gzip.compress(whole)[:-200]}
    contents["between.sql"] = whole[: whole.index(b";\nINSERT", len(whole) // 2) + 2]
    for name, content in contents.items():
        table, output = tmp_path / name, tmp_path / f"out-{name}"
        table.write_bytes(content)
        code = main(["langlinks", "--langlinks", str(table), "--wiki", "ja", "--output", str(output), "--quiet"])
        error = capsys.readouterr().err
        assert code == 3 and name in error, (name, error)
        assert not (output / "langlinks/_manifest.json").exists()


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (sql([(1, "en", "A")]).replace(b"`langlinks`", b"`page`"), 2, "the table 'page', not langlinks"),
        (sql([(1, "en", "A")]).replace(b"jawiki", b"dewiki"), 2, "the table of dewiki, not of jawiki"),
        (b"<html>not found</html>", 3, "perhaps an error page"),
        (sql([(1, "en", "A")]).replace(b"(1,'en','A')", b"(1,'en')"), 3, "a row of 2 values"),
        (sql([(1, "en", "A")]).replace(b"(1,'en','A')", b"('1','en','A')"), 3, "a row of other types"),
        (sql([(1, "en", "A")]).replace(b"'A'", b"x"), 3, "damaged SQL at byte"),
        (sql([]), 3, "no links/emitted"),
    ],
)
def test_what_is_no_such_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, code: int, message: str
) -> None:
    """Another table, another wiki, an error page, damaged rows, none at all."""
    (tmp_path / "x.sql").write_bytes(content)
    arguments = ["langlinks", "--langlinks", str(tmp_path / "x.sql"), "--wiki", "ja", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--quiet"]) == code
    error = capsys.readouterr().err
    assert message in error, error


def test_a_title_that_is_no_text_is_set_aside(tmp_path: Path) -> None:
    """The database cuts titles at 255 bytes, within a letter too; an empty one is no link. Both are counted."""
    content = sql([(1, "en", "A"), (2, "en", "B"), (3, "en", "")]).replace(b"'B'", b"'B\xe6\x9d'")
    (tmp_path / "x.sql").write_bytes(content)
    arguments = ["langlinks", "--langlinks", str(tmp_path / "x.sql"), "--wiki", "ja", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--quiet"]) == 0
    assert [row["page_id"] for row in rows_of(tmp_path / "out", "langlinks", "langlinks")] == [1]
    assert read_manifest(tmp_path / "out/langlinks").counters == {
        "links/read": 3,
        "links/emitted": 1,
        "links/filtered/no title": 1,
        "links/rejected/no UTF-8": 1,
    }


def test_a_finished_table_is_taken_and_gives_the_same_bytes(sample: Sample, links: list[Link], tmp_path: Path) -> None:
    """Given by its folder; two processes write what one writes."""
    table = tmp_path / "jawiki-20260101-langlinks.sql.gz"
    table.write_bytes(gzip.compress(sql(links)))
    assert build(sample, tmp_path / "one", table, "--workers", "1", "--buckets", "4") == 0
    assert build(sample, tmp_path / "two", tmp_path / "one/langlinks", "--workers", "2", "--buckets", "4") == 0
    one, two = kept_files(tmp_path / "one"), kept_files(tmp_path / "two")
    assert {path: digest for path, digest in one.items() if not path.startswith("langlinks/")} == two


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sitelinks-from", "langlinks"], "give the wiki's …-langlinks.sql.gz with --langlinks"),
        (["--sitelinks-from", "langlinks", "--langlinks", "x", "--wikidata", "y"], "give one of both"),
        (["--langlinks", "x", "--wikidata", "y"], "add --sitelinks-from langlinks"),
        ([], "required: --wikidata"),
    ],
)
def test_the_two_sources_are_not_mixed(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    """One line that says what to give."""
    arguments = sample.build_arguments("jawiki", tmp_path / "out")
    at = arguments.index("--wikidata")
    arguments[at : at + 2] = more
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
