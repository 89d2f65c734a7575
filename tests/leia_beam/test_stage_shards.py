"""stage_shards: what is decided link by link and page by page, on articles of a line."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from leia_beam.article_filters import ArticleFilters
from leia_beam.holdout import Holdout
from leia_beam.linking import LinkRules
from leia_beam.shard_rows import RowOptions
from leia_beam.tables import read_rows
from leia_beam.tokenization import EncodingOptions
from leia_beam.tokenizer_identity import find_tokenizer
from tests.leia_beam.entity_build import Rules, article, build, run, shards_stage

ITEMS = [
    ("Q1", {"jawiki": "Tokyo", "enwiki": "Tokyo"}, {"aliases": ["Edo City"]}),
    ("Q2", {"jawiki": "Osaka", "enwiki": "Osaka Prefecture"}),
    ("Q3", {"jawiki": "Kyoto", "enwiki": "Kyoto"}),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Words, and one token for all unknown ones."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "Tokyo": 2, "Kyoto": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["</s>"])
    words.save(str(folder / "tokenizer.json"))
    return find_tokenizer(str(folder))


def linked(title, page_id, text, *links):
    """An article whose links are given as texts that stand in it, each the first after the one before."""
    anchors, at = [], 0
    for shown in links:
        shown, _, target = shown.partition("|")
        at = text.index(shown, at)
        anchors.append(
            {
                "start_char": at,
                "end_char": at + len(shown),
                "target": target or shown,
                "fragment": None,
                "kind": "link",
                "block": "prose",
                "foreign_wiki": None,
                "foreign_title": None,
                "foreign_qid": None,
            }
        )
        at += len(shown)
    return article(title, page_id, text=text, anchors=anchors)


def stage_of(folder, tokenizer, **options):
    """The stage over a build's articles, which begin with their own tokens."""
    return shards_stage(folder, tokenizer, **{"encoding": EncodingOptions(document_start="none"), **options})


def shards(folder, tokenizer, pages, entity_rules=Rules(), items=ITEMS, **options):  # noqa: B008
    """(rows, counters) of the stage."""
    build(folder, pages, {}, items, rules=entity_rules)
    manifest = run(stage_of(folder, tokenizer, **{"rules": LinkRules(holdout=entity_rules.holdout), **options}))
    rows = [row for file in manifest.files_of("train") for row in read_rows(f"{folder}/shards/{file.path}")]
    return rows, manifest.counters


def test_pages_that_lost_are_left_out_by_reason(tmp_path, tokenizer):
    """Of one title the lowest id stays, of one id the first; conservation holds."""
    pages = [
        linked("A", 9, "see Tokyo", "Tokyo"),
        linked("A", 3, "see Kyoto", "Kyoto"),
        linked("B", 5, "see Tokyo", "Tokyo"),
        linked("C", 5, "see Tokyo", "Tokyo"),
    ]
    rows, counters = shards(tmp_path, tokenizer, pages)
    assert [(row["title"], row["page_id"]) for row in rows] == [("A", 3), ("B", 5)]
    assert {name: n for name, n in counters.items() if name.startswith("articles/")} == {
        "articles/read": 4,
        "articles/emitted": 2,
        "articles/filtered/duplicate title": 1,
        "articles/filtered/duplicate id": 1,
    }


def test_equal_names_are_counted_and_left_out_by_option(tmp_path, tokenizer):
    """Kept by default."""
    pages = [linked("A", 1, "Tokyo or Osaka", "Tokyo", "Osaka")]
    rows, counters = shards(tmp_path / "kept", tokenizer, pages)
    assert rows[0]["entity_qids"] == ["Q1", "Q2"] and counters["names equal to the anchor"] == 1
    rows, counters = shards(tmp_path / "skipped", tokenizer, pages, rules=LinkRules(skip_equal=True))
    assert rows[0]["entity_qids"] == ["Q2"]
    assert counters["anchors/filtered/equal to the anchor"] == 1 and "names equal to the anchor" not in counters


def test_later_mentions_are_anchors_of_their_own_kind(tmp_path, tokenizer):
    """In the order of the text; their ordinals count on behind the links; counted apart."""
    pages = [linked("A", 1, "Kyoto Tokyo x Kyoto Tokyo Kyoto", "Kyoto", "Tokyo", "x|Nowhere")]
    rows, counters = shards(tmp_path / "on", tokenizer, pages, rows=RowOptions(later_mentions=True))
    row = rows[0]
    assert row["input_ids"] == [3, 2, 0, 3, 2, 3]
    assert row["entity_start_positions"] == [0, 1, 3, 4, 5] and row["entity_end_positions"] == [1, 2, 4, 5, 6]
    assert row["entity_ordinals"] == [0, 1, 3, 4, 5]
    assert row["entity_qids"] == ["Q3", "Q1", "Q3", "Q1", "Q3"]
    assert row["entity_kinds"] == ["link"] * 2 + ["later mention"] * 3
    expected = {"anchors/read": 3, "anchors/emitted": 2, "mentions/read": 3, "mentions/emitted": 3}
    assert {name: counters[name] for name in expected} == expected
    rows, counters = shards(tmp_path / "off", tokenizer, pages)
    assert rows[0]["entity_ordinals"] == [0, 1] and "mentions/read" not in counters


def test_leaks_of_held_out_names_are_counted(tmp_path, tokenizer):
    """In longer names, and names and aliases in the text, which stays as it is."""
    seed = next(
        seed
        for seed in range(10_000)
        if [Holdout(share=0.3, seed=seed).holds(name) for name in ("Tokyo", "Osaka Prefecture", "Kyoto")]
        == [True, False, False]
    )
    text = "Tokyo Kyoto Edo City Osaka x"
    pages = [linked("A", 1, text, "Tokyo", "Kyoto", "Osaka")]
    rows, counters = shards(tmp_path, tokenizer, pages, Rules(holdout=Holdout(share=0.3, seed=seed)))
    assert rows[0]["entity_qids"] == ["Q3", "Q2"]
    assert counters["anchors/filtered/held out"] == 1
    assert (counters["leaks/in texts"], counters["leaks/in longer names"]) == (2, 0)


def test_held_out_names_of_templates_are_listed_too(tmp_path, tokenizer):
    """They have no title in the entity table: a file beside the shards holds them."""
    pages = [linked("A", 1, "Tokyo and Nara", "Tokyo", "Nara")]
    template = {"kind": "interlanguage template", "foreign_wiki": "enwiki", "foreign_title": "Nara (city)"}
    pages[0]["anchors"][1] |= template
    rules = Rules(holdout=Holdout(share=1.0))
    _, counters = shards(tmp_path, tokenizer, pages, rules)
    assert counters["anchors/filtered/held out"] == 2
    lists = [path.read_text(encoding="utf-8") for path in (tmp_path / "shards/lists").iterdir()]
    assert [json.loads(line) for line in lists[0].splitlines()] == [{"title": "Nara", "name": "Nara"}]


def test_held_out_names_of_templates_are_looked_for_in_all_texts(tmp_path, tokenizer):
    """Also in articles before the one whose template gives the name."""
    seed = next(
        seed
        for seed in range(10_000)
        if [Holdout(share=0.3, seed=seed).holds(name) for name in ("Nara", "Tokyo", "Osaka Prefecture", "Kyoto")]
        == [True, False, False, False]
    )
    pages = [linked("A", 1, "Tokyo and Nara, Narada", "Tokyo"), linked("B", 2, "x Tokyo", "x|Nowhere", "Tokyo")]
    pages[1]["anchors"][0] |= {
        "kind": "interlanguage template",
        "foreign_wiki": "enwiki",
        "foreign_title": "Nara (city)",
    }
    _, counters = shards(tmp_path, tokenizer, pages, Rules(holdout=Holdout(share=0.3, seed=seed)))
    assert counters["anchors/filtered/held out"] == 1
    assert counters["leaks/in texts"] == 1


def test_a_name_that_a_thousand_links_share_is_no_burden(tmp_path, tokenizer):
    """A hot target crosses no shuffle: every link is looked up where it stands."""
    pages = [linked(f"A{n}", n + 1, "Tokyo " * 5_000, *["Tokyo"] * 5_000) for n in range(4)]
    _, counters = shards(tmp_path, tokenizer, pages)
    assert counters["anchors/emitted"] == 20_000


def kept(rows):
    return [row["title"] for row in rows]


def test_articles_are_left_out_by_kind_and_counted(tmp_path, tokenizer):
    """Articles without a link by default; disambiguation pages, lists, copies and short ones by option."""
    pages = [
        linked("A", 1, "see Tokyo now", "Tokyo"),
        linked("B", 2, "no link at all"),
        {**linked("C", 3, "see Kyoto or Tokyo", "Kyoto", "Tokyo"), "flags": ["disambiguation"]},
        linked("D", 4, "see Tokyo now", "Tokyo"),
        linked("E", 5, "Tokyo", "Tokyo"),
        linked("L", 6, "Tokyo and Kyoto and Osaka", "Tokyo"),
    ]
    items = [*ITEMS, ("Q9", {"jawiki": "L"}, {"types": ["Q13406463"]})]
    rows, counters = shards(tmp_path / "default", tokenizer, pages, items=items)
    assert kept(rows) == ["A", "C", "D", "E", "L"] and counters["articles/filtered/no link"] == 1
    every = ArticleFilters(drop=("disambiguation", "duplicate", "list", "no-link"), min_length=3)
    rows, counters = shards(tmp_path / "all", tokenizer, pages, items=items, rows=RowOptions(filters=every))
    assert kept(rows) == ["A"]
    assert {name: n for name, n in counters.items() if name.startswith("articles/")} == {
        "articles/emitted": 1,
        "articles/filtered/disambiguation page": 1,
        "articles/filtered/list": 1,
        "articles/filtered/no link": 1,
        "articles/filtered/short": 1,
        "articles/filtered/text of another article": 1,
        "articles/read": 6,
    }
    assert counters["anchors/read"] == 1  # links of articles that are left out count for nothing
    none = RowOptions(filters=ArticleFilters(drop=()))
    rows, counters = shards(tmp_path / "none", tokenizer, pages, items=items, rows=none)
    assert kept(rows) == ["A", "B", "C", "D", "E", "L"]
    assert rows[1]["entity_ordinals"] == []


def test_an_article_is_cut_at_the_maximal_length(tmp_path, tokenizer):
    """What stands before and behind it counts; names beyond the cut are dropped and counted."""
    words = " ".join(["x"] * 12)
    pages = [
        linked("A", 1, f"Tokyo {words} Kyoto {words} Tokyo", "Tokyo", "Kyoto", "Tokyo"),
        linked("B", 2, "Tokyo", "Tokyo"),
    ]
    encoding = EncodingOptions(document_start="eos", eos=True)
    rows, counters = shards(tmp_path, tokenizer, pages, encoding=encoding, rows=RowOptions(max_length=16))
    end = 1
    assert rows[0]["input_ids"] == [end, 2, *[0] * 12, 3, end]
    assert (rows[0]["entity_start_positions"], rows[0]["entity_end_positions"]) == ([1, 14], [2, 15])
    assert rows[1]["input_ids"] == [end, 2, end]
    assert counters["anchors/filtered/beyond the maximal length"] == 1 == counters["articles cut at the maximal length"]
    assert counters["characters/emitted"] == len(f"Tokyo {words} Kyoto") + len("Tokyo")


@pytest.mark.parametrize(
    ("alignment", "spans", "edges"),
    [
        ("edge", [(0, 1), (2, 3)], ["end refused", "exact"]),
        ("expand", [(0, 1), (2, 3)], ["expanded", "exact"]),
        ("strict", [(2, 3)], ["exact"]),
        ("split", [(0, 1), (3, 4)], ["exact", "exact"]),
    ],
)
def test_an_anchor_within_a_word_by_alignment(tmp_path, tokenizer, alignment, spans, edges):
    """Refused at its end, widened, dropped, or given a token of its own."""
    pages = [linked("A", 1, "Tokyoites and Kyoto", "Tokyo", "Kyoto")]
    rows, counters = shards(tmp_path, tokenizer, pages, rows=RowOptions(alignment=alignment))
    (row,) = rows
    assert list(zip(row["entity_start_positions"], row["entity_end_positions"], strict=True)) == spans
    assert row["entity_edges"] == edges
    assert row["input_ids"] == ([2, 0, 0, 3] if alignment == "split" else [0, 0, 3])
    assert counters.get("anchors/filtered/not on token edges", 0) == (alignment == "strict")


def test_the_manifest_describes_each_shard(tmp_path, tokenizer):
    """From the commit record, so that `finish` writes the same."""
    build(tmp_path, [linked("A", 1, "see Tokyo now", "Tokyo")], {}, ITEMS)
    manifest = run(stage_of(tmp_path, tokenizer))
    (described,) = manifest.details["statistics"]
    assert (described["unit"], described["articles"], described["tokens"], described["names"]) == (0, 1, 3, 1)
    assert described["characters"] == len("see Tokyo now") and described["length_histogram"] == {"4": 1}


def test_a_name_without_a_token_is_dropped_and_counted(tmp_path):
    """A tokenizer that drops what it does not know; an article of which nothing is left is filtered."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    pieces = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "</s>": 2}, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.add_special_tokens(["</s>"])
    pieces.save(str(folder / "tokenizer.json"))
    items = [("Q1", {"jawiki": "Tokyo", "enwiki": "Ω"}), ("Q2", {"jawiki": "Kyoto", "enwiki": "ab"})]
    pages = [linked("A", 1, "a b", "a|Tokyo", "b|Kyoto"), linked("B", 2, "Ω", "Ω|Kyoto")]
    rows, counters = shards(tmp_path / "out", find_tokenizer(str(folder)), pages, items=items)
    assert [row["alternative_entity_input_ids"] for row in rows] == [[[0, 1]]]
    assert counters["anchors/filtered/name without a token"] == 1 == counters["articles/filtered/no text"]
