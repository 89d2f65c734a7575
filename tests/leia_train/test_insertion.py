"""Names go where LEIA puts them, whatever the spans."""

from itertools import pairwise

import numpy as np
import pytest
from article_strategies import articles
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import GOOD, augment, make_documents
from shard_fixture import Article, Entity

from leia_train.insertion import EDGE_BITS, END, MARKER, NAME, TEXT, Insertion, insert_names, usable

KINDS = {"text": TEXT, "name": NAME, "marker": MARKER, "end": END}
TOKYO = Article(
    page_id=1,
    input_ids=(1, 10, 11, 12, 13),
    entities=(Entity(start=1, end=3, name_ids=(50, 51)), Entity(start=4, end=5, name_ids=(52,))),
)


@pytest.mark.parametrize(
    ("strategy", "markers", "expected"),
    [
        ("right", ((90,), (91,)), [1, 10, 11, 90, 50, 51, 91, 12, 13, 90, 52, 91]),
        ("left", ((90,), (91,)), [1, 90, 50, 51, 91, 10, 11, 12, 90, 52, 91, 13]),
        ("replace", ((90,), (91,)), [1, 90, 50, 51, 91, 12, 90, 52, 91]),
        ("right", None, [1, 10, 11, 50, 51, 12, 13, 52]),
        ("left", None, [1, 50, 51, 10, 11, 12, 52, 13]),
        ("replace", None, [1, 50, 51, 12, 52]),
    ],
)
def test_each_strategy_puts_both_names_where_the_paper_says(strategy, markers, expected):
    """The whole sequences of a small article, with and without markers."""
    insertion = Insertion(strategy=strategy, markers=markers, end_id=None)
    made = insert_names(make_documents([TOKYO]), np.array([True, True]), insertion)
    assert made.tokens.tolist() == expected
    assert made.offsets.tolist() == [0, len(expected)]


def test_a_strategy_takes_the_entities_with_the_edge_that_it_needs():
    """Right needs a good end, left a good start, replace both, none takes nothing; nameless ones never go in."""
    edges = np.array([*EDGE_BITS.values(), EDGE_BITS["exact"]], np.uint8)
    lengths = np.array([1, 1, 1, 1, 1, 0])
    found = {name: usable(name, edges, lengths).tolist() for name in ("right", "left", "replace", "none")}
    assert list(EDGE_BITS) == ["exact", "start widened", "end refused", "start widened, end refused", "expanded"]
    assert found == {
        "right": [True, True, False, False, True, False],
        "left": [True, False, True, False, True, False],
        "replace": [True, False, False, False, True, False],
        "none": [False] * 6,
    }


def test_insertion_equals_a_list_implementation():
    """Any articles, any choice of entities: tokens, kinds and offsets are those of the lists."""
    seen = {"inserted": 0, "touching": 0, "at the end": 0}

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(articles(), min_size=1, max_size=4),
        st.sampled_from(sorted(GOOD)),
        st.sampled_from([((90,), (91,)), ((90, 92), (91, 93, 94)), None]),
        st.sampled_from([2, None]),
        st.randoms(use_true_random=False),
    )
    def check(some, strategy, markers, end_id, random):
        documents = make_documents(some)
        entities = [entity for article in some for entity in article.entities]
        chosen = [
            entity.edge in GOOD[strategy] and len(entity.name_ids) > 0 and random.random() < 0.7 for entity in entities
        ]
        picks = iter(chosen)
        parts = [
            augment(
                article.input_ids, [(entity, next(picks)) for entity in article.entities], strategy, markers, end_id
            )
            for article in some
        ]
        insertion = Insertion(strategy=strategy, markers=markers, end_id=end_id)
        made = insert_names(documents, np.array(chosen, bool), insertion)
        assert made.tokens.tolist() == [token for part in parts for token, _ in part]
        assert made.kinds.tolist() == [KINDS[kind] for part in parts for _, kind in part]
        assert np.diff(made.offsets).tolist() == [len(part) for part in parts]
        seen["inserted"] += sum(chosen)
        for article in some:
            spans = article.entities
            seen["touching"] += sum(a.end == b.start for a, b in pairwise(spans))
            seen["at the end"] += sum(entity.end == len(article.input_ids) for entity in spans)

    check()
    assert min(seen.values()) > 10, seen
