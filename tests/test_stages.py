"""Each stage's function on a wiki of seven pages: whole tables compared, row for row and column for column."""

from __future__ import annotations

import bz2
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from leia_beam.dumps import find_dump
from leia_beam.finish import MaxRejects, finish_stage
from leia_beam.manifest import Manifest
from leia_beam.plans import claim_folder
from leia_beam.siteinfo import SiteInfo
from leia_beam.stage_articles import ArticlesStage, read_siteinfo
from leia_beam.stage_entities import EntitiesStage
from leia_beam.stage_redirects import RedirectsStage
from leia_beam.stage_shards import ShardsStage
from leia_beam.stage_sitelinks import SitelinksStage
from leia_beam.stage_titles import TitlesStage
from leia_beam.tokenizer_identity import find_tokenizer
from leia_beam.units import RangeStage, Stage, run_chain
from leia_beam.wikitext import ExtractionOptions
from tests.build_files import rows_of

HEADER = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
<siteinfo><dbname>simplewiki</dbname><case>first-letter</case><namespaces><namespace key="0" case="first-letter" />
<namespace key="10" case="first-letter">Template</namespace></namespaces></siteinfo>
"""

PAGES = [
    (1, 0, "Cat", None, "A '''cat''' is an [[animal]]; a [[dog]]s' friend in [[Old Egypt|Egypt]], not [[Atlantis]]."),
    (2, 0, "Animal", None, "An animal lives. See [[Cat#Food|food]] and [[:Category:Life]]."),
    (3, 0, "Old Egypt", "Ancient Egypt", "#REDIRECT [[Ancient Egypt]]"),
    (4, 0, "Ancient Egypt", "Egypt", "#REDIRECT [[Egypt]] {{R}}"),
    (5, 0, "Egypt", None, "Egypt has no links."),
    (6, 10, "Template:R", None, "x"),
    (7, 0, "Dog", "Dog", "#REDIRECT [[Dog]]"),
]

ITEMS: list[dict[str, Any]] = [
    {
        "type": "item",
        "id": "Q79",
        "labels": {"de": {"language": "de", "value": "Ägypten"}},
        "sitelinks": ["simplewiki:Egypt", "dewiki:Ägypten"],
    },
    {
        "type": "item",
        "id": "Q729",
        "labels": {"de": {"language": "de", "value": "tiere"}},
        "sitelinks": ["simplewiki:Animal", "dewiki:Tiere (Biologie)", "commonswiki:Animalia"],
    },
    {"type": "item", "id": "Q146", "labels": {}, "sitelinks": ["simplewiki:Cat"]},
    {"type": "property", "id": "P31", "labels": {}, "sitelinks": []},
    {"type": "item", "id": "Q144", "labels": {}, "sitelinks": ["simplewiki:Dog", "dewiki:Hund"]},
]


def _dumps(folder: Path) -> tuple[str, str]:
    """The two dump files."""
    pages = "".join(
        f"<page><title>{title}</title><ns>{ns}</ns><id>{page_id}</id>"
        + (f'<redirect title="{redirect}" />' if redirect else "")
        + f"<revision><id>{100 + page_id}</id><model>wikitext</model><text>{text}</text></revision></page>\n"
        for page_id, ns, title, redirect, text in PAGES
    )
    wiki = folder / "simplewiki-pages.xml.bz2"
    wiki.write_bytes(bz2.compress((HEADER + pages + "</mediawiki>\n").encode()))
    lines = []
    for item in ITEMS:
        sites = [link.split(":", 1) for link in item["sitelinks"]]
        sitelinks = {site: {"site": site, "title": title, "badges": []} for site, title in sites}
        lines.append(json.dumps({**item, "sitelinks": sitelinks or []}))
    wikidata = folder / "wikidata.json.bz2"
    wikidata.write_bytes(bz2.compress(("[\n" + ",\n".join(lines) + "\n]\n").encode()))
    return str(wiki), str(wikidata)


def _run(stage: Stage | RangeStage) -> Manifest:
    """A stage without Beam: its units one after the other, and its manifest."""
    claim_folder(stage.storage, stage.folder, stage.plan, overwrite=False)
    for unit in reversed(stage.units()):
        run_chain(stage, [unit])
    return finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All stages of the small wiki; names are German."""
    folder = tmp_path_factory.mktemp("small")
    wiki, wikidata = _dumps(folder)
    vocabulary = {
        word: number for number, word in enumerate(["<unk>", "</s>", *"cats an animal dog friend Egypt Tiere".split()])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    (folder / "tok").mkdir()
    tokenizer.save(str(folder / "tok/tokenizer.json"))
    siteinfo = read_siteinfo(find_dump(wiki), "simplewiki")
    out = str(folder / "out")
    common: dict[str, Any] = {"wiki_code": "simplewiki", "siteinfo": siteinfo}
    stages: list[Stage] = [
        SitelinksStage(
            folder=f"{out}/sitelinks", dumps=(find_dump(wikidata),), label_languages=("de",), range_bytes=200
        ),
        ArticlesStage(
            folder=f"{out}/articles",
            dumps=(find_dump(wiki),),
            extraction=ExtractionOptions(),
            range_bytes=10_000,
            max_page_bytes=1_000,
            **common,
        ),
    ]
    manifests = {stage.plan.stage: _run(stage) for stage in stages}
    later: list[Stage] = [
        TitlesStage(
            build_folder=f"{out}/entities",
            articles_folder=f"{out}/articles",
            sitelinks_folder=f"{out}/sitelinks",
            name_wikis=("dewiki",),
            bucket_count=3,
            **common,
        ),
        RedirectsStage(build_folder=f"{out}/entities", **common),
        EntitiesStage(folder=f"{out}/entities", wiki_code="simplewiki", name_wikis=("dewiki",), bucket_count=3),
        ShardsStage(
            folder=f"{out}/shards",
            articles_folder=f"{out}/articles",
            entities_folder=f"{out}/entities",
            name_wikis=("dewiki",),
            tokenizer=find_tokenizer(str(folder / "tok")),
            **common,
        ),
    ]
    manifests |= {stage.plan.stage: _run(stage) for stage in later}
    return {"folder": folder / "out", "manifests": manifests, "siteinfo": siteinfo}


def test_the_header_gives_the_site_information(build: dict[str, Any]) -> None:
    """Database name, case and namespaces."""
    assert build["siteinfo"] == SiteInfo(
        dbname="simplewiki",
        case="first-letter",
        namespaces={0: "", 10: "Template"},
        case_sensitive_namespaces=frozenset(),
    )


def test_sitelinks_has_a_row_an_item_in_the_order_of_the_dump(build: dict[str, Any]) -> None:
    """Wikipedias' links alone, sorted by wiki; the labels asked for; the property is filtered."""
    assert rows_of(build["folder"], "sitelinks", "sitelinks") == [
        {
            "qid": "Q79",
            "sitelinks": [{"wiki": "dewiki", "title": "Ägypten"}, {"wiki": "simplewiki", "title": "Egypt"}],
            "labels": [{"language": "de", "label": "Ägypten"}],
        },
        {
            "qid": "Q729",
            "sitelinks": [{"wiki": "dewiki", "title": "Tiere (Biologie)"}, {"wiki": "simplewiki", "title": "Animal"}],
            "labels": [{"language": "de", "label": "tiere"}],
        },
        {"qid": "Q146", "sitelinks": [{"wiki": "simplewiki", "title": "Cat"}], "labels": []},
        {
            "qid": "Q144",
            "sitelinks": [{"wiki": "dewiki", "title": "Hund"}, {"wiki": "simplewiki", "title": "Dog"}],
            "labels": [],
        },
    ]
    assert build["manifests"]["sitelinks"].counters == {
        "lines/emitted": 4,
        "lines/filtered/type property": 1,
        "lines/read": 5,
        "sitelinks/emitted": 7,
    }


def _anchor(start: int, end: int, target: str, fragment: str | None = None) -> dict[str, Any]:
    return {
        "start_char": start,
        "end_char": end,
        "target": target,
        "fragment": fragment,
        "kind": "link",
        "block": "prose",
        "foreign_wiki": None,
        "foreign_title": None,
        "foreign_qid": None,
    }


def test_articles_has_text_and_anchors_and_redirects_lead_on(build: dict[str, Any]) -> None:
    """Every page is an article, a redirect, or filtered."""
    articles = rows_of(build["folder"], "articles", "articles")
    for article in articles:
        assert article.pop("text_hash") == hashlib.blake2b(article["text"].encode(), digest_size=16).digest()
    common = {"wiki": "simplewiki", "flags": []}
    assert articles == [
        {
            **common,
            "page_id": 1,
            "revision_id": 101,
            "title": "Cat",
            "text": "A cat is an animal; a dogs' friend in Egypt, not Atlantis.",
            "anchors": [
                _anchor(12, 18, "Animal"),
                _anchor(22, 26, "Dog"),
                _anchor(38, 43, "Old Egypt"),
                _anchor(49, 57, "Atlantis"),
            ],
        },
        {
            **common,
            "page_id": 2,
            "revision_id": 102,
            "title": "Animal",
            "text": "An animal lives. See food and Category:Life.",
            "anchors": [_anchor(21, 25, "Cat", "Food"), _anchor(30, 43, "Category:Life")],
        },
        {
            **common,
            "page_id": 5,
            "revision_id": 105,
            "title": "Egypt",
            "text": "Egypt has no links.",
            "anchors": [],
        },
    ]
    redirect = {"wiki": "simplewiki", "fragment": None, "to_interwiki": None}
    assert rows_of(build["folder"], "articles", "redirects") == [
        {**redirect, "page_id": 3, "from": "Old Egypt", "to": "Ancient Egypt"},
        {**redirect, "page_id": 4, "from": "Ancient Egypt", "to": "Egypt"},
        {**redirect, "page_id": 7, "from": "Dog", "to": "Dog"},
    ]


def test_entities_has_every_title_with_its_name_or_the_reason(build: dict[str, Any]) -> None:
    """Redirects are followed to the end; a redirect with an item of its own keeps it; the label's case counts."""
    rows = {row["title"]: row for row in rows_of(build["folder"], "entities", "entities")}
    common = {"name_language": "de", "reason": None}
    egypt = {"resolved_title": "Egypt", "qid": "Q79", "name": "Ägypten", **common}
    assert rows == {
        "Animal": {
            "title": "Animal",
            "page_id": 2,
            "resolved_title": "Animal",
            "qid": "Q729",
            "name": "tiere",
            **common,
        },
        "Cat": {
            "title": "Cat",
            "page_id": 1,
            "resolved_title": "Cat",
            "qid": "Q146",
            "name": None,
            "name_language": None,
            "reason": "no sitelink",
        },
        "Dog": {"title": "Dog", "page_id": 7, "resolved_title": "Dog", "qid": "Q144", "name": "Hund", **common},
        "Egypt": {"title": "Egypt", "page_id": 5, **egypt},
        "Ancient Egypt": {"title": "Ancient Egypt", "page_id": 4, **egypt},
        "Old Egypt": {"title": "Old Egypt", "page_id": 3, **egypt},
    }


def test_shards_has_tokens_spans_and_names(build: dict[str, Any]) -> None:
    """One row an article with links: ids of a word-level tokenizer that can be read off, positions behind the start."""
    unknown, end_of_text = 0, 1
    assert rows_of(build["folder"], "shards", "train") == [
        {
            "wiki": "simplewiki",
            "page_id": 1,
            "revision_id": 101,
            "title": "Cat",
            "qid": "Q146",
            "flags": [],
            # </s> A cat is an animal ; a dogs ' friend in Egypt , not Atlantis .
            "input_ids": [end_of_text, 0, 0, 0, 3, 4, 0, 0, 0, 0, 6, 0, 7, 0, 0, 0, 0],
            "entity_start_positions": [5, 8, 12],
            "entity_end_positions": [6, 9, 13],
            "alternative_entity_input_ids": [[unknown], [unknown], [unknown]],
            "entity_qids": ["Q729", "Q144", "Q79"],
            "entity_ordinals": [0, 1, 2],
            "entity_kinds": ["link"] * 3,
            "entity_blocks": ["prose"] * 3,
            "entity_edges": ["exact"] * 3,
            "entity_name_languages": ["de"] * 3,
            "entity_name_sources": ["sitelink in the label's case", "sitelink", "sitelink"],
        },
        {
            "wiki": "simplewiki",
            "page_id": 2,
            "revision_id": 102,
            "title": "Animal",
            "qid": "Q729",
            "flags": [],
            "input_ids": [end_of_text, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            **{
                name: []
                for name in (
                    "entity_start_positions",
                    "entity_end_positions",
                    "alternative_entity_input_ids",
                    "entity_qids",
                    "entity_ordinals",
                    "entity_kinds",
                    "entity_blocks",
                    "entity_edges",
                    "entity_name_languages",
                    "entity_name_sources",
                )
            },
        },
    ]
    counters = build["manifests"]["shards"].counters
    assert {name: n for name, n in counters.items() if name.startswith(("articles", "anchors"))} == {
        "anchors/emitted": 3,
        "anchors/filtered/missing page": 1,
        "anchors/filtered/other namespace": 1,
        "anchors/filtered/section": 1,
        "anchors/read": 6,
        "articles/emitted": 2,
        "articles/filtered/no link": 1,
        "articles/read": 3,
    }
