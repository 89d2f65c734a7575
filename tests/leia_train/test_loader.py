"""Rows come in order, from a thread that says how it ended."""

import threading

import numpy as np
import pytest
from list_reference import make_store
from shard_fixture import Article

from leia_beam.errors import DamagedInput, LeiaError
from leia_train.config import DataConfig
from leia_train.loader import RowLoader
from leia_train.plan import TrainingPlan


@pytest.fixture
def plan():
    """Forty short articles."""
    articles = [("jawiki", Article(page_id=page, input_ids=(page, page + 50), entities=())) for page in range(1, 41)]
    return TrainingPlan(make_store(articles, None), DataConfig(shards=("-",), max_length=3), 1, None)


def test_each_process_gets_its_part_of_each_step(plan):
    """Two processes together have the rows of one, from any step on; the thread ends with the context."""
    for step in (0, 3):
        expected = plan.rows(step * 4, 4).input_ids
        parts = []
        for process in (0, 1):
            with RowLoader(plan, batch=4, process=process, processes=2, first_step=step, steps=9) as loader:
                found = loader.next()
                assert (found.step, found.epoch) == (step, plan.epoch_of_row(step * 4)) and found.waited_s >= 0
                parts.append(found.rows.input_ids)
                assert np.array_equal(loader.next().rows.input_ids, plan.rows(step * 4 + 4 + 2 * process, 2).input_ids)
        assert np.array_equal(np.concatenate(parts), expected)
    assert not [thread for thread in threading.enumerate() if thread.name == "leia-rows"]


def test_an_error_in_the_thread_is_raised_where_the_rows_are_waited_for(plan, monkeypatch):
    """Ours as it is, any other with its name."""
    for error, kind, message in (
        (DamagedInput("store damaged"), DamagedInput, "store damaged"),
        (ValueError("odd"), LeiaError, r"could not be made: ValueError\('odd'\)"),
    ):

        def fail(first, count, error=error):
            raise error

        monkeypatch.setattr(plan, "rows", fail)
        loader = RowLoader(plan, batch=2, process=0, processes=1, first_step=0, steps=9)
        with loader, pytest.raises(kind, match=message):
            loader.next()


def test_a_thread_that_is_gone_is_an_error_and_no_hang(plan, monkeypatch):
    """As when it could not even say why."""
    loader = RowLoader(plan, batch=2, process=0, processes=1, first_step=0, steps=9)
    monkeypatch.setattr(loader, "_work", lambda: None)
    loader._thread = threading.Thread(target=lambda: None)
    with loader, pytest.raises(LeiaError, match="the thread that makes the rows died"):
        loader.next()
