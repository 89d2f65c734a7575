"""A real head of the Japanese dump with a real excerpt of Wikidata, where ../shared/data is there."""

from __future__ import annotations

import bz2
import json
import re
from pathlib import Path

import pytest
from lxml import etree
from tokenizers import Tokenizer

from leia_beam.cli import main
from leia_beam.linking import link_anchor
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import read_manifest
from leia_beam.wikis import load_wiki
from tests.build_files import rows_of

INDEPENDENT_LINKS, INDEPENDENT_TITLES = 284, 100
"""Links, and distinct titles, with an English sitelink: counted over the raw wikitext, tables and templates included."""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with Mistral's tokenizer."""
    from tests.conftest import SHARED_DATA

    if not SHARED_DATA.is_dir():
        pytest.skip("the real dumps of ../shared/data are not here")
    output = tmp_path_factory.mktemp("real") / "ja"
    arguments = [
        *("--pages", str(SHARED_DATA / "jawiki-20190601-head.xml.bz2")),
        *("--wikidata", str(SHARED_DATA / "wikidata-2014-excerpt.json.bz2")),
        *("--tokenizer", str(SHARED_DATA / "tokenizers/mistral-7b-v0.1")),
    ]
    assert main(["build", *arguments, "--wiki", "jawiki", "--output", str(output)]) == 0
    return output


def test_forty_articles_and_names_for_a_few_hundred_links(build: Path) -> None:
    """50 pages give 40 articles; running text alone holds most of the 284 links that have an English sitelink."""
    articles, shards = read_manifest(build / "articles").counters, read_manifest(build / "shards").counters
    assert (articles["pages/read"], articles["pages/emitted/article"]) == (50, 40)
    assert articles["pages/filtered/other namespace"] == 8 and articles["pages/emitted/redirect"] == 2
    assert shards["articles/emitted"] == 40
    names = [source for row in rows_of(build, "shards", "train") for source in row["entity_name_sources"]]
    by_sitelink = sum(source != "interlanguage template" for source in names)
    assert 150 <= by_sitelink <= INDEPENDENT_LINKS and len(names) == shards["anchors/emitted"]


def test_no_anchor_is_named_that_the_raw_wikitext_does_not_link(build: Path, shared_data: Path) -> None:
    """A named anchor's target stands as a link in the wikitext, or is an interlanguage template's own title."""
    raw = bz2.decompress((shared_data / "jawiki-20190601-head.xml.bz2").read_bytes()).decode()
    linked = {re.sub("[ _]+", " ", target).strip() for target in re.findall(r"\[\[:?([^\[\]|#<>]+)", raw)}
    articles = {row["page_id"]: row for row in rows_of(build, "articles", "articles")}
    by_sitelink, by_template = set(), set()
    for row in rows_of(build, "shards", "train"):
        for ordinal, source in zip(row["entity_ordinals"], row["entity_name_sources"], strict=True):
            targets = by_template if source == "interlanguage template" else by_sitelink
            targets.add(articles[row["page_id"]]["anchors"][ordinal]["target"])
    assert 60 <= len(by_sitelink) <= INDEPENDENT_TITLES and len(by_template) >= 10
    assert by_sitelink <= linked | {target[:1].upper() + target[1:] for target in linked}
    assert all("{{仮リンク" in raw and target in raw for target in by_template)


def test_names_stand_at_their_anchors_in_mistral_tokens(build: Path) -> None:
    """The tokens before an insertion decode to the anchor's text, and names have word-initial pieces."""
    tokenizer = Tokenizer.from_file(str(build / "shards/tokenizer/tokenizer.json"))
    articles = {row["page_id"]: row for row in rows_of(build, "articles", "articles")}
    exact = 0
    for row in rows_of(build, "shards", "train"):
        article = articles[row["page_id"]]
        assert row["input_ids"][0] == 1
        for at, ordinal in enumerate(row["entity_ordinals"]):
            first = tokenizer.id_to_token(row["alternative_entity_input_ids"][at][0])
            assert first.startswith("▁")
            if row["entity_edges"][at] != "exact":
                continue
            anchor = article["anchors"][ordinal]
            tokens = row["input_ids"][row["entity_start_positions"][at] : row["entity_end_positions"][at]]
            shown = tokenizer.decode(tokens)
            assert shown.strip() == article["text"][anchor["start_char"] : anchor["end_char"]].strip()
            exact += 1
    assert exact >= 150


def test_nearly_all_links_are_named_when_every_block_is_kept(tmp_path: Path, shared_data: Path) -> None:
    """With tables, captions and end matter kept, what is missing of the 284 links stands in references and templates."""
    arguments = [
        *("--pages", str(shared_data / "jawiki-20190601-head.xml.bz2")),
        *("--wikidata", str(shared_data / "wikidata-2014-excerpt.json.bz2")),
        *("--tokenizer", str(shared_data / "tokenizers/qwen3")),
        *("--tables", "--captions", "--end-matter"),
    ]
    assert main(["build", *arguments, "--wiki", "jawiki", "--output", str(tmp_path / "ja")]) == 0
    rows = rows_of(tmp_path / "ja", "shards", "train")
    names = [source for row in rows for source in row["entity_name_sources"]]
    by_sitelink = sum(source != "interlanguage template" for source in names)
    assert 0.8 * INDEPENDENT_LINKS <= by_sitelink <= INDEPENDENT_LINKS
    tokenizer = Tokenizer.from_file(str(tmp_path / "ja/shards/tokenizer/tokenizer.json"))
    firsts = [tokenizer.id_to_token(ids[0]) for row in rows for ids in row["alternative_entity_input_ids"]]
    assert all(token.startswith("Ġ") for token in firsts) and len(firsts) == len(names)


# ---- the join, against an independent reader of the same files


def independent_names(shared_data: Path, wiki: str, dump: str) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """(title → Japanese or English title, redirect → its link as written, titles of pages), read as plainly as can be."""
    root = etree.fromstring(bz2.decompress((shared_data / dump).read_bytes()))
    names, redirects, titles = {}, {}, set()
    for page in root.iter("{*}page"):
        title = page.findtext("{*}title")
        if page.findtext("{*}ns") != "0":
            continue
        titles.add(title)
        if page.find("{*}redirect") is not None:
            text = page.findtext("{*}revision/{*}text")
            redirects[title] = re.search(r"\[\[([^\]|]+)", text)[1]
    other = "enwiki" if wiki != "enwiki" else "dewiki"
    for line in bz2.decompress((shared_data / "wikidata-2014-excerpt.json.bz2").read_bytes()).decode().splitlines():
        entity = json.loads(line.rstrip(",")) if line.startswith("{") else {}
        links = entity.get("sitelinks") or {}
        if wiki in links:
            names[links[wiki]["title"]] = links[other]["title"] if other in links else ""
    return names, redirects, titles


@pytest.mark.parametrize(
    ("wiki", "language", "dump", "least"),
    [
        ("enwiki", "de", "enwiki-p10p30302-excerpt.xml.bz2", 250),
        ("jawiki", "en", "jawiki-20190601-head.xml.bz2", 150),
    ],
)
def test_every_link_is_named_or_not_as_an_independent_reader_finds(
    shared_data: Path, tmp_path: Path, wiki: str, language: str, dump: str, least: int
) -> None:
    """For each anchor: a name exactly where its own title, or one that its redirects reach, has a sitelink."""
    names, redirects, titles = independent_names(shared_data, wiki, dump)
    output = ["--output", str(tmp_path), "--quiet"]
    wikidata = str(shared_data / "wikidata-2014-excerpt.json.bz2")
    assert main(["articles", "--pages", str(shared_data / dump), "--wiki", wiki, *output]) == 0
    assert main(["sitelinks", "--wikidata", wikidata, "--label-languages", language, "--claims", "none", *output]) == 0
    assert main(["entities", "--wiki", wiki, "--name-languages", language, "--no-label-case", *output]) == 0
    lookup, facts = EntityLookup(str(tmp_path / "entities")), load_wiki(wiki)
    named = missing = 0
    for row in rows_of(tmp_path, "articles", "articles"):
        for anchor in row["anchors"]:
            if anchor["kind"] != "link" or ":" in anchor["target"] or not anchor["target"]:
                continue
            found = link_anchor(anchor, lookup, facts, [f"{language}wiki"])
            title, seen = anchor["target"], set()
            while title not in names and title in redirects and title not in seen and "#" not in redirects[title]:
                seen.add(title)
                title = redirects[title].replace("_", " ").strip()
                title = title[:1].upper() + title[1:]
            in_section = bool(anchor["fragment"]) or (title not in names and "#" in redirects.get(title, ""))
            expected = None if in_section else names.get(title) or None
            cleaned = re.sub(r"(?<=\S) +\([^()]*\)$", "", expected) if expected else None
            prefixed = expected is not None and ":" in expected
            assert found.name == cleaned or prefixed, (anchor, found, expected)
            named += found.name is not None
            if title not in titles and title not in names and not in_section:
                assert found.reason == "missing page", (anchor, found)
                missing += 1
    assert named >= least and missing > 1_000, (named, missing)
