"""stage_entities: chains are followed as a naive reader follows them, and no order of rows changes a byte."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.entity_names import (
    DISAMBIGUATION,
    HELD_OUT,
    LIST,
    LOOP,
    MISSING,
    NO_ITEM,
    NO_SITELINK,
    NUMBER,
    OTHER_NAMESPACE,
    OTHER_WIKI,
    REFUSED_NAME,
    SECTION,
    NameRules,
)
from leia_beam.holdout import Holdout
from leia_beam.lookup import bucket_of, open_trie, read_arrow
from leia_beam.stage_titles import TitlesStage
from leia_beam.tables import read_rows
from leia_beam.title_buckets import MAX_BUCKETS, TITLES_PER_BUCKET, default_bucket_count
from leia_beam.title_parts import follow_chains
from leia_beam.title_rows import (
    FILTERED,
    PAGE,
    REDIRECT,
    SITELINK,
    TitleRow,
    pack_rows,
    place_of,
    place_parts,
    spooled,
    unpack_rows,
    unspooled,
)
from leia_beam.units import Unit, UnitOutput
from tests.leia_beam.entity_build import Rules, article, build

# ---- chains


def naive_end(following: list[int], start: int, loop_end: int) -> int:
    """Where a chain ends, one step after the other."""
    seen, at = set(), start
    while following[at] != at:
        if at in seen:
            return loop_end
        seen.add(at)
        at = following[at]
    return at


def random_graph(rng: random.Random, size: int) -> list[int]:
    """Each node an end, in a random function, or a link of a chain of up to 50 or of a ring."""
    following = [rng.choice((node, rng.randrange(size))) for node in range(size)]
    for _ in range(size // 40):
        path = rng.sample(range(size), min(size, rng.randrange(2, 51)))
        for one, other in itertools.pairwise(path):
            following[one] = other
        following[path[-1]] = rng.choice((path[0], path[-1]))
    following[size - 1] = size - 1
    return following


def test_chains_end_where_a_naive_follower_ends():
    """On hundreds of random functional graphs with loops, ends and chains of every length to 50."""
    rng = random.Random(11)
    looped = ended = longest = 0
    for trial in range(300):
        following = random_graph(rng, rng.choice((1, 2, 3, 5, 10, 100, 400)))
        loop_end = len(following) - 1
        expected = [naive_end(following, node, loop_end) for node in range(len(following))]
        found = follow_chains(np.array(following, np.int32), loop_end)
        assert found.tolist() == expected, trial
        assert found.dtype == np.int32
        looped += sum(end == loop_end != node for node, end in enumerate(expected))
        ended += sum(node != end != loop_end for node, end in enumerate(expected))
        for node in range(len(following)):
            steps, at = 0, node
            while following[at] != at and steps <= 60:
                at, steps = following[at], steps + 1
            longest = max(longest, steps if steps <= 60 else 0)
    assert looped > 2_000 and ended > 2_000 and longest >= 40, (looped, ended, longest)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(1, 12).flatmap(lambda size: st.lists(st.integers(0, size - 1), min_size=size, max_size=size)))
def test_every_small_graph_is_followed(following):
    """Also rings of every length, which doubling brings back to themselves."""
    graph = [*following, len(following)]
    expected = [naive_end(graph, node, len(following)) for node in range(len(graph))]
    assert follow_chains(np.array(graph, np.int32), len(following)).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 50, 1000])
def test_one_chain_and_one_ring_of_any_length(length):
    """The worst cases for doubling: all nodes on one chain, all nodes on one ring."""
    chain = np.minimum(np.arange(1, length + 2), length).astype(np.int32)
    assert follow_chains(chain, length).tolist() == [length] * (length + 1)
    ring = np.append((np.arange(length) + 1) % length, length).astype(np.int32)
    assert follow_chains(ring, length).tolist() == ([0] if length == 1 else [length] * length) + [length]


@pytest.mark.parametrize(
    ("titles", "buckets"),
    [
        (0, 1),
        (1, 1),
        (TITLES_PER_BUCKET, 1),
        (TITLES_PER_BUCKET + 1, 2),
        (3 * TITLES_PER_BUCKET, 4),
        (18_000_000, MAX_BUCKETS),
        (10**9, MAX_BUCKETS),
    ],
)
def test_the_number_of_buckets_is_a_function_of_the_input(titles, buckets):
    """A power of two, 65,536 titles to each, at most 256."""
    assert default_bucket_count(titles) == buckets


# ---- titles


def titles_stage(folder="unused", bucket_count=1):
    return TitlesStage(
        build_folder=str(folder),
        articles_folder=f"{folder}/articles",
        sitelinks_folder=f"{folder}/sitelinks",
        wiki_code="jawiki",
        siteinfo=None,
        name_wikis=("enwiki",),
        bucket_count=bucket_count,
    )


def batched(rows, size):
    """Rows in chunks, as a shuffle brings them."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def process(rows, scratch):
    """The bytes of a bucket's two files, its rows, and its counters."""
    scratch.mkdir(parents=True, exist_ok=True)
    output = UnitOutput(Unit(number=0, count=1), "f" * 64, str(scratch))
    chunks = [pack_rows(list(chunk)) for chunk in batched(list(rows), 7)]
    titles_stage().process_rows(iter(chunks), output)
    closed = output.close()
    files = [path for file, path in closed if file.table != "duplicates"]
    contents = [Path(path).read_bytes() for _, path in closed]
    trie = open_trie(files[0])
    merged = {row["title"]: row for row in read_arrow(files[1]).to_pylist()}
    assert sorted(merged, key=lambda title: trie[title]) == list(merged)
    return contents, merged, dict(output.counters)


def page(title, page_id, place=0, reason=None):
    return TitleRow(title, PAGE, page_id, place, reason)


def sitelink(title, number, name="N", reason=None, **others):
    return TitleRow(
        title, SITELINK, number, reason=reason, name=name, name_language="en", name_source="sitelink", **others
    )


def redirect(title, page_id, to, fragment=None, interwiki=None):
    return TitleRow(title, REDIRECT, page_id, redirect_to=to, redirect_fragment=fragment, redirect_interwiki=interwiki)


ROWS = [
    *(page(f"Page {n}", n) for n in range(30)),
    *(redirect(f"Redirect {n}", 100 + n, f"Page {n}") for n in range(10)),
    *(sitelink(f"Page {n}", 1000 + n) for n in range(0, 30, 2)),
    sitelink("Without a page", 5000),
    TitleRow("Category:X", FILTERED, reason="sitelink to another namespace"),
    TitleRow("Page 1", FILTERED, reason="sitelink to an illegal title"),
    page("東京", 7000),
    page("Ä", 7001),
]


def test_no_order_of_rows_changes_a_byte(tmp_path):
    """Fifty shuffles of the same rows, duplicates among them, give the same two files."""
    rows = [
        *ROWS,
        page("Page 3", 999),
        redirect("Page 4", 998, "Page 5"),
        redirect("Redirect 1", 997, "Page 9"),
        sitelink("Page 2", 999, "lower"),
        sitelink("Page 2", 2002, "higher"),
    ]
    expected = process(rows, tmp_path / "x")
    for seed in range(50):
        shuffled = rows[:]
        random.Random(seed).shuffle(shuffled)
        assert process(iter(shuffled), tmp_path / "x") == expected
    assert expected[2]["rows/read"] == len(rows)


@pytest.mark.parametrize(
    "twins",
    [
        [sitelink("A", 5, "one"), sitelink("A", 5, "other")],
        [sitelink("A", 5, "one"), sitelink("A", 5, None, NO_SITELINK)],
        [redirect("A", 5, "B"), redirect("A", 5, "C")],
        [redirect("A", 5, "B"), redirect("A", 5, "B", "section")],
        [redirect("A", 5, "B", None, None), redirect("A", 5, "B", None, "en")],
    ],
    ids=["names", "name or none", "targets", "fragments", "interwiki"],
)
def test_rows_that_differ_only_after_their_key_have_an_order_too(tmp_path, twins):
    """An item or page that stands twice in a dump, unlike itself: what is taken never depends on arrival."""
    assert process(twins, tmp_path / "x") == process(twins[::-1], tmp_path / "x")


def test_duplicates_are_resolved_by_rule_and_counted(tmp_path):
    """Of two pages the lower id, of a page and a redirect the page, of two items the lower number (as numbers)."""
    rows = [
        page("Twin", 20),
        page("Twin", 3),
        redirect("Both", 1, "X"),
        page("Both", 50),
        redirect("Redirects", 9, "X"),
        redirect("Redirects", 8, "Y", "s"),
        sitelink("Items", 100, "hundred"),
        sitelink("Items", 99, "ninety-nine"),
    ]
    _, merged, counters = process(rows, tmp_path / "x")
    assert (merged["Twin"]["page_id"], merged["Both"]["page_id"], merged["Both"]["redirect_to"]) == (3, 50, None)
    assert [merged["Redirects"][name] for name in ("page_id", "redirect_to", "redirect_fragment")] == [8, "Y", "s"]
    assert (merged["Items"]["qid"], merged["Items"]["name"]) == (99, "ninety-nine")
    assert counters == {
        "rows/read": 8,
        "rows/emitted/page": 2,
        "rows/emitted/redirect": 1,
        "rows/emitted/sitelink": 1,
        "rows/filtered/duplicate title": 3,
        "rows/filtered/duplicate item": 1,
    }


def test_a_bucket_without_rows_has_its_files(tmp_path):
    """Readers find as many parts as there are buckets."""
    contents, merged, counters = process([], tmp_path / "x")
    assert (len(contents), merged, counters) == (2, {}, {"rows/read": 0})


# ---- all three steps


def summary(row):
    return row["resolved_title"], row["qid"], row["name"], row["reason"]


ITEMS = [("Q1490", {"jawiki": "東京", "enwiki": "Tokyo (city)"}), ("Q17", {"jawiki": "日本", "enwiki": "Japan"})]


def test_titles_redirects_and_items_come_together(tmp_path):
    """A page with an item, one without, one whose item has no English article, a redirect, a chain, a lone sitelink."""
    built = build(
        tmp_path,
        ["東京", "日本", "項目無し", "英語無し", "分類"],
        {"江戸": "東京", "武蔵": "江戸", "NIPPON": "日本"},
        [
            *ITEMS,
            ("Q3", {"jawiki": "英語無し", "dewiki": "X"}),
            ("Q4", {"jawiki": "分類", "enwiki": "Category:X"}),
            ("Q5", {"jawiki": "頁無し", "enwiki": "No page"}),
            ("Q6", {"jawiki": "Category:猫", "enwiki": "Category:Cats"}),
            ("Q7", {"enwiki": "Only English"}),
        ],
    )
    assert {title: summary(row) for title, row in built.rows.items()} == {
        "東京": ("東京", "Q1490", "Tokyo", None),
        "日本": ("日本", "Q17", "Japan", None),
        "江戸": ("東京", "Q1490", "Tokyo", None),
        "武蔵": ("東京", "Q1490", "Tokyo", None),
        "NIPPON": ("日本", "Q17", "Japan", None),
        "項目無し": ("項目無し", None, None, NO_ITEM),
        "英語無し": ("英語無し", "Q3", None, NO_SITELINK),
        "分類": ("分類", "Q4", None, REFUSED_NAME),
        "頁無し": ("頁無し", "Q5", "No page", None),
    }
    assert built.count == len(built.rows)
    for title, row in built.rows.items():
        found = built.lookup.find(title)
        assert (found.qid, found.name, found.name_language, found.reason) == (
            row["qid"],
            row["name"],
            row["name_language"],
            row["reason"],
        )
    assert built.lookup.find("無い") is None


def test_a_redirect_that_leads_to_no_page_has_the_reason(tmp_path):
    """Missing, section, other wiki, other namespace, a ring of two, a chain into a ring, a chain to a missing page."""
    built = build(
        tmp_path,
        ["東京"],
        {
            "A missing": "無い",
            "A section": ("東京", "歴史", None),
            "A wiki": ("Tokyo", None, "en"),
            "A namespace": "Category:猫",
            "Ring 1": "Ring 2",
            "Ring 2": "Ring 1",
            "Into the ring": "Ring 1",
            "To missing": "A missing",
            "To a section": "A section",
        },
        ITEMS[:1],
    )
    found = {title: row["reason"] for title, row in built.rows.items() if title != "東京"}
    assert found == {
        "A missing": MISSING,
        "A section": SECTION,
        "A wiki": OTHER_WIKI,
        "A namespace": OTHER_NAMESPACE,
        "Ring 1": LOOP,
        "Ring 2": LOOP,
        "Into the ring": LOOP,
        "To missing": MISSING,
        "To a section": SECTION,
    }
    assert {row["qid"] for title, row in built.rows.items() if title != "東京"} == {None}


def test_a_redirect_to_itself_is_a_loop(tmp_path):
    """Such pages exist; they are counted as loops, and the build goes on."""
    built = build(tmp_path, ["東京"], {"自分": "自分", "別": "自分"}, ITEMS[:1])
    assert {title: summary(built.rows[title]) for title in ("自分", "別")} == {
        "自分": (None, None, None, LOOP),
        "別": (None, None, None, LOOP),
    }
    assert built.manifests[1].counters["redirects/emitted/loop"] == 2


def test_an_item_of_a_redirect_comes_before_where_it_leads(tmp_path):
    """A sitelink to a redirect names that title, and ends a chain that comes through it."""
    built = build(
        tmp_path,
        ["東京"],
        {"江戸": "東京", "武蔵": "江戸"},
        [*ITEMS, ("Q9", {"jawiki": "江戸", "enwiki": "Edo"})],
    )
    assert [summary(built.rows[title]) for title in ("東京", "江戸", "武蔵")] == [
        ("東京", "Q1490", "Tokyo", None),
        ("江戸", "Q9", "Edo", None),
        ("江戸", "Q9", "Edo", None),
    ]


def test_a_chain_of_fifty_redirects_ends_at_the_page(tmp_path):
    """Longer than MediaWiki itself follows."""
    chain = {f"R{n}": f"R{n + 1}" for n in range(50)} | {"R50": "東京"}
    built = build(tmp_path, ["東京"], chain, ITEMS[:1], bucket_count=8)
    assert {built.rows[title]["resolved_title"] for title in chain} == {"東京"}
    assert built.manifests[1].counters["redirects/emitted/resolved"] == 51


def test_the_table_does_not_depend_on_the_number_of_buckets(tmp_path):
    """The same rows in 1, 2 and 16 parts, each title in the part of its hash."""
    pages, redirects = [f"P{n}" for n in range(40)], {f"R{n}": f"P{n}" for n in range(40)}
    items = [(f"Q{n + 1}", {"jawiki": f"P{n}", "enwiki": f"N{n}"}) for n in range(0, 40, 3)]
    tables = [build(tmp_path / str(count), pages, redirects, items, count) for count in (1, 2, 16)]
    assert tables[0].rows == tables[1].rows == tables[2].rows
    entities = tmp_path / "16" / "entities"
    for file in tables[2].manifests[2].files_of("entities"):
        assert {bucket_of(row["title"], 16) for row in read_rows(str(entities / file.path))} <= {file.unit}


def test_the_counts_of_all_steps_are_conserved(tmp_path):
    """What each step read is what it emitted and filtered, by reason."""
    built = build(tmp_path, ["東京", "無題"], {"江戸": "東京", "無": "ない"}, ITEMS)
    assert [dict(manifest.counters) for manifest in built.manifests] == [
        {"rows/emitted/page": 2, "rows/emitted/redirect": 2, "rows/emitted/sitelink": 2, "rows/read": 6},
        {"redirects/emitted/missing page": 1, "redirects/emitted/resolved": 1, "redirects/read": 2},
        {
            "titles without a page/named": 1,
            "titles/emitted/missing page": 1,
            "titles/emitted/named": 3,
            "titles/emitted/no item": 1,
            "titles/read": 5,
        },
    ]


# ---- what a name is refused for, and policies


def reason_of(built, title):
    return built.rows[title]["reason"]


def test_lists_and_disambiguation_pages_are_told_by_their_item_s_type(tmp_path):
    """Whatever they are called; an item with another type keeps its name though the page's mark-up says otherwise."""
    flagged = {"flags": ["disambiguation"]}
    built = build(
        tmp_path,
        [
            "一覧",
            "曖昧",
            "分類",
            article("二", 20, **flagged),
            article("三", 21, **flagged),
            article("四", 22, **flagged),
        ],
        {"曖昧さ": "曖昧"},
        [
            ("Q1", {"jawiki": "一覧", "enwiki": "Mountains"}, {"types": ["Q13406463"]}),
            ("Q2", {"jawiki": "曖昧", "enwiki": "Mercury"}, {"types": ["Q5", "Q4167410"]}),
            ("Q3", {"jawiki": "分類", "enwiki": "List of lists"}, {"types": ["Q5"]}),
            ("Q4", {"jawiki": "二", "enwiki": "Two"}),
            ("Q5", {"jawiki": "三", "enwiki": "Three"}, {"types": ["Q101352"]}),
        ],
    )
    assert {title: (row["name"], row["reason"]) for title, row in built.rows.items()} == {
        "一覧": (None, LIST),
        "曖昧": (None, DISAMBIGUATION),
        "曖昧さ": (None, DISAMBIGUATION),
        "分類": ("List of lists", None),
        "二": (None, DISAMBIGUATION),
        "三": ("Three", None),
        "四": (None, NO_ITEM),
    }


def test_types_are_found_beside_many_items(tmp_path):
    """Facts stand for some items only, in several batches, and an item may stand twice."""
    items = [
        (f"Q{n}", {"jawiki": f"P{n}", "enwiki": f"N{n}"}, {"types": ["Q13406463"]} if n % 7 == 0 else {})
        for n in range(1, 20_000)
    ]
    items += [("Q7", {"jawiki": "P7", "enwiki": "N7"}, {"types": ["Q13406463"]})]
    built = build(tmp_path, ["P1"], {}, items, bucket_count=2)
    refused = {title for title, row in built.rows.items() if row["reason"] == LIST}
    assert refused == {f"P{n}" for n in range(7, 20_000, 7)}
    assert built.manifests[0].counters["rows/filtered/duplicate item"] == 1


def test_names_by_rule(tmp_path):
    """Labels where there is no article, numbers refused."""
    built = build(
        tmp_path,
        [],
        {},
        [
            ("Q1", {"jawiki": "犬"}, {"labels": {"en": "dog"}}),
            ("Q2", {"jawiki": "千九百", "enwiki": "1900"}),
        ],
        rules=Rules(names=NameRules(source="sitelink-then-label", refuse_numbers=True)),
    )
    assert [(built.rows[title]["name"], reason_of(built, title)) for title in ("犬", "千九百")] == [
        ("dog", None),
        (None, NUMBER),
    ]


def test_a_redirect_to_a_section_can_have_the_article_s_name(tmp_path):
    """By option; a chain goes on through it."""
    redirects = {"A": ("東京", "歴史", None), "B": "A", "C": ("無い", "x", None)}
    built = build(tmp_path, ["東京"], redirects, ITEMS[:1], rules=Rules(sections="article"))
    assert [summary(built.rows[title]) for title in "ABC"] == [
        ("東京", "Q1490", "Tokyo", None),
        ("東京", "Q1490", "Tokyo", None),
        (None, None, None, MISSING),
    ]


def test_a_redirect_s_own_item_can_be_passed_over(tmp_path):
    """By option its target's item counts."""
    items = [*ITEMS, ("Q9", {"jawiki": "江戸", "enwiki": "Edo"})]
    built = build(tmp_path, ["東京"], {"江戸": "東京"}, items, rules=Rules(redirect_items="target"))
    assert summary(built.rows["江戸"]) == ("東京", "Q1490", "Tokyo", None)
    assert built.manifests[1].counters["redirects/read"] == 1


def test_titles_with_marks_of_direction_and_controls(tmp_path):
    """Sitelinks whose titles are illegal are filtered by the reason; those that MediaWiki cleans are cleaned."""
    items = [
        ("Q1", {"jawiki": "A\tB", "enwiki": "X"}),
        ("Q2", {"jawiki": "A\u2066B", "enwiki": "X"}),
        ("Q3", {"jawiki": "A|B", "enwiki": "X"}),
        ("Q4", {"jawiki": "A\u202eB\u2028C", "enwiki": "Y"}),
    ]
    built = build(tmp_path, [], {}, items)
    assert {title: row["name"] for title, row in built.rows.items()} == {"AB C": "Y"}
    assert {key: n for key, n in built.manifests[0].counters.items() if "filtered" in key} == {
        "rows/filtered/sitelink to an illegal title: control or direction character": 2,
        "rows/filtered/sitelink to an illegal title: character": 1,
    }


def test_a_title_without_a_page_can_be_a_missing_page(tmp_path):
    """By option, also where a redirect leads to it; a redirect page that has the item is a page."""
    items = [*ITEMS, ("Q9", {"jawiki": "江戸", "enwiki": "Edo"})]
    redirects = {"江戸": "東京", "NIPPON": "日本"}
    named = build(tmp_path / "named", ["東京"], redirects, items)
    assert [named.rows[title]["name"] for title in ("日本", "NIPPON")] == ["Japan", "Japan"]
    assert named.manifests[2].counters["titles without a page/named"] == 1
    refused = build(tmp_path / "refused", ["東京"], redirects, items, rules=Rules(missing_pages="refuse"))
    assert {title: summary(row) for title, row in refused.rows.items()} == {
        "東京": ("東京", "Q1490", "Tokyo", None),
        "江戸": ("江戸", "Q9", "Edo", None),
        "日本": (None, None, None, MISSING),
        "NIPPON": (None, None, None, MISSING),
    }
    assert "titles without a page/named" not in refused.manifests[2].counters


# ---- hold-out


def test_held_out_names_are_listed_and_have_the_reason(tmp_path):
    """All items of one name together, whatever its case and its parenthesis; redirects to them too."""
    items = [(f"Q{n + 1}", {"jawiki": f"P{n}", "enwiki": f"Name {n // 2}" + " (x)" * (n % 2)}) for n in range(400)]
    items[0] = ("Q1", {"jawiki": "P0", "enwiki": "NAME 0"}, {"aliases": ["Zero", "Null"]})
    holdout = Holdout(share=0.2, seed=1)
    pages = [f"P{n}" for n in range(400)]
    built = build(tmp_path, pages, {"R": "P0", "S": "P399"}, items, rules=Rules(holdout=holdout))
    expected = {f"P{n}" for n in range(400) if holdout.holds(f"Name {n // 2}")}
    held = {title for title, row in built.rows.items() if row["reason"] == HELD_OUT and title.startswith("P")}
    assert held == expected and 40 < len(held) < 130 and len(held) % 2 == 0
    assert {row["title"] for row in built.held_out} == held
    assert all(built.rows[title]["qid"] and built.rows[title]["name"] is None for title in held)
    assert {reason_of(built, "R"), reason_of(built, "S")} <= {HELD_OUT, None}
    everything = build(tmp_path / "all", pages, {}, items, rules=Rules(holdout=Holdout(share=1.0)))
    assert {row["reason"] for row in everything.rows.values()} == {HELD_OUT}
    zero = next(row for row in everything.held_out if row["title"] == "P0")
    assert (zero["name"], zero["aliases"], zero["qid"]) == ("NAME 0", ["Null", "Zero"], "Q1")


# ---- pages that stand twice


def test_pages_of_one_title_or_one_id_are_listed(tmp_path):
    """The lowest id of a title, the first in the dump of an id; the others are listed by file and row."""
    pages = [
        article("A", 9),
        article("A", 3),
        article("A", 3),
        article("B", 5),
        article("C", 5),
        article("D", 1000),
    ]
    built = build(tmp_path, pages, {"E": "A", "A": "B"}, [("Q1", {"jawiki": "A", "enwiki": "Letter A"})])
    assert built.rows["A"]["page_id"] == 3
    found = {
        (row["table"], row["row"], row["title"], row["page_id"], row["kept_page_id"], row["reason"])
        for row in built.duplicates
    }
    assert found == {
        ("articles", 0, "A", 9, 3, "duplicate title"),
        ("articles", 2, "A", 3, 3, "duplicate title"),
        ("redirects", 1, "A", 1001, 3, "duplicate title"),
        ("articles", 4, "C", 5, 5, "duplicate id"),
        ("redirects", 0, "E", 1000, 1000, "duplicate id"),
    }
    assert built.manifests[0].counters["rows/filtered/duplicate title"] == 3
    assert built.manifests[1].counters["duplicate ids"] == 2


def test_a_place_tells_table_file_and_row():
    """In the dump's order: files first, then rows."""
    places = [place_of("articles", 0, 5), place_of("redirects", 0, 0), place_of("articles", 1, 0)]
    assert places == sorted(places)
    assert [place_parts(place) for place in places] == [("articles", 0, 5), ("redirects", 0, 0), ("articles", 1, 0)]
    assert place_parts(place_of("articles", 99_999, 2**32 - 1)) == ("articles", 99_999, 2**32 - 1)


# ---- chunks and passes


def test_rows_come_out_of_a_chunk_as_they_went_in():
    """With nulls, with all scripts, and none at all."""
    for rows in (ROWS, []):
        assert [TitleRow(**row) for row in unpack_rows(pack_rows(rows)).to_pylist()] == rows


def test_the_rows_of_some_buckets_are_those_of_all(tmp_path):
    """What each process reads for its own buckets is together what one reads for all; spooled or not."""
    build(tmp_path, [f"P{n}" for n in range(300)], {}, ITEMS, bucket_count=16)
    stage = titles_stage(tmp_path, bucket_count=16)
    everything = sorted(read_all(stage, set(range(16))))
    parts = [{0}, {1, 2, 3}, set(range(4, 16))]
    assert sorted(row for part in parts for row in read_all(stage, part)) == everything
    assert len(everything) == 302
    (tmp_path / "spool").mkdir()
    for source in stage.sources():
        chunks = list(stage.read_titles(source, set(range(16))))
        references = list(spooled(iter(chunks), str(tmp_path / "spool")))
        assert [bucket for bucket, _ in references] == [bucket for bucket, _ in chunks]
        assert list(unspooled(reference for _, reference in references)) == [chunk for _, chunk in chunks]


def read_all(stage, buckets):
    """(bucket, title) of all rows of some buckets."""
    return [
        (bucket, title)
        for source in stage.sources()
        for bucket, chunk in stage.read_titles(source, buckets)
        for title in unpack_rows(chunk).column("title").to_pylist()
    ]
