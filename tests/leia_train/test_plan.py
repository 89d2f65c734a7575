"""The plan's rows are those of a list implementation that reads the stream from its beginning."""

from dataclasses import replace

import numpy as np
import pytest
from article_strategies import wikis
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import ListPlan, make_store
from shard_fixture import Article

from leia_beam.errors import UsageError
from leia_train.config import DataConfig
from leia_train.insertion import NAME
from leia_train.plan import TrainingPlan

SHARES = (0.0, 0.3)


def make_plans(some, eos_id, seed, **options):
    """The plan and its list twin."""
    data = DataConfig(shards=("-",), **options)
    markers = ((90,), (91,)) if data.markers == "special" else None
    expected = ListPlan(
        articles=some,
        strategy=data.strategy,
        probability=data.probability,
        markers=markers,
        end_id=None if data.cross_document else eos_id,
        length=data.max_length,
        seed=seed,
        share=data.validation_share,
        name_loss=data.name_loss,
        cross_document=data.cross_document,
    )
    return TrainingPlan(make_store(some, eos_id), data, seed, markers), expected


def as_lists(rows):
    """What a step gets, as lists."""
    return {name: getattr(rows, name).tolist() for name in ("input_ids", "position_ids", "labels")}


def test_rows_equal_a_list_implementation_in_any_order():
    """All options; several epochs; rows asked for one by one, backwards and all at once are the same."""
    seen = {"epochs": 0, "inserted": 0, "held out": 0, "begin in a name": 0}

    @settings(max_examples=200, deadline=None)
    @given(
        wikis(),
        st.sampled_from(["right", "left", "replace", "none"]),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from(["special", "none"]),
        st.booleans(),
        st.booleans(),
        st.integers(2, 9),
        st.sampled_from([2, None]),
        st.integers(0, 2**63 - 1),
        st.sampled_from(SHARES),
    )
    def check(some, strategy, probability, markers, name_loss, cross, length, eos_id, seed, share):
        options = {
            "strategy": strategy,
            "probability": probability,
            "markers": markers,
            "name_loss": name_loss,
            "cross_document": cross,
            "max_length": length,
            "validation_share": share,
        }
        some = [
            (
                wiki,
                Article(page_id=a.page_id, input_ids=a.input_ids, entities=tuple(e for e in a.entities if e.name_ids)),
            )
            for wiki, a in some
        ]
        try:
            plan, expected = make_plans(some, eos_id, seed, **options)
        except UsageError:
            return
        rows = plan.rows(0, 9)
        wanted = expected.rows(9)
        assert as_lists(rows) == wanted
        backwards = [plan.rows(row, 1) for row in reversed(range(9))]
        assert [as_lists(row)["input_ids"][0] for row in reversed(backwards)] == wanted["input_ids"]
        assert as_lists(plan.rows(3, 4)) == {name: values[3:7] for name, values in wanted.items()}
        fresh, _ = make_plans(some, eos_id, seed, **options)
        assert as_lists(fresh.rows(8, 1)) == {name: values[8:] for name, values in wanted.items()}
        seen["epochs"] += plan.epoch_of_row(8) > 2
        seen["inserted"] += rows.inserted_count
        seen["held out"] += len(plan.validation_documents)
        seen["begin in a name"] += int((rows.kinds[:, 0] == NAME).sum())

    check()
    assert min(seen.values()) > 4, seen


def test_an_epoch_has_every_training_article_once_and_no_validation_article():
    """Counted by page in the first epoch's rows, for 200 articles that are their own page id."""
    some = [("jawiki", Article(page_id=page, input_ids=(page,), entities=())) for page in range(1, 201)]
    plan, _ = make_plans(some, None, 7, max_length=2, validation_share=0.2)
    validation = set(plan.store.page_ids[plan.validation_documents].tolist())
    count = len(plan.training_documents)
    drawn = plan.rows(0, count // 2).input_ids.ravel().tolist()
    assert sorted(drawn) == sorted(set(drawn))
    assert not validation & set(drawn)
    assert len(drawn) == count // 2 * 2
    assert 20 < len(validation) < 60


def test_the_order_of_shards_folders_changes_no_row():
    """Articles of two wikis in the other order give the same stream."""
    some = [
        (wiki, Article(page_id=page, input_ids=(page, 50 + page), entities=()))
        for wiki in ("a", "b")
        for page in range(9)
    ]
    rows = [make_plans(order, 2, 1, max_length=5)[0].rows(0, 20).input_ids for order in (some, some[::-1])]
    assert np.array_equal(*rows)


def test_epochs_and_seeds_differ():
    """The second epoch is in another order than the first, and another seed gives another first epoch."""
    some = [("jawiki", Article(page_id=page, input_ids=(page,), entities=())) for page in range(1, 41)]
    plan, _ = make_plans(some, None, 7, max_length=2, validation_share=0)
    other, _ = make_plans(some, None, 8, max_length=2, validation_share=0)
    first, second = plan.rows(0, 20).input_ids.ravel(), plan.rows(20, 20).input_ids.ravel()
    assert sorted(first) == sorted(second) == list(range(1, 41))
    assert first.tolist() != second.tolist()
    assert first.tolist() != other.rows(0, 20).input_ids.ravel().tolist()


def test_shards_without_training_tokens_are_refused():
    """All articles empty: one clear line instead of an endless search for a row."""
    with pytest.raises(UsageError, match="no tokens to train on"):
        make_plans([("jawiki", Article(page_id=1, input_ids=(), entities=()))], None, 1)


def test_an_end_that_the_build_put_there_is_not_put_there_twice():
    """Shards made with --eos: the rows are those of a run that adds none."""
    some = [("jawiki", Article(page_id=n, input_ids=(0, 5, 6, 2), entities=())) for n in range(1, 8)]
    rows = {}
    for ends, wanted in (((2,), True), ((), True), ((), False)):
        data = DataConfig(shards=("-",), max_length=5, validation_share=0.0, document_end=wanted)
        store = make_store(some, 2)
        store = replace(store, tokenizer=replace(store.tokenizer, document_end_ids=ends))
        plan = TrainingPlan(store, data, 3, ((90,), (91,)))
        rows[ends, wanted] = as_lists(plan.rows(0, 12))
    assert rows[(2,), True] == rows[(), False] != rows[(), True]
