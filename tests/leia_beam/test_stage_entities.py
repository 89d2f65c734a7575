"""stage_entities: chains are followed as a naive reader follows them, and no order of rows changes a byte."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_beam.entity_names import (
    LOOP,
    MISSING,
    NO_ITEM,
    NO_SITELINK,
    OTHER_NAMESPACE,
    OTHER_WIKI,
    REFUSED_NAME,
    SECTION,
)
from leia_beam.finish import MaxRejects, finish_stage
from leia_beam.lookup import EntityLookup, bucket_of, open_trie, read_arrow
from leia_beam.plans import StagePlan, claim_folder, identity_of
from leia_beam.schema import ARTICLES, REDIRECTS, SITELINKS
from leia_beam.stage_entities import (
    MAX_BUCKETS,
    TITLES_PER_BUCKET,
    EntitiesStage,
    RedirectsStage,
    TitlesStage,
    default_bucket_count,
)
from leia_beam.storage import LocalStorage
from leia_beam.tables import read_rows
from leia_beam.title_parts import follow_chains
from leia_beam.title_rows import FILTERED, PAGE, REDIRECT, SITELINK, TitleRow, pack_rows
from leia_beam.units import Unit, UnitOutput, run_chain

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


@dataclass(frozen=True, kw_only=True)
class RowsStage:
    """A stage that writes given rows: `tables` maps a table to (schema, rows)."""

    folder: str
    tables: dict = field(default_factory=dict)
    storage: LocalStorage = field(default_factory=LocalStorage)

    @property
    def plan(self):
        return StagePlan(stage="rows", identity=identity_of("rows", [], {}, ()), unit_count=1)

    def units(self):
        return [Unit(number=0, count=1)]

    def process(self, unit, output):
        for table, (schema, rows) in self.tables.items():
            writer = output.table(table, schema)
            for row in rows:
                writer.write(row, 1)


def run(stage):
    """Run a stage to its manifest."""
    claim_folder(stage.storage, stage.folder, stage.plan, overwrite=False)
    for unit in stage.units():
        assert run_chain(stage, [unit])[0].error is None
    return finish_stage(stage.storage, stage.folder, stage.plan, MaxRejects(count=0))


def build(folder, pages, redirects, items, bucket_count=4, wiki="jawiki", name_wikis=("enwiki",)):
    """The entity table, the lookup and the manifests of pages [title], redirects {from: to, …}, items [(qid, links)]."""
    articles = [
        {"wiki": wiki, "page_id": n, "revision_id": 1, "title": title, "text": "", "anchors": [], "flags": []}
        for n, title in enumerate(pages, 1)
    ]
    moved = []
    for n, (title, to) in enumerate(redirects.items(), 1000):
        to, fragment, interwiki = to if isinstance(to, tuple) else (to, None, None)
        row = {"wiki": wiki, "page_id": n, "from": title, "to": to, "fragment": fragment, "to_interwiki": interwiki}
        moved.append(row)
    links = [
        {"qid": qid, "sitelinks": [{"wiki": w, "title": t} for w, t in sorted(sitelinks.items())], "labels": []}
        for qid, sitelinks in items
    ]
    run(
        RowsStage(
            folder=f"{folder}/articles", tables={"articles": (ARTICLES, articles), "redirects": (REDIRECTS, moved)}
        )
    )
    run(RowsStage(folder=f"{folder}/sitelinks", tables={"sitelinks": (SITELINKS, links)}))
    entities = f"{folder}/entities"
    common = {"wiki_code": wiki, "siteinfo": None}
    titles = TitlesStage(
        build_folder=entities,
        articles_folder=f"{folder}/articles",
        sitelinks_folder=f"{folder}/sitelinks",
        name_wikis=name_wikis,
        bucket_count=bucket_count,
        **common,
    )
    manifests = [
        run(titles),
        run(RedirectsStage(build_folder=entities, **common)),
        run(EntitiesStage(folder=entities, wiki_code=wiki, name_wikis=name_wikis, bucket_count=bucket_count)),
    ]
    rows = [row for file in manifests[2].files_of("entities") for row in read_rows(f"{entities}/{file.path}")]
    return SimpleNamespace(
        rows={row["title"]: row for row in rows}, lookup=EntityLookup(entities), manifests=manifests, count=len(rows)
    )


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
