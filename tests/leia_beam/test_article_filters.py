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
    _later_copies,
    repeated_texts,
)
from leia_beam.entity_names import DISAMBIGUATION as REFUSED_DISAMBIGUATION
from leia_beam.entity_names import LIST as REFUSED_LIST
from leia_beam.entity_names import NO_ITEM
from leia_beam.errors import UsageError
from leia_beam.manifest import read_manifest
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
    """On random hashes with few values, halves that collide among them; losing places count for nothing."""
    rng, found_any = random.Random(5), 0
    for _ in range(300):
        sizes = [rng.randrange(5) for _ in range(rng.randrange(1, 5))]
        starts = np.cumsum([0, *sizes])
        count = int(starts[-1])
        hashes = np.array([[rng.randrange(4), rng.randrange(2)] for _ in range(count)], "<u8").reshape(-1, 2)
        places = [(unit, row) for unit, size in enumerate(sizes) for row in range(size)]
        losing = {unit: {row: "x"} for unit, row in places if rng.random() < 0.2}
        seen, expected = set(), set()
        for place, pair in zip(places, hashes.tolist(), strict=True):
            if place[1] in losing.get(place[0], {}):
                continue
            if tuple(pair) in seen:
                expected.add(place)
            seen.add(tuple(pair))
        assert set(_later_copies(hashes, starts, losing)) == expected
        found_any += len(expected)
    assert found_any > 300


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
    found = repeated_texts(LocalStorage(), f"{tmp_path}/articles", f"{tmp_path}/entities", "x")
    assert {unit: sorted(rows) for unit, rows in found.items()} == {0: [2, 4, 7]}
