"""Intervals and tests against known values, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_eval.stats import (
    Clustered,
    compare_items,
    detectable_difference,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    score_interval,
    two_level_difference,
    wilson_interval,
)

NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("correct", "n", "low", "high"), [*NEWCOMBE, (20, 20, 0.8389, 1.0)])
def test_wilson_has_the_published_values(correct, n, low, high):
    """The examples of Newcombe (1998), table I, method 3, and the upper end at n of n."""
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation_and_is_symmetric(case):
    """Each end p is where |share - p| is z standard errors at p; right and wrong swap the ends."""
    correct, n = case
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert wilson_interval(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    for end in (low, high):
        assert (correct / n - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, rel=1e-5, abs=1e-12)


def test_wilson_refuses_what_is_no_share():
    """No items, or more right than items."""
    for correct, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="is no share"):
            wilson_interval(correct, n)


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_is_the_share_of_coin_sequences_at_least_as_uneven(only_base, only_other):
    """Against the enumeration of all 2^n outcomes (n up to 12)."""
    n = only_base + only_other
    if n > 12:
        return
    heads = map(sum, itertools.product((0, 1), repeat=n))
    uneven = sum(abs(2 * count - n) >= abs(only_base - only_other) for count in heads)
    assert mcnemar_exact(only_base, only_other) == pytest.approx(uneven / 2**n)


def test_mcnemar_known_values():
    """No discordant item gives 1, and thousands of them do not overflow."""
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 6) == 0.03125
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(59, 121) == pytest.approx(4.4e-6, rel=0.05)
    assert 0 < mcnemar_exact(2000, 2200) < 0.01


def test_bootstrap_interval_is_that_of_all_resamples():
    """Against all 5^5 resamples of five items: the same quantiles up to the noise of the draw."""
    base, other = np.array([1, 0, 0, 1, 0]), np.array([1, 1, 1, 0, 0])
    differences = (other - base).astype(float)
    every = [differences[list(pick)].mean() for pick in itertools.product(range(5), repeat=5)]
    expected = np.quantile(every, [0.025, 0.975])
    assert paired_bootstrap(base, other, seed=1) == pytest.approx(expected, abs=1e-9)


def test_bootstrap_agrees_with_drawing_items_one_by_one():
    """For scores that are not 0 or 1, against plain resampling with indices."""
    generator = np.random.default_rng(3)
    base, other = generator.random(80), generator.random(80) + 0.1
    differences = other - base
    means = differences[generator.integers(0, 80, (20_000, 80))].mean(axis=1)
    assert paired_bootstrap(base, other, seed=2) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


def test_bootstrap_is_seeded():
    """One seed, one interval; another seed, another."""
    generator = np.random.default_rng(0)
    base, other = generator.random(50), generator.random(50)
    assert paired_bootstrap(base, other, seed=1) == paired_bootstrap(base, other, seed=1)
    assert paired_bootstrap(base, other, seed=1) != paired_bootstrap(base, other, seed=2)


def test_bootstrap_covers_the_true_difference_about_as_often_as_it_says():
    """300 simulated pairs of runs with a true gain of 6 points: 95 % of the intervals, give or take noise."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        draw = generator.random(300)
        base = (draw < 0.4) | (draw > 0.96)
        other = (draw < 0.4) | ((draw > 0.4) & (draw < 0.5))  # +0.10 -0.04
        low, high = paired_bootstrap(base, other, seed=1, resamples=1000)
        covered += low <= 0.06 <= high
    assert 0.91 <= covered / 300 <= 0.98


@pytest.mark.parametrize(("n", "discordant"), [(300, 30), (1000, 100), (1000, 200), (120, 30)])
def test_a_detectable_difference_is_found_in_four_of_five_sets(n, discordant):
    """Simulated sets with that difference: McNemar's test (in its normal form) finds it in about 80 %."""
    found = detectable_difference(n, discordant)
    share = discordant / n
    gain, loss = (share + found) / 2, (share - found) / 2
    counts = np.random.default_rng(0).multinomial(n, [gain, loss, 1 - share], size=20_000)
    b, c = counts[:, 0], counts[:, 1]
    power = np.mean((b - c) ** 2 > 1.959964**2 * (b + c))
    assert power == pytest.approx(0.80, abs=0.035)


def test_a_detectable_difference_exists_even_without_discordant_items():
    """Then it is the least one with all discordant items on one side; with too few items there is none."""
    assert detectable_difference(1000, 0) == pytest.approx(7.84 / 1000, rel=0.02)
    assert detectable_difference(1000, 3) == detectable_difference(1000, 0)
    assert detectable_difference(3, 0) is None
    assert detectable_difference(1000, 100) == pytest.approx(2.8 * math.sqrt(0.1 / 1000), rel=0.01)


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_a_detectable_difference_never_exceeds_one_and_falls_with_n(n, data):
    """Between 0 and 1, and not greater for twice the items at the same share."""
    discordant = data.draw(st.integers(0, n))
    found, twice = detectable_difference(n, discordant), detectable_difference(2 * n, 2 * discordant)
    if found is not None:
        assert 0 < twice <= found <= 1


def test_a_comparison_is_what_its_parts_say():
    """Counts, shares, difference and p of a small pair of runs."""
    base, other = np.array([1, 1, 0, 0, 0, 1, 0, 1]), np.array([1, 0, 1, 1, 1, 1, 0, 1])
    found = compare_items(base, other, seed=0)
    assert (found.n, found.only_base, found.only_other) == (8, 1, 3)
    assert (found.base, found.other, found.difference) == (0.5, 0.75, 0.25)
    assert found.p_mcnemar == 0.625
    assert found.low <= found.difference <= found.high
    swapped = compare_items(other, base, seed=0)
    assert (swapped.difference, swapped.only_base) == (-0.25, 3)


def test_runs_of_other_lengths_or_scores_are_refused():
    """Unpaired, empty, and not 0 or 1."""
    for base, other in (([1, 0], [1]), ([], [])):
        with pytest.raises(ValueError, match="same items"):
            compare_items(np.array(base), np.array(other), seed=0)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        compare_items(np.array([0.5]), np.array([1.0]), seed=0)


def test_with_one_seed_and_single_items_two_levels_are_the_paired_bootstrap():
    """Same distribution: ends within a tenth of a point, same difference."""
    draw = np.random.default_rng(0)
    base, other = (draw.integers(0, 2, 400).astype(float) for _ in range(2))
    names = [str(i) for i in range(400)]
    found = two_level_difference([Clustered.of(names, base, other)], seed=1)
    low, high = paired_bootstrap(base, other, seed=2)
    assert found.difference == pytest.approx(other.mean() - base.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_clusters_of_equal_items_count_as_one_item():
    """Each item ten times in a cluster: the interval of the tenth of the items, not of all."""
    draw = np.random.default_rng(1)
    base, other = (draw.integers(0, 2, 60).astype(float) for _ in range(2))
    names = [str(i) for i in range(60)]
    few = two_level_difference([Clustered.of(names, base, other)], seed=1)
    many = two_level_difference([Clustered.of(names * 10, np.tile(base, 10), np.tile(other, 10))], seed=1)
    assert (few.low, few.high, few.p) == pytest.approx((many.low, many.high, many.p))
    assert few.standard_error > 0.05


def test_an_item_in_several_languages_is_drawn_in_all_of_them():
    """Two tasks with the same items and scores are as uncertain as one; with other items they are less."""
    draw = np.random.default_rng(2)
    base, other = (draw.integers(0, 2, 200).astype(float) for _ in range(2))
    names = [str(i) for i in range(200)]
    one = Clustered.of(names, base, other)
    apart = Clustered.of([f"b{name}" for name in names], base, other)
    alone = two_level_difference([one], seed=3).standard_error
    assert two_level_difference([one, one], seed=3).standard_error == pytest.approx(alone)
    assert two_level_difference([one, apart], seed=3).standard_error == pytest.approx(alone / math.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("spread", "too_narrow"), [(0.0, 100), (0.3, 80)])
def test_two_levels_cover_the_truth_whether_or_not_seeds_differ(spread, too_narrow):
    """Simulated training noise, five seeds an arm: 95 % intervals hold the true difference in 88 to 100 of 100."""
    draw = np.random.default_rng(4)
    held = narrow = 0
    for trial in range(100):
        easy = draw.normal(0, 1, 200)
        arms = [
            np.stack([(easy + shift + draw.normal(0, spread) + draw.normal(0, 1, 200) > 0) for _ in range(5)]).astype(
                float
            )
            for shift in (0.0, 0.0)
        ]
        names = [str(i) for i in range(200)]
        found = two_level_difference([Clustered.of(names, *arms)], seed=trial, resamples=1000)
        held += found.low <= 0 <= found.high
        means = [arm.mean(axis=0) for arm in arms]
        low, high = paired_bootstrap(*means, seed=trial, resamples=1000)
        narrow += low <= 0 <= high
    assert 88 <= held <= 100
    assert narrow <= too_narrow, "without the seeds' level the intervals must be too narrow"


def shifted(means: list[float], n: int = 50) -> np.ndarray:
    """(seeds, n) Scores that are one number for each seed."""
    return np.repeat(np.array(means)[:, None], n, axis=1)


def test_seeds_that_differ_by_a_shift_give_students_interval():
    """No noise between items: the interval is that of Student's t with the two arms' four degrees of freedom."""
    names = [str(i) for i in range(50)]
    found = two_level_difference([Clustered.of(names, shifted([0.1, 0.2, 0.3]), shifted([0.4, 0.5, 0.6]))], seed=1)
    error = math.sqrt(2 * 0.01 / 3)
    assert found.standard_error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx((0.3 - 2.776 * error, 0.3 + 2.776 * error), rel=0.08)
    assert found.detectable == pytest.approx((2.776 + 0.842) * error, rel=0.08)
    assert found.p == pytest.approx(0.0214, rel=0.15)  # of t = 3.67 with four degrees of freedom, both sides


def test_degrees_of_freedom_are_those_of_the_arm_that_varies():
    """One seed in an arm, or seeds that agree, add no variance and no freedom: two seeds are one degree, five are four."""
    names = [str(i) for i in range(50)]
    for means, quantile in (([0.4, 0.6], 12.71), ([0.3, 0.4, 0.5, 0.6, 0.7], 2.776)):
        for base in ([0.5], [0.5, 0.5]):
            found = two_level_difference([Clustered.of(names, shifted(base), shifted(means))], seed=1)
            error = np.std(means, ddof=1) / math.sqrt(len(means))
            assert (found.standard_error, found.difference) == pytest.approx((error, 0.0))
            assert found.high == pytest.approx(quantile * error, rel=0.15)


def test_seeds_that_only_get_other_items_right_do_not_widen_the_interval():
    """Equal means with different items: the spread is that of the seeds' mean over items, and not three times as much."""
    draw = np.random.default_rng(6)
    scores = [np.array([draw.permutation([1.0] * 100 + [0.0] * 100) for _ in range(4)]) for _ in range(2)]
    names = [str(i) for i in range(200)]
    found = two_level_difference([Clustered.of(names, *scores)], seed=1)
    items = scores[1].mean(axis=0) - scores[0].mean(axis=0)
    assert found.standard_error == pytest.approx(items.std(ddof=1) / math.sqrt(200), rel=0.03)


def test_the_variance_of_seeds_is_that_of_two_way_analysis_of_variance():
    """By mean squares of seeds and of what is left, as textbooks have them: (MS seeds - MS left) / (seeds x items)."""
    draw = np.random.default_rng(9)
    seeds, n = 4, 60
    scores = [draw.normal(0, 1, n) + draw.normal(0, 0.2, (seeds, 1)) + draw.normal(0, 1, (seeds, n)) for _ in range(2)]
    expected = np.var(scores[1].mean(axis=0) - scores[0].mean(axis=0), ddof=1) / n
    added = []
    for arm in scores:
        of_seed, of_item, whole = arm.mean(axis=1, keepdims=True), arm.mean(axis=0, keepdims=True), arm.mean()
        ms_seeds = n * ((of_seed - whole) ** 2).sum() / (seeds - 1)
        ms_left = ((arm - of_seed - of_item + whole) ** 2).sum() / ((seeds - 1) * (n - 1))
        added.append(max(0.0, ms_seeds - ms_left) / (seeds * n))
    found = two_level_difference([Clustered.of([str(i) for i in range(n)], *scores)], seed=1)
    assert sum(added) > 0.2 * expected, "the seeds must matter"
    assert found.standard_error**2 == pytest.approx(expected + sum(added), rel=0.03)


def test_the_variance_of_seeds_counts_a_task_and_a_cluster_as_the_mean_does():
    """Two tasks that share clusters of several items: the same as one task of their items in one, at equal sizes."""
    draw = np.random.default_rng(7)
    names = [str(i // 3) for i in range(90)]
    first, second = ([draw.random((3, 90)) for _ in range(2)] for _ in range(2))
    apart = two_level_difference([Clustered.of(names, *first), Clustered.of(names, *second)], seed=1)
    both = [np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)]
    together = two_level_difference([Clustered.of(names * 2, *both)], seed=1)
    assert apart.standard_error == pytest.approx(together.standard_error, rel=0.02)


def test_a_small_set_beside_a_large_one_keeps_its_own_draws():
    """Three articles beside 1,000 questions: each is drawn among its own, so their variances add."""
    draw = np.random.default_rng(8)
    large = Clustered.of([f"q{i}" for i in range(1000)], np.zeros(1000), draw.integers(0, 2, 1000).astype(float))
    small = Clustered.of(["a", "b", "c"], np.zeros(3), np.array([0.0, 0.5, 1.0]))
    found = two_level_difference([large, small], seed=2)
    expected = math.sqrt(large.other.var() / 999 + (1 / 6) / 2) / 2
    assert found.standard_error == pytest.approx(expected, rel=0.03)


def test_one_cluster_says_nothing_of_others():
    """All items of one article: no interval and no p value, however many items."""
    found = two_level_difference([Clustered.of(["a"] * 90, np.zeros(90), np.ones(90))], seed=0)
    assert (found.difference, found.low, found.high, found.p) == (1.0, -1.0, 1.0, 1.0)
    score = score_interval([{"acc": i % 2, "cluster": "a"} for i in range(10)], "acc")
    assert (score.value, score.low, score.high) == (0.5, 0.0, 1.0)


def test_few_clusters_have_students_interval():
    """Five clusters: wider than the percentiles of resamples, as t with four degrees of freedom says."""
    scores = np.array([0.1, 0.4, 0.5, 0.6, 0.9])
    found = two_level_difference([Clustered.of(list("abcde"), np.zeros(5), scores)], seed=3)
    error = scores.std(ddof=1) / math.sqrt(5)
    assert found.standard_error == pytest.approx(error, rel=0.03)
    assert (found.low, found.high) == pytest.approx((0.5 - 2.776 * error, 0.5 + 2.776 * error), rel=0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_between_single_and_bonferroni(p_values):
    """Never below the single p, never above n times it, in the same order; the smallest is Bonferroni's."""
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-12 or q == max(adjusted)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert adjusted[order[0]] == min(1.0, len(p_values) * p_values[order[0]])


def test_holm_has_the_known_values():
    """Each p times how many are left, never less than the one before; in the order given."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.5, 0.001, 0.04]) == pytest.approx([0.5, 0.003, 0.08])


def test_a_tasks_interval_is_wilsons_for_single_items_and_over_clusters_else():
    """The same scores, alone and in clusters."""
    rows = [{"acc": i % 3 == 0, "cluster": str(i)} for i in range(90)]
    alone = score_interval(rows, "acc")
    assert (alone.low, alone.high) == wilson_interval(30, 90)
    together = score_interval([{**row, "cluster": str(i // 3)} for i, row in enumerate(rows)], "acc")
    assert together.value == pytest.approx(1 / 3)
    assert together.high - together.low < 1e-9, "each cluster has one of three right"
    for right, expected in ((0, wilson_interval(0, 30)), (1, wilson_interval(30, 30))):
        score = score_interval([{"acc": right, "cluster": str(i // 3)} for i in range(90)], "acc")
        assert (score.low, score.high) == expected, "30 articles, not 90 questions, and not a point"
