"""`--compat leia` replays the reference's stream row for row: compared with an implementation of its description."""

import random

import datasets
import numpy as np
import pytest
from article_strategies import wikis
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import make_store
from shard_fixture import Article, Entity

from leia_beam.errors import UsageError
from leia_train import plan
from leia_train.config import DataConfig
from leia_train.plan import TrainingPlan
from leia_train.reference_stream import ReferenceDraws, reference_order

START, END = 90, 91


def reference_tokens(articles, strategy, probability, seed):
    """The endless stream, one token at a time: one generator, entities backwards, a draw for each of them."""
    generator = random.Random(seed)
    epoch = 0
    while True:
        for index in np.random.default_rng(seed + epoch).permutation(len(articles)):
            article = articles[index]
            tokens = list(article.input_ids)
            for entity in reversed(article.entities):
                draw = generator.random()
                if draw > probability or strategy == "none":
                    continue
                name = [START, *entity.name_ids, END]
                if strategy == "right":
                    tokens[entity.end : entity.end] = name
                elif strategy == "left":
                    tokens[entity.start : entity.start] = name
                else:
                    tokens[entity.start : entity.end] = name
            yield from tokens
        epoch += 1


def reference_labels(row, padding_id, name_loss):
    """No label on padding and markers; where names have none, from a start marker of this row to the next end marker."""
    labels, in_name = [], False
    for token in row:
        if token == START:
            in_name = True
        elif token == END:
            in_name = False
        hidden = token in (START, END, padding_id) or (in_name and not name_loss)
        labels.append(-100 if hidden else token)
    return labels


def whole(some):
    """Articles whose entities all have names and good edges, as shards of the reference's profile have them."""
    return [
        Article(
            page_id=number + 1,
            input_ids=article.input_ids,
            entities=tuple(
                Entity(start=entity.start, end=entity.end, name_ids=entity.name_ids or (50,))
                for entity in article.entities
            ),
        )
        for number, (_, article) in enumerate(some)
    ]


def make_plan(articles, seed, eos_id=None, **options):
    """The plan of a run with --compat leia."""
    data = DataConfig(shards=("-",), compat="leia", **options)
    store = make_store([("jawiki", article) for article in articles], eos_id)
    return TrainingPlan(store, data, seed, ((START,), (END,)))


def test_the_stream_equals_the_described_one_row_for_row():
    """All strategies, probabilities and seeds, over several epochs, with rows asked for in any order."""
    seen = {"epochs": 0, "inserted": 0, "begin in a name": 0, "padding": 0}

    @settings(max_examples=200, deadline=None)
    @given(
        wikis(),
        st.sampled_from(["right", "left", "replace", "none"]),
        st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        st.booleans(),
        st.integers(2, 9),
        st.integers(0, 2**40),
        st.sampled_from([None, 7]),
    )
    def check(some, strategy, probability, name_loss, length, seed, eos_id):
        articles = whole(some)
        options = {"strategy": strategy, "probability": probability, "name_loss": name_loss, "max_length": length}
        made = make_plan(articles, seed, eos_id, **options)
        stream = reference_tokens(articles, strategy, probability, seed)
        rows = [[next(stream) for _ in range(length)] for _ in range(9)]
        last = made.rows(7, 2)
        assert last.input_ids.tolist() == rows[7:]
        found = made.rows(0, 9)
        assert found.input_ids.tolist() == rows
        assert found.labels.tolist() == [reference_labels(row, eos_id, name_loss) for row in rows]
        assert found.position_ids.tolist() == [list(range(length))] * 9
        seen["epochs"] += made.epoch_of_row(8) > 2
        seen["inserted"] += found.inserted_count
        seen["padding"] += int((found.input_ids == 7).sum()) if eos_id == 7 else 0
        seen["begin in a name"] += sum(
            token in row[: row.index(END)] for row in rows if END in row for token in [row[0]] if START not in row[:1]
        )

    check()
    assert min(seen.values()) > 10, seen


def test_the_order_is_that_of_datasets_shuffle():
    """Epoch by epoch, of a table of the same length."""
    for epoch in range(3):
        table = datasets.Dataset.from_dict({"row": list(range(50))}).shuffle(seed=11 + epoch)
        assert reference_order(11, epoch, 50).tolist() == table["row"][:]


def test_none_consumes_draws_too_and_no_article_is_held_out():
    """A plain run reads the articles in the order of the LEIA run, all of them; the implied options are set."""
    articles = [
        Article(page_id=page, input_ids=(page, page + 20), entities=(Entity(start=0, end=1, name_ids=(60,)),))
        for page in range(1, 12)
    ]
    made = make_plan(articles, 3, strategy="none", max_length=2)
    assert made.data.cross_document and made.data.validation_share == 0
    order = np.random.default_rng(3).permutation(11)
    assert made.rows(0, 11).input_ids[:, 0].tolist() == [articles[index].page_id for index in order]
    assert not len(made.validation_documents)


def test_a_row_that_begins_inside_a_name_keeps_the_labels_of_its_rest():
    """As in the reference, which looks for the start marker in the row alone; our own labels do not."""
    article = Article(page_id=1, input_ids=(1, 2, 3), entities=(Entity(start=1, end=2, name_ids=(50, 51, 52)),))
    options = {"probability": 1.0, "name_loss": False, "max_length": 4}
    reference = make_plan([article], 0, **options).rows(0, 2)
    assert reference.input_ids.tolist() == [[1, 2, 90, 50], [51, 52, 91, 3]]
    assert reference.labels.tolist() == [[1, 2, -100, -100], [51, 52, -100, 3]]
    data = DataConfig(shards=("-",), cross_document=True, validation_share=0, **options)
    ours = TrainingPlan(make_store([("jawiki", article)], None), data, 0, ((START,), (END,))).rows(0, 2)
    assert ours.labels.tolist() == [[-100, 2, -100, -100], [-100, -100, -100, 3]]
    assert (reference.label_count, ours.label_count) == (3, 2)


def test_a_draw_that_is_the_probability_inserts_in_the_reference_and_not_here(monkeypatch):
    """The reference skips a draw above it; our own draws are below it, so that 0 is never and 1 always."""
    article = Article(page_id=1, input_ids=(1, 2), entities=(Entity(start=0, end=1, name_ids=(50,)),))
    equal = np.array([0.5])
    monkeypatch.setattr(ReferenceDraws, "of_epoch", lambda *rest: iter([(np.array([0]), equal)]))
    monkeypatch.setattr(plan, "entity_draws", lambda *rest: equal)
    data = DataConfig(shards=("-",), validation_share=0)
    ours = TrainingPlan(make_store([("jawiki", article)], None), data, 0, ((START,), (END,)))
    assert make_plan([article], 0).epoch(0).inserted.tolist() == [True]
    assert ours.epoch(0).inserted.tolist() == [False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "anchor"}, "--names anchor: must be true with --compat leia"),
        ({"markers": "none"}, "--markers none: must be special with --compat leia"),
        ({"budget": "target_tokens"}, "--budget target_tokens: must be tokens with --compat leia"),
        ({"entities": ("blocks=prose",)}, "--entities .* must be left out with --compat leia"),
        ({"probability_buckets": (0.5,)}, "--probability-buckets .* must be left out with --compat leia"),
    ],
)
def test_what_the_reference_does_not_have_is_refused(options, message):
    """Rather than called compatible."""
    with pytest.raises(UsageError, match=message):
        DataConfig(shards=("-",), compat="leia", **options)
