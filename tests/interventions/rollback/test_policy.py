"""How far a run is taken back, how often, and when it is stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_runs import MakeObservation
from rollback_runs import CALM, ROLLBACK, last, restored, run

from keras_vanish.diagnosis.loss_trend import NONFINITE
from keras_vanish.interventions import Decision, Rollback


def test_a_calm_run_is_kept_and_nothing_else(make_observation: MakeObservation) -> None:
    _, found = run([make_observation(losses=CALM)] * 6)
    assert [decision.keep for decision in found] == [True, False, True, False, True, False]
    assert all(decision in (Decision(), Decision(keep=True)) for decision in found)


def test_the_calm_before_tells_how_far_to_lower_the_rate(make_observation: MakeObservation) -> None:
    thrown = make_observation(ratio=1e6)
    assert last([make_observation(ratio=0.5), thrown]).factor == pytest.approx(0.02)
    assert last([make_observation(ratio=0.001), thrown]).factor == 0.5
    assert last([thrown]).factor == pytest.approx(1e-6)
    # The largest of them: with units that are dead nothing moves.
    assert last([make_observation(ratio=0.5), make_observation(ratio=1e-9), thrown]).factor == 0.02
    nan = make_observation(losses=[math.nan] * NONFINITE)
    assert last([make_observation(ratio=0.5), nan]).factor == pytest.approx(0.02)


def test_it_is_lowered_by_more_each_time_in_a_row(make_observation: MakeObservation) -> None:
    thrown = make_observation(ratio=1e6, losses=[2.0])
    _, found = run([make_observation(losses=CALM), *[thrown] * 3])
    assert [decision.factor for decision in found[1:]] == [0.5, 0.25, 0.125]


def test_a_restored_run_is_judged_anew(make_observation: MakeObservation) -> None:
    observations = [make_observation(losses=CALM), make_observation(losses=[9.0] * 40)]
    assert not restored(last([*observations, make_observation(losses=[9.0] * 10)]))
    assert restored(last([*observations, make_observation(losses=[9.0] * 40)]))


def test_where_all_stays_nan_the_data_are_to_blame(make_observation: MakeObservation) -> None:
    nan = make_observation(losses=[math.nan] * 10)
    _, found = run([make_observation(losses=CALM), *[nan] * 20])
    # After 10, 20 and 80 steps more.
    assert [place for place, decision in enumerate(found) if decision.restore] == [1, 3, 11]
    finite = make_observation(losses=[2.0])
    _, found = run([make_observation(losses=CALM), *[nan, finite] * 2])
    assert [decision.restore for decision in found] == [False, True, False, True, False]


def test_it_stops_after_all_attempts(make_observation: MakeObservation) -> None:
    rollback = Rollback(attempts=2)
    bad = make_observation(losses=[2.0, *[math.nan] * 5], step=9)
    state, found = run([bad] * 5, rollback)
    assert [decision.restore for decision in found] == [True, True, False, False, False]
    assert [decision.stop for decision in found] == [False, False, True, False, False]
    act = found[2].intervention
    assert act is not None
    assert act.action == "stop"
    assert "taken back 2 times already" in act.reason
    assert "the last 5 losses are NaN or infinite" in act.reason
    assert state.stopped
    assert found[3] == Decision()


def test_long_calm_gives_the_attempts_back(make_observation: MakeObservation) -> None:
    rollback = Rollback(attempts=1, rearm=200)
    bad, calm = make_observation(losses=[2.0, *[math.nan] * 5]), make_observation(losses=CALM)
    assert last([bad, *[calm] * 3, bad], rollback).stop
    decision = last([bad, *[calm] * 4, bad], rollback)
    assert decision.restore
    assert decision.factor == 0.5


FIELDS = st.fixed_dictionaries(
    {
        "ratio": st.sampled_from([1e-3, 0.1, 2.0, 1e6]),
        "losses": st.sampled_from([(), (1.0,) * 60, (2.0,) * 60, (9.0,) * 60, (math.nan,) * 60]),
        "norms": st.sampled_from([(1.0,) * 9, (math.nan,) * 9]),
        "skipped": st.sampled_from([0, 0, 3]),
        "stalled": st.sampled_from([False, False, True]),
        "verdict": st.sampled_from([None, "healthy", "exploding", "nonfinite"]),
        "recorded": st.sampled_from([True, True, False]),
        "rate": st.sampled_from([math.nan, 0.1]),
    }
)


@settings(deadline=None, max_examples=50)
@given(fields=st.lists(FIELDS, max_size=12))
def test_decisions_are_sound(
    make_observation: MakeObservation, fields: list[dict[str, Any]]
) -> None:
    state = ROLLBACK.begin()
    for seen in fields:
        kept = str(state)
        after, decision = ROLLBACK.decide(state, make_observation(**seen))
        assert str(state) == kept
        assert decision.keep + decision.restore + decision.stop <= 1
        assert (decision.intervention is not None) == (decision.restore or decision.stop)
        assert 0 < decision.factor <= 1
        assert (decision.factor < 1) == decision.restore
        assert after.restores <= ROLLBACK.attempts
        state = after


@settings(deadline=None, max_examples=50)
@given(fields=st.lists(FIELDS, max_size=12), exponent=st.integers(-20, 20))
def test_a_factor_of_the_loss_changes_nothing_if_the_rate_has_it_too(
    make_scaled_observation: MakeObservation, fields: list[dict[str, Any]], exponent: int
) -> None:
    def decisions(scale: float) -> list[tuple[bool, bool, bool, float]]:
        observations = [make_scaled_observation(seen, scale) for seen in fields]
        return [(d.keep, d.restore, d.stop, d.factor) for d in run(observations)[1]]

    assert decisions(2.0**exponent) == decisions(1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"copies": 0}, "copies must be a whole number, at least 1"),
        ({"attempts": True}, "attempts must be a whole number, at least 1"),
        ({"every": 0}, "every must be a whole number, at least 1"),
        ({"rearm": -1}, "rearm must be a whole number, at least 1"),
        ({"cut": 1.0}, "cut must be a finite number above 0 and below 1"),
        ({"aim": 0.0}, "aim must be a finite number above 0 and below 1"),
        ({"folder": 3}, "folder must be a path or None"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        Rollback(**fields)


def test_a_folder_is_a_path() -> None:
    assert Rollback(folder=Path("good")).folder == Path("good")
    assert Rollback(folder="good").folder == "good"
