"""Rows take turns by shares: exact within a row at any place, found without the rows before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leia_train.mix_sources import SHARES_OF
from leia_train.row_turns import RowTurns

PARTS = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)


def test_any_beginning_has_each_share_within_less_than_a_row():
    """Tijdeman's bound, 1 - 1 / (2K - 2), over two periods and a bit; a period is exact; a source without parts never comes."""
    seen = {"three or more": 0, "worst above a half": 0, "no parts": 0}

    @settings(max_examples=200, deadline=None)
    @given(PARTS)
    def check(parts):
        turns, total = RowTurns(parts), sum(parts)
        found = turns.sources(0, 2 * total + 5).tolist()
        shares = [part / total for part in parts]
        active = sum(part > 0 for part in parts)
        bound = 0 if active == 1 else 1 - 1 / (2 * active - 2)
        counts, worst = [0] * len(parts), 0.0
        for row, source in enumerate(found, 1):
            counts[source] += 1
            worst = max(worst, *(abs(count - row * share) for count, share in zip(counts, shares)))
            if row == total:
                assert counts == parts
        assert worst <= bound + 1e-9
        seen["three or more"] += active > 2
        seen["worst above a half"] += worst > 0.5
        seen["no parts"] += 0 in parts

    check()
    assert min(seen.values()) > 5, seen


@settings(max_examples=50, deadline=None)
@given(PARTS, st.integers(0, 10**9))
def test_counts_and_places_are_those_of_a_walk(parts, far):
    """`counts` and `rows_until` at every row of a stretch that begins anywhere."""
    turns = RowTurns(parts)
    stretch = turns.sources(far, 60).tolist()
    walked = [turns.counts(far)]
    for source in stretch:
        walked.append(walked[-1] + np.eye(len(parts), dtype=int)[source])
    assert [turns.counts(far + row).tolist() for row in range(61)] == [counts.tolist() for counts in walked]
    for row, source in enumerate(stretch):
        assert turns.rows_until(source, int(walked[row][source]) + 1) == far + row + 1
    assert all(turns.rows_until(source, 0) == 0 for source, part in enumerate(parts) if part)


@pytest.mark.parametrize("parts", [(7500, 2500), (3334, 3333, 3333), (9999, 1), (SHARES_OF - 3, 1, 1, 1)])
def test_a_whole_period_of_the_finest_shares(parts):
    """10,000 rows have exactly the parts, and a rare source's row is not at the very start nor put off to the end."""
    turns = RowTurns(parts)
    assert turns.counts(SHARES_OF).tolist() == list(parts)
    assert turns.counts(3 * SHARES_OF + 1).sum() == 3 * SHARES_OF + 1
