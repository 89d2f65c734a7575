"""scheduling: what dealing and pulling take, with and without failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leia_beam.scheduling import DEALT, PULLED, Failures, Outcome, run_stage

UNITS = st.lists(st.floats(0.1, 100), min_size=1, max_size=40)


@given(UNITS, st.integers(1, 12))
def test_no_way_beats_the_work_or_the_longest_unit(units, workers):
    """Wall time is at least the mean share and the longest unit; pulling is within that sum; one worker does all."""
    bound = max(sum(units) / workers, max(units))
    for dealing in (PULLED, DEALT):
        outcome = run_stage(units, workers, dealing=dealing, start_s=2)
        assert outcome.wall_s >= bound + 2 - 1e-6
        assert outcome.busy_s == pytest.approx(sum(units)) and 0 < outcome.efficiency <= 1
    assert run_stage(units, workers, dealing=PULLED).wall_s <= sum(units) / workers + max(units) + 1e-6
    assert run_stage(units, 1, dealing=DEALT).wall_s == pytest.approx(sum(units))


def test_dealt_units_are_those_of_the_local_runner():
    """Worker k has units k, k + N, …: one long unit holds up those behind it alone."""
    units = [9.0, 1, 1, 1, 1, 1]
    assert run_stage(units, 3, dealing=DEALT).wall_s == 10
    assert run_stage(units, 3, dealing=PULLED).wall_s == 9
    assert run_stage(units, 6, dealing=DEALT, start_s=5) == Outcome(wall_s=14, busy_s=14, workers=6)


def test_nothing_to_do_takes_no_time():
    """Also where more workers than units are."""
    assert run_stage([], 4, dealing=PULLED).wall_s == run_stage([], 4, dealing=DEALT).wall_s == 0
    assert run_stage([3], 100, dealing=DEALT).wall_s == 3


@pytest.mark.parametrize("dealing", [PULLED, DEALT])
@pytest.mark.parametrize("stops_all", [False, True])
def test_failures_cost_and_end(dealing, stops_all):
    """Every unit is done in the end; the cost grows with the rate; the same seed gives the same outcome."""
    units = [60.0] * 400
    walls = []
    for rate in (0, 0.5, 4):
        failures = Failures(per_worker_hour=rate, restart_s=30, stops_all=stops_all and dealing == DEALT)
        outcome = run_stage(units, 20, dealing=dealing, failures=failures, seed=3)
        assert outcome == run_stage(units, 20, dealing=dealing, failures=failures, seed=3)
        assert (outcome.failed > 0) == (rate > 0)
        walls.append(outcome.wall_s)
    assert walls[0] == 1200 and walls == sorted(walls) and walls[2] < 20 * 1200


@pytest.mark.parametrize("dealing", [PULLED, DEALT])
def test_what_failed_is_done_again(dealing):
    """One worker takes all of the work, and the restarts, and what was lost."""
    failures = Failures(per_worker_hour=20, restart_s=30)
    outcome = run_stage([60.0] * 20, 1, dealing=dealing, failures=failures, seed=2)
    assert outcome.failed > 3
    assert 1200 + 30 * outcome.failed < outcome.wall_s < 1200 + 90 * outcome.failed


def test_what_was_committed_is_not_done_again_when_all_are_stopped():
    """With failures much rarer than units take, a stop costs at most a unit and a restart."""
    units = [10.0] * 1000
    failures = Failures(per_worker_hour=2, restart_s=30, stops_all=True)
    outcome = run_stage(units, 10, dealing=DEALT, failures=failures, seed=1)
    assert outcome.failed > 2
    assert 1000 < outcome.wall_s <= 1000 + outcome.failed * (10 + 30)


def test_wrong_settings_are_refused():
    """No worker, no such way."""
    with pytest.raises(ValueError, match="at least one worker"):
        run_stage([1], 0, dealing=PULLED)
    with pytest.raises(ValueError, match="'pulled' or 'dealt', not 'x'"):
        run_stage([1], 1, dealing="x")
