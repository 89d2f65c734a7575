"""shard_statistics: sums that add up over shards, shares that are what they say."""

from __future__ import annotations

import random

import pytest

from leia_beam.shard_statistics import ShardStatistics, histogram, inserted_share, total


def statistics(lengths, **fields):
    return ShardStatistics(articles=len(lengths), tokens=sum(lengths), lengths=lengths, **fields)


def test_a_shard_is_described_by_sums_shares_and_lengths():
    """Tokens a character, names, inserted tokens with two markers a name."""
    found = statistics([10, 4, 6], characters=40, names=5, name_tokens=10, names_cut_otherwise_alone=2).as_json()
    assert found == {
        "articles": 3,
        "tokens": 20,
        "characters": 40,
        "names": 5,
        "names_cut_otherwise_alone": 2,
        "name_tokens": 10,
        "tokens_per_character": 0.5,
        "share_of_names_cut_otherwise_alone": 0.4,
        "inserted_token_share": {"0.5": 0.333333, "1": 0.5},
        "length_histogram": {"4": 1, "8": 1, "16": 1},
        "shortest": 4,
        "median": 6,
        "longest": 10,
    }


def test_a_shard_without_rows_divides_by_nothing():
    """Zeros."""
    empty = ShardStatistics().as_json()
    assert empty["tokens_per_character"] == empty["inserted_token_share"]["1"] == 0.0
    assert total([]) == {name: value for name, value in empty.items() if name != "median"}


def test_shards_add_up():
    """The total of parts is what the whole says, but for the median."""
    rng = random.Random(2)
    parts = []
    for _ in range(5):
        lengths = [rng.randrange(1, 5000) for _ in range(rng.randrange(4))]
        names = rng.randrange(50)
        parts.append((lengths, {"characters": 3 * sum(lengths), "names": names, "name_tokens": 2 * names}))
    whole = statistics(
        [length for lengths, _ in parts for length in lengths],
        **{name: sum(fields[name] for _, fields in parts) for name in parts[0][1]},
    ).as_json()
    added = total([statistics(lengths, **fields).as_json() for lengths, fields in parts])
    assert added == {name: value for name, value in whole.items() if name != "median"}


@pytest.mark.parametrize(
    ("length", "power"), [(0, "1"), (1, "1"), (2, "2"), (3, "4"), (512, "512"), (513, "1024"), (2**20, str(2**20))]
)
def test_a_length_is_counted_under_the_power_of_two_that_holds_it(length, power):
    """At most that power."""
    assert histogram([length]) == {power: 1}


def test_no_probability_inserts_nothing():
    """And each name once at 1."""
    sums = {"tokens": 80, "name_tokens": 12, "names": 4}
    assert inserted_share(sums, 0.0) == 0.0 and inserted_share(sums, 1.0) == 0.2
