"""Control arms: other names at LEIA's places by LEIA's draws, and doses of insertion by name."""

import numpy as np
import pytest
from article_strategies import wikis
from hypothesis import given, settings
from hypothesis import strategies as st
from list_reference import make_store
from shard_fixture import Article, Entity

from leia_beam.errors import UsageError
from leia_train.config import DataConfig
from leia_train.insertion import END, MARKER, NAME, TEXT
from leia_train.names import dose_numbers, name_keys, permuted_targets
from leia_train.plan import TrainingPlan


def article_with(page_id, *names):
    """An article of one token before each entity; entity tokens are 10 and 11."""
    tokens, entities = [1], []
    for name in names:
        entities.append(Entity(start=len(tokens), end=len(tokens) + 2, name_ids=tuple(name)))
        tokens += [10, 11, 2]
    return Article(page_id=page_id, input_ids=tuple(tokens), entities=tuple(entities))


def make_plan(articles, names="true", seed=5, **options):
    """A plan with markers 90 and 91, without EOS and validation."""
    data = DataConfig(shards=("-",), names=names, **{"validation_share": 0, "max_length": 4, **options})
    return TrainingPlan(make_store([("jawiki", article) for article in articles], None), data, seed, ((90,), (91,)))


def inserted_names(plan):
    """By article and entity, the tokens that the first epoch inserts (None: nothing)."""
    epoch = plan.epoch(0)
    made = plan.augmented(epoch, 0, len(epoch.order))
    tokens = made.tokens[made.kinds == NAME].tolist()
    found, at = {}, 0
    entity_offsets = plan.store.documents.entity_offsets
    for document in epoch.order:
        for entity in range(entity_offsets[document], entity_offsets[document + 1]):
            length = int(plan.inserted_lengths(np.array([entity]))[0]) - 2
            found[entity] = tuple(tokens[at : at + length]) if epoch.inserted[entity] else None
            at += length if epoch.inserted[entity] else 0
    return found


NAMES = [(50,), (51,), (52,), (60, 61), (62, 63), (70, 71, 72)]
ARTICLES = [article_with(page, *(NAMES[(page + k) % 6] for k in range(4))) for page in range(1, 31)]


def test_a_permuted_name_is_another_of_its_length_and_always_the_same():
    """The draws are LEIA's; the exchange is one to one; a name alone in its length takes a neighbour's."""
    true, permuted = (inserted_names(make_plan(ARTICLES, names)) for names in ("true", "permuted"))
    assert {entity for entity, name in true.items() if name} == {entity for entity, name in permuted.items() if name}
    exchanged = {}
    for entity, name in true.items():
        if name:
            assert exchanged.setdefault(name, permuted[entity]) == permuted[entity] != name
    assert sorted(exchanged) == sorted(exchanged.values()) == sorted(NAMES)
    assert {len(exchanged[name]) for name in NAMES[:3]} == {1}
    assert len(exchanged[NAMES[5]]) == 2
    others = inserted_names(make_plan(ARTICLES, "permuted", seed=6))
    assert {name for name in others.values() if name} <= set(NAMES)


def test_the_exchange_depends_on_the_seed():
    """Twenty names of one length."""
    lengths = np.ones(20, np.int64)
    keys = np.arange(20).astype(np.uint64)
    found = {tuple(permuted_targets(keys, lengths, seed).tolist()) for seed in range(5)}
    assert len(found) == 5
    assert all(sorted(sources) == list(range(20)) for sources in found)
    assert all(source != entity for sources in found for entity, source in enumerate(sources))


def test_no_name_keeps_itself_whatever_the_lengths():
    """Any multiset of lengths with two names or more: a permutation without a fixed point, lengths next to each other."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.integers(0, 9))
    def check(lengths, seed):
        sources = permuted_targets(np.arange(len(lengths)).astype(np.uint64) * 7, np.array(lengths), seed).tolist()
        assert sorted(sources) == list(range(len(lengths)))
        assert all(source != entity for entity, source in enumerate(sources))
        for length in set(lengths):
            if lengths.count(length) > 3:
                same = [entity for entity, found in enumerate(lengths) if found == length]
                assert sum(lengths[sources[entity]] == length for entity in same) >= len(same) - 1

    check()


def test_one_name_alone_cannot_be_permuted():
    """Said, not done."""
    with pytest.raises(UsageError, match="all names in the shards are the same one"):
        make_plan([article_with(1, (50,), (50,))], "permuted")


def test_the_anchor_arm_repeats_the_anchor():
    """At LEIA's places."""
    plan = make_plan([article_with(1, (50,))], "anchor", probability=1.0)
    made = plan.augmented(plan.epoch(0), 0, 1)
    assert made.tokens.tolist() == [1, 10, 11, 90, 10, 11, 91, 2]
    assert made.kinds.tolist() == [TEXT, TEXT, TEXT, MARKER, NAME, NAME, MARKER, TEXT]


def test_equal_names_have_equal_keys_and_others_do_not():
    """Whatever stands before them; order and length count."""
    names = [(50, 51), (51, 50), (50,), (50, 51), (), (50, 50)]
    articles = [
        Article(
            page_id=1,
            input_ids=tuple(range(1, 7)),
            entities=tuple(Entity(start=place, end=place + 1, name_ids=name) for place, name in enumerate(names)),
        )
    ]
    keys = name_keys(make_store([("jawiki", articles[0])], None), 0, 6).tolist()
    assert keys[0] == keys[3]
    assert len(set(keys)) == 5


def test_a_dose_goes_by_name_and_is_met():
    """All mentions of a name have one probability; never and always are exact; buckets are about as large."""
    names = [(100 + number,) for number in range(400)]
    articles = [article_with(page, *names[page * 8 : page * 8 + 8], names[0]) for page in range(50)]
    plan = make_plan(articles, probability_buckets=(0.0, 1.0))
    doses = dose_numbers(plan.store, 2, 5)
    keys = name_keys(plan.store, 0, len(doses))
    assert len({(key, dose) for key, dose in zip(keys.tolist(), doses.tolist())}) == 400
    assert plan.epoch(0).inserted.tolist() == (doses == 1).tolist()
    assert 140 < len(set(keys[doses == 1].tolist())) < 260


def test_entities_can_be_chosen_by_every_column():
    """What is left out gets no name, and the draws of the others stay."""
    store_of = make_plan(ARTICLES).store
    everything = make_plan(ARTICLES, probability=1.0)
    count = len(store_of.entity_ordinals)
    ordinals = store_of.entity_ordinals
    blocks = np.array(store_of.categories["entity_blocks"].words)[store_of.categories["entity_blocks"].codes]
    qids = store_of.entity_qids
    one = f"Q{qids[qids > 0][0]}"
    wanted = {
        ("blocks=prose",): blocks == "prose",
        ("blocks!=prose,list",): blocks == "heading",
        ("kinds=link", "ordinals=0-2"): ordinals <= 2,
        ("ordinals=0,6",): (ordinals == 0) | (ordinals == 6),
        (f"qids={one}",): qids == int(one[1:]),
        ("qids!=none",): qids > 0,
        ("edges=exact", "name_languages=en", "entity_name_sources=sitelink"): np.ones(count, bool),
    }
    for conditions, expected in wanted.items():
        plan = make_plan(ARTICLES, probability=1.0, entities=conditions)
        assert plan.epoch(0).inserted.tolist() == expected.tolist(), conditions
        assert expected.sum() > 0
        half = make_plan(ARTICLES, entities=conditions).epoch(0).inserted
        assert half.tolist() == (make_plan(ARTICLES).epoch(0).inserted & expected).tolist()
    assert everything.usable_entities == count


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("blocks", "must be of the form column=value"),
        ("block=prose", "no column 'block' .*did you mean blocks"),
        ("blocks=tables", r"no entity of these shards has 'tables' \(there are prose, list, heading\)"),
        ("qids=42", "'42' is no qid"),
        ("ordinals=first", "'first' is no number or range"),
        ("edges=good", "no entity of these shards has 'good'"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(condition, message):
    """With what there is."""
    with pytest.raises(UsageError, match=message):
        make_plan(ARTICLES, entities=(condition,))


def test_the_budget_of_target_tokens_reads_as_many_of_the_articles_own_tokens():
    """For every budget the shortest beginning of the stream with that many tokens of text and EOS."""
    seen = {"epochs": 0, "longer": 0}

    @settings(max_examples=100, deadline=None)
    @given(wikis(), st.sampled_from(["right", "left", "replace", "none"]), st.integers(1, 60), st.integers(0, 9))
    def check(some, strategy, target, seed):
        data = DataConfig(
            shards=("-",), strategy=strategy, budget="target_tokens", max_length=2, validation_share=0, probability=0.7
        )
        plan = TrainingPlan(make_store(some, 2), data, seed, ((90,), (91,)))
        kinds = plan.rows(0, 120).kinds.ravel()
        own = np.cumsum((kinds == TEXT) | (kinds == END))
        if own[-1] < target:
            return
        position = plan.position_of_target(target)
        assert own[position - 1] == target and (position == 1 or own[position - 2] == target - 1)
        assert plan.steps(3, 2) == -(-plan.position_of_target(12) // 4)
        assert strategy != "none" or plan.steps(3, 2) == 3
        seen["epochs"] += plan.epoch_at(position - 1).number > 0
        seen["longer"] += position > target

    check()
    assert min(seen.values()) > 5, seen


def test_epoch_counts_are_those_of_its_tokens():
    """Articles, tokens, own tokens, insertions; validation articles are not counted."""
    plan = make_plan(ARTICLES, strategy="replace", validation_share=0.3)
    epoch = plan.epoch(1)
    made = plan.augmented(epoch, 0, len(epoch.order))
    counts = plan.epoch_counts(1)
    assert counts.articles == len(plan.training_documents) < 30
    assert counts.tokens == len(made.tokens)
    assert counts.target_tokens == int((made.kinds == TEXT).sum())
    assert counts.insertions == int((made.tokens == 90).sum()) > 0
