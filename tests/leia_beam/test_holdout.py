"""holdout: which names are held out is a function of the name and the seed alone, and leaks are found as whole words."""

from __future__ import annotations

import random

import pytest

from leia_beam.errors import UsageError
from leia_beam.holdout import Holdout, LeakFinder, folded

NAMES = [f"Name {number}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_the_one_asked_for(share):
    """Within four standard deviations of the binomial."""
    held = sum(Holdout(share=share, seed=1).holds(name) for name in NAMES)
    assert abs(held - share * len(NAMES)) < 4 * (share * (1 - share) * len(NAMES)) ** 0.5


def test_all_or_none_can_be_held_out():
    """The ends of the range are exact."""
    assert all(Holdout(share=1.0, seed=seed).holds(name) for seed in (0, 1) for name in NAMES[:500])
    assert not any(Holdout(share=0.0, seed=seed).holds(name) for seed in (0, 1) for name in NAMES[:500])


def test_a_larger_share_holds_what_a_smaller_one_holds():
    """So shares can be compared with one another."""
    small = {name for name in NAMES if Holdout(share=0.05, seed=3).holds(name)}
    large = {name for name in NAMES if Holdout(share=0.2, seed=3).holds(name)}
    assert small and small < large


def test_another_seed_draws_others():
    """About a tenth of a tenth is in both."""
    one, other = ({name for name in NAMES if Holdout(share=0.1, seed=seed).holds(name)} for seed in (1, 2))
    assert 100 < len(one & other) < 320


def test_one_name_in_another_case_or_composition_goes_with_it():
    """All items of one name are held out together."""
    for name in ("Café Ōmi", "STRASSE", "new  york"):
        spellings = {name, name.upper(), name.title(), folded(name), "Cafe\u0301 O\u0304mi" if "Caf" in name else name}
        for seed in range(20):
            assert len({Holdout(share=0.5, seed=seed).holds(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    """With the range."""
    with pytest.raises(UsageError, match="give a share from 0 to 1"):
        Holdout(share=share)


@pytest.mark.parametrize(
    ("names", "text", "found"),
    [
        (["Tokyo"], "東京(Tokyo)はTokyoです。Tokyoite", ["tokyo", "tokyo"]),
        (["Tokyo"], "Tokyo Tower", ["tokyo"]),
        (["New York", "New York City"], "NEW YORK CITY, New  York", ["new york city", "new york"]),
        (["AC/DC"], "AC/DC", ["ac dc"]),
        (["日本"], "日本 は日本", ["日本"]),
        (["(!)"], "(!)", []),
        ([], "Tokyo", []),
        (["A B A"], "A B A B A", ["a b a", "a b a"]),
    ],
)
def test_leaks_are_whole_words_and_the_longest_first(names, text, found):
    """Latin words are parted from kana and ideographs beside them; case and white space count for nothing."""
    assert list(LeakFinder(names).find(text)) == found


def test_leaks_are_found_as_a_plain_search_finds_them():
    """On random words against every name at every place."""
    rng = random.Random(5)
    words = [f"w{number}" for number in range(12)]
    exercised = 0
    for _ in range(300):
        names = {tuple(rng.choices(words, k=rng.randrange(1, 4))) for _ in range(8)}
        text = rng.choices(words, k=30)
        expected = []
        for at in range(len(text)):
            fitting = [name for name in names if tuple(text[at : at + len(name)]) == name]
            expected += [" ".join(max(fitting, key=len))] if fitting else []
        assert list(LeakFinder(" ".join(name) for name in names).find(" ".join(text))) == expected
        exercised += len(expected)
    assert exercised > 500
