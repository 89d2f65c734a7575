"""A real head of the Japanese dump with a real excerpt of Wikidata, where ../shared/data is there."""

from __future__ import annotations

import bz2
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from leia_beam.cli import main
from leia_beam.manifest import read_manifest
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
    assert 200 <= shards["anchors/emitted"] <= INDEPENDENT_LINKS


def test_no_anchor_is_named_that_the_raw_wikitext_does_not_link(build: Path, shared_data: Path) -> None:
    """Every named anchor's target stands as a link, or in an interlanguage template, in the page's own wikitext."""
    raw = bz2.decompress((shared_data / "jawiki-20190601-head.xml.bz2").read_bytes()).decode()
    linked = {re.sub("[ _]+", " ", target).strip() for target in re.findall(r"\[\[:?([^\[\]|#<>]+)", raw)}
    articles = {row["page_id"]: row for row in rows_of(build, "articles", "articles")}
    targets = {
        articles[row["page_id"]]["anchors"][ordinal]["target"]
        for row in rows_of(build, "shards", "train")
        for ordinal in row["entity_ordinals"]
    }
    assert 60 <= len(targets) <= INDEPENDENT_TITLES + 5
    assert targets <= linked | {target[:1].upper() + target[1:] for target in linked}


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
