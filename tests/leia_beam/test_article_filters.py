"""article_filters: which articles are left out, by which reason, and which of several copies of a text stays."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from leia_beam.article_filters import (
    DISAMBIGUATION,
    DUPLICATE,
    KINDS,
    LIST,
    NO_LINK,
    REASONS,
    ArticleFilters,
    _equal_texts,
    _later_copies,
    repeated_texts,
)
from leia_beam.entity_names import DISAMBIGUATION as REFUSED_DISAMBIGUATION
from leia_beam.entity_names import LIST as REFUSED_LIST
from leia_beam.entity_names import NO_ITEM
from leia_beam.errors import UsageError
from leia_beam.lookup import EntityLookup
from leia_beam.manifest import read_manifest
from leia_beam.records import Anchor
from leia_beam.storage import LocalStorage
from tests.leia_beam.entity_build import article, build

ALL = ArticleFilters(drop=tuple(sorted(KINDS)))


def own(reason):
    return SimpleNamespace(reason=reason)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, None),
        ({"has_link": False}, NO_LINK),
        ({"flags": ["disambiguation"]}, DISAMBIGUATION),
        ({"flags": ["stub"]}, None),
        ({"own": own(REFUSED_DISAMBIGUATION)}, DISAMBIGUATION),
        ({"own": own(REFUSED_LIST)}, LIST),
        ({"own": own(NO_ITEM)}, None),
        ({"is_repeated": True}, DUPLICATE),
        ({"is_repeated": True, "has_link": False}, NO_LINK),
    ],
)
def test_each_kind_has_its_mark(fields, kind):
    """By the page's flags, its item's type, its links, its text; only kinds that are asked for are dropped."""
    given = {"flags": [], "has_link": True, "own": None, "is_repeated": False, **fields}
    assert ALL.reason(**given) == (REASONS[kind] if kind else None)
    others = ArticleFilters(drop=tuple(sorted(set(KINDS) - {kind, NO_LINK})))
    assert ArticleFilters(drop=()).reason(**given) is None
    if kind not in (None, NO_LINK):
        assert others.reason(**given) is None


def test_an_unknown_kind_is_a_usage_error():
    """With those that there are."""
    with pytest.raises(
        UsageError, match="--drop-articles: 'stubs' is none of no-link, disambiguation, list, duplicate"
    ):
        ArticleFilters(drop=("stubs",))


def test_later_copies_are_those_of_a_plain_search():
    """On random hashes with few values, halves that collide among them; places that are left out anyway count for nothing."""
    rng, found_any = random.Random(5), 0
    for _ in range(400):
        sizes = [rng.randrange(5) for _ in range(rng.randrange(1, 5))]
        starts = np.cumsum([0, *sizes])
        count = int(starts[-1])
        hashes = np.array([[rng.randrange(4), rng.randrange(2)] for _ in range(count)], "<u8").reshape(-1, 2)
        places = [(unit, row) for unit, size in enumerate(sizes) for row in range(size)]
        left_out = {place for place in places if rng.random() < 0.2}
        seen, expected = set(), set()
        for place, pair in zip(places, hashes.tolist(), strict=True):
            if place in left_out:
                continue
            if tuple(pair) in seen:
                expected.add(place)
            seen.add(tuple(pair))
        assert set(_later_copies(_equal_texts(hashes, starts), left_out)) == expected
        found_any += len(expected)
    assert found_any > 300


def repeated_in(folder, **filters):
    """Unit → rows that `repeated_texts` finds in a build."""
    entities = f"{folder}/entities"
    found = repeated_texts(
        LocalStorage(), f"{folder}/articles", entities, "x", ArticleFilters(**filters), EntityLookup(entities)
    )
    return {unit: sorted(rows) for unit, rows in found.items()}


def test_the_first_of_equal_texts_stays(tmp_path):
    """Of those that do not lose against another page anyway."""
    pages = [
        article("A", 1, text="same"),
        article("B", 2, text="other"),
        article("C", 3, text="same"),
        article("D", 4, text="same "),
        article("E", 5, text="same"),
        article("F", 6, text="twice"),
        article("F", 7, text="twice"),  # loses by its title, so it repeats nothing
        article("G", 8, text="twice"),
    ]
    build(str(tmp_path), pages, {}, [])
    assert read_manifest(tmp_path / "articles").rows_of("articles") == 8
    assert repeated_in(tmp_path, drop=(DUPLICATE,)) == {0: [2, 4, 7]}


def test_one_copy_of_a_text_stays_where_the_first_is_dropped_for_another_reason(tmp_path):
    """A first copy without links, that is a disambiguation page, or of a list's item, takes no later one with it."""
    link = {"start_char": 0, "end_char": 4, "target": "A", "kind": "link", "block": "prose"}
    anchors = [{**dict.fromkeys(Anchor._fields), **link}]
    pages = [
        article("A", 1, text="text"),
        article("B", 2, text="text", anchors=anchors, flags=["disambiguation"]),
        article("C", 3, text="text", anchors=anchors),  # a list's item
        article("D", 4, text="text", anchors=anchors),
        article("E", 5, text="text", anchors=anchors),
        article("F", 6, text="bare"),
        article("G", 7, text="bare"),
    ]
    build(str(tmp_path), pages, {}, [("Q1", {"jawiki": "C", "enwiki": "C"}, {"types": ["Q13406463"]})])
    assert repeated_in(tmp_path, drop=tuple(sorted(KINDS))) == {0: [4]}
    assert repeated_in(tmp_path, drop=(DISAMBIGUATION, DUPLICATE)) == {0: [2, 3, 4, 6]}
    assert repeated_in(tmp_path, drop=(DUPLICATE, NO_LINK)) == {0: [2, 3, 4]}
    assert repeated_in(tmp_path, drop=(DUPLICATE,)) == {0: [1, 2, 3, 4, 6]}
