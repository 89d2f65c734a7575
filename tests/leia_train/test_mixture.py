"""One stream of several sources: each with its share, its own order and its own names, in any order and in every arm."""

import dataclasses

import numpy as np
import pytest
from article_strategies import wikis
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import make_store
from shard_fixture import Article, Entity

from leia_beam.errors import LeiaError, UsageError
from leia_train.config import DataConfig
from leia_train.document_turns import document_turns
from leia_train.mix_sources import SHARES_OF
from leia_train.opening import mixed_plan
from leia_train.plan import TrainingPlan
from leia_train.row_turns import RowTurns

MARKERS = ((90,), (91,))
COLUMNS = ("input_ids", "position_ids", "labels", "kinds")


def texts_store(count=30, length=7, first=20):
    """A store like that of a text source: documents of `length` and more tokens without entities."""
    some = [
        (
            "english",
            Article(
                page_id=page, input_ids=tuple(first + (page + n) % 9 for n in range(length + page % 3)), entities=()
            ),
        )
        for page in range(count)
    ]
    return make_store(some, 2)


def wiki_store(wiki="jawiki", count=25):
    """Articles with names that can go in."""
    entity = Entity(start=1, end=3, name_ids=(60, 61))
    other = Entity(start=4, end=5, name_ids=(62,))
    some = [
        (wiki, Article(page_id=page, input_ids=(1, 2, 3, 4, 5, page % 40 + 3), entities=(entity, other)))
        for page in range(1, count)
    ]
    return make_store(some, 2)


def make_plan(*mix, seed=3, stores=None, **options):
    """Shards of one wiki with sources `english` (texts), `spanish` (another wiki), `code` (few texts)."""
    options = {"max_length": 10, "validation_share": 0.0, **options}
    data = DataConfig(shards=("-",), mix=mix, **options)
    found = stores or {"english": texts_store(), "spanish": wiki_store("eswiki"), "code": texts_store(2, 4, 40)}
    return mixed_plan(wiki_store(), found, data, seed, MARKERS)


THREE = ("english=-:0.25", "spanish=-:0.2,strategy=right,probability=1", "code=-:5%")


def same(one, other):
    """Whether two plans' rows are equal."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in (*COLUMNS, "sources"))


def test_rows_are_those_of_each_source_alone_in_turn():
    """Row by row: the next of its source's own stream, with that source's insertion; any stretch, backwards too."""
    plan = make_plan(*THREE)
    alone = [TrainingPlan(source.plan.store, source.plan.data, 3, MARKERS).rows(0, 200) for source in plan.sources]
    rows = plan.rows(0, 200)
    taken = [0] * 4
    for row, source in enumerate(rows.sources.tolist()):
        for name in COLUMNS:
            assert np.array_equal(getattr(rows, name)[row], getattr(alone[source], name)[taken[source]])
        taken[source] += 1
    assert taken == [100, 50, 40, 10] == plan.counts(200).tolist()
    inserted = [int(rows.inserted[rows.sources == number].sum()) for number in range(4)]
    assert inserted[1] == inserted[3] == 0 and 0 < inserted[0] < inserted[2] * 2.5
    for first in (190, 77, 13, 0):
        part = make_plan(*THREE).rows(first, 9)
        assert same(part, rows.part(first, first + 9))
    assert same(plan.rows(50, 4).part(1, 3), rows.part(51, 53))


@pytest.mark.parametrize("processes", [1, 2, 5, 10])
def test_any_number_of_processes_reads_the_same_rows(processes):
    """Each process asks for its part of a step alone."""
    whole = make_plan(*THREE).rows(30, 10)
    count = 10 // processes
    plans = [make_plan(*THREE) for _ in range(processes)]
    parts = [plan.rows(30 + count * number, count) for number, plan in enumerate(plans)]
    for name in (*COLUMNS, "sources"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_every_beginning_has_the_shares_within_a_row():
    """For generated wikis, lengths, seeds and shares; the order of a source is the same whatever the others' shares are."""
    seen = {"three": 0, "zero": 0}

    @settings(max_examples=40, deadline=None)
    @given(wikis(), st.integers(2, 9), st.integers(0, 99), st.lists(st.integers(0, 3333), min_size=1, max_size=3))
    def check(some, length, seed, parts):
        names = ("english", "spanish", "code")[: len(parts)]
        mix = [f"{name}=-:{part / SHARES_OF}" for name, part in zip(names, parts)]
        data = DataConfig(shards=("-",), mix=tuple(mix), max_length=length, validation_share=0)
        stores = {name: texts_store(4) for name in names}
        try:
            plan = mixed_plan(make_store(some, 2), stores, data, seed, MARKERS)
        except UsageError:
            return
        if not plan.is_mixed:
            assert plan.rows(0, 5).sources is None
            return
        rows = plan.rows(0, 120)
        for number, source in enumerate(plan.sources):
            tokens = np.cumsum(rows.sources == number) * length
            wanted = np.arange(1, 121) * length * float(source.share)
            assert np.abs(tokens - wanted).max() < length
            own = rows.input_ids[rows.sources == number]
            alone = TrainingPlan(source.plan.store, source.plan.data, seed, MARKERS)
            assert np.array_equal(own, alone.rows(0, len(own)).input_ids) if len(own) else source.share < 0.01
        seen["three"] += len(plan.sources) == 4
        seen["zero"] += 0 in parts

    check()
    assert min(seen.values()) >= 1, seen


def test_the_arms_of_a_comparison_read_the_same_sources_in_the_same_places():
    """plain, leia and permuted: the same turns, the very same rows of every source that inserts nothing."""
    mix = ("english=-:0.25", "spanish=-:0.2,strategy=run")
    arms = [make_plan(*mix, **options) for options in ({"strategy": "none"}, {}, {"names": "permuted"})]
    plain, leia, permuted = (plan.rows(0, 80) for plan in arms)
    for rows in (leia, permuted):
        assert np.array_equal(rows.sources, plain.sources)
        english = plain.sources == 1
        assert english.sum() == 20
        for name in COLUMNS:
            assert np.array_equal(getattr(rows, name)[english], getattr(plain, name)[english])
    inserted = [
        [int(rows.inserted[rows.sources == number].sum()) for number in range(3)] for rows in (plain, leia, permuted)
    ]
    assert inserted[0] == [0, 0, 0] and all(of[0] > 0 and of[1] == 0 and of[2] > 0 for of in inserted[1:])
    assert not np.array_equal(leia.input_ids, permuted.input_ids)


def test_a_share_of_nothing_is_no_source_and_a_share_of_all_leaves_nothing_else():
    """0: the rows of a run without --mix, and no store is asked for. 1: rows of the source alone."""
    without, zero = make_plan(), make_plan("english=-:0", "code=-:0%", stores={"-": None})
    assert not zero.is_mixed and zero.names == ("shards",)
    for name in COLUMNS:
        assert np.array_equal(getattr(zero.rows(0, 30), name), getattr(without.rows(0, 30), name))
    whole = make_plan("english=-:1")
    rows = whole.rows(0, 30)
    assert set(rows.sources.tolist()) == {1}
    assert np.array_equal(rows.input_ids, whole.sources[1].plan.rows(0, 30).input_ids)
    assert whole.epoch_of_row(29) == whole.sources[1].plan.epoch_of_row(29) > 0
    assert [amount.rows for amount in whole.amounts(30)] == [0, 30]


def test_a_short_source_is_read_again_and_its_epochs_are_counted():
    """In another order each time; above four epochs there is a warning that names it."""
    plan = make_plan("code=-:0.5", stores={"code": texts_store(8, 4, 40)})
    code = plan.amounts(64)[1]
    tokens = plan.sources[1].plan.epoch(0).end
    assert (code.rows, code.tokens, code.epoch_tokens) == (32, 320, tokens)
    assert code.epochs == pytest.approx(320 / tokens) and code.epochs > 4
    assert "code: read" in code.warning() and "smaller share" in code.warning()
    orders = {tuple(plan.sources[1].plan.epoch(number).order.tolist()) for number in range(4)}
    assert len(orders) == 4
    assert plan.amounts(4)[1].warning() is None
    shards = make_plan().amounts(400)[0]
    assert shards.epochs > 4 and "shards: read" in shards.warning() and "share" not in shards.warning()


def test_the_budget_in_target_tokens_goes_by_the_shards_own_tokens():
    """Enough steps that the rows of the shards hold what they would hold without insertion, and not one more."""
    mix = ("english=-:0.25", "spanish=-:0.25")
    batch, asked = 8, 12
    plain = make_plan(*mix, strategy="none", budget="target_tokens")
    plan = make_plan(*mix, probability=1.0, budget="target_tokens")
    assert plain.steps(asked, batch) == asked
    steps = plan.steps(asked, batch)
    assert steps > asked

    def own_tokens(rows):
        made = plan.main.rows(0, int(plan.counts(rows)[0]))
        return made.input_ids.size - made.inserted_count

    wanted = int(plain.counts(asked * batch)[0]) * 10
    assert own_tokens(steps * batch) >= wanted > own_tokens((steps - 1) * batch)


def test_shares_that_are_not_the_recipes_are_an_error():
    """One row of another source is seen; so are turns that are not by the shares, though the rows are theirs."""
    plan = make_plan(*THREE)
    tokens = (plan.counts(200) * 10).tolist()
    plan.check_shares(200, tokens)
    with pytest.raises(LeiaError, match=r"source shards: 990 tokens were read in 200 rows of 10, its share is 1,000"):
        plan.check_shares(200, [tokens[0] - 10, tokens[1] + 10, *tokens[2:]])
    plan._turns = RowTurns([1, 1, 1, 1])
    with pytest.raises(LeiaError, match="source shards: 500 tokens were read"):
        plan.check_shares(200, (plan.counts(200) * 10).tolist())


def test_a_source_without_its_store_is_named():
    """As after a finished run, whose texts lie elsewhere."""
    plan = make_plan("english=-:0.5", stores={"english": None})
    assert plan.counts(4).tolist() == [2, 2]
    with pytest.raises(UsageError, match="store of the source 'english'"):
        plan.rows(0, 4)


def test_articles_in_turn_have_the_shares_within_an_article():
    """All articles of the shards' epochs once each; of any beginning each source has its share within two lengths."""
    plan = make_plan(*THREE)
    (turns,) = document_turns(plan, 3)
    lengths = []
    for source, epoch, place in zip(turns.sources.tolist(), turns.epochs.tolist(), turns.places.tolist()):
        lengths.append(int(np.diff(plan.sources[source].plan.epoch(epoch).offsets)[place]))
    read = np.cumsum(np.where(turns.sources[:, None] == np.arange(4), np.array(lengths)[:, None], 0), axis=0)
    shares = np.array([float(source.share) for source in plan.sources])
    worst = np.abs(read / shares - (read / shares).mean(axis=1, keepdims=True)) * shares
    longest = max(lengths)
    assert (worst.max(axis=0) <= 2 * longest).all()
    shards = turns.sources == 0
    assert int(shards.sum()) == 3 * len(plan.main.training_documents)
    for number in range(4):
        mine = turns.sources == number
        order = np.lexsort((turns.places[mine], turns.epochs[mine]))
        assert np.array_equal(order, np.arange(mine.sum()))  # an epoch after the other, each in its order
    assert set(turns.epochs[turns.sources == 3].tolist()) > {0, 1, 2}  # a short source comes again
    unmixed = list(document_turns(make_plan(), 2))
    assert [set(part.epochs.tolist()) for part in unmixed] == [{0}, {1}]


def test_runs_of_turns_are_all_of_them_once():
    """Each source and epoch is one run of places, from any article to any other."""
    (turns,) = document_turns(make_plan(*THREE), 2)
    for first, last in ((0, 30), (25, 90), (60, len(turns))):
        found = {}
        for source, epoch, begin, places in turns.runs(first, last):
            for step, turn in enumerate(places):
                found[turn] = (source, epoch, begin + step)
        assert sorted(found) == list(range(first, last))
        for turn, triple in found.items():
            assert triple == (turns.sources[turn], turns.epochs[turn], turns.places[turn])


def test_a_source_holds_out_its_own_share_for_validation():
    """By its own hash: the run's share where the source says nothing, none where it says 0."""
    plan = make_plan("english=-:0.25", "spanish=-:0.25,validation_share=0", validation_share=0.4)
    english, spanish = (source.plan for source in plan.sources[1:])
    assert 3 < len(english.validation_documents) < 27 and len(spanish.validation_documents) == 0
    held = dataclasses.replace(english.data, validation_share=1 - 1e-9)
    with pytest.raises(UsageError, match="--mix english: no tokens to train on"):
        TrainingPlan(english.store, held, 3, MARKERS, "--mix english")
