"""What is done to the rate, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_runs import MakeObservation, actions
from rate_runs import (
    CALM,
    CONTROL,
    decided,
    lowered,
    on_trial,
    run,
    starved,
)

from keras_vanish.interventions import LearningRateControl


def test_it_begins_with_the_rate_as_it_is() -> None:
    assert CONTROL.begin().factor == 1.0


def test_it_cools_down_after_a_change(make_observation: MakeObservation) -> None:
    bad = make_observation(ratio=40.0, losses=[2.0] * 10, verdict="exploding")
    assert len(run([bad] * 5)[1]) == 1
    assert len(run([bad] * 6)[1]) == 2


def test_what_did_not_help_is_done_less_often(make_observation: MakeObservation) -> None:
    diverging = [make_observation(losses=[2.0] * 50)] + [make_observation(losses=[9.0] * 50)] * 40
    _, done = run(diverging)
    # After 50, 100, 200, 400 and 800 steps more.
    assert len(done) == 6


def test_it_is_never_lowered_below_the_lowest(make_observation: MakeObservation) -> None:
    control = LearningRateControl(lowest=0.1, cool_down=1)
    state, done = run([make_observation(ratio=1e9)] * 5, control)
    assert state.factor == 0.1
    assert len(done) == 1


def test_a_lowered_rate_is_doubled_on_trial(make_observation: MakeObservation) -> None:
    state, done = decided(
        lowered(make_observation, factor=0.25), [make_observation(losses=CALM)] * 12
    )
    assert done == [None] * 4 + ["restore_rate"] + [None] * 4 + ["restore_rate"] + [None] * 2
    assert state.factor == 1.0
    state, act = CONTROL.decide(
        lowered(make_observation, factor=0.25, quiet=40, ratios=(0.002, 0.001, 0.003)),
        make_observation(losses=CALM, ratio=0.001),
    )
    assert act is not None
    assert "for 50 steps, updates were only 0.0015 times the weights" in act.reason
    assert "the loss is at its best, 2" in act.reason
    assert (state.before, state.level) == (0.25, 2.0)


def test_nothing_is_tried_where_nothing_is_to_be_gained(
    make_observation: MakeObservation, make_probed: Callable[..., Any]
) -> None:
    for loss, tried in ((0.02, True), (0.009, False)):
        probed = make_probed(loss=loss, shuffled_loss=1.0)
        _, done = decided(
            lowered(make_observation), [make_observation(losses=CALM, probed=probed)] * 9
        )
        assert ("restore_rate" in done) == tried


def test_a_single_small_update_is_not_what_is_usual(make_observation: MakeObservation) -> None:
    large, small = (make_observation(losses=CALM, ratio=ratio) for ratio in (0.008, 0.001))
    assert set(decided(lowered(make_observation), [large, small, large] * 3)[1]) == {None}
    assert "restore_rate" in decided(lowered(make_observation), [small, large, small] * 3)[1]


def test_where_the_loss_is_not_known_it_takes_longer(make_observation: MakeObservation) -> None:
    state, _ = run([make_observation(step=0, ratio=40.0)])
    observations = [make_observation(step=step, ratio=0.001) for step in range(10, 230, 10)]
    state, done = decided(state, observations)
    assert done.index("restore_rate") == 19
    assert state.factor == pytest.approx(2 * 0.01 / 40)


def test_a_trial_that_ends_with_a_higher_loss_is_taken_back(
    make_observation: MakeObservation,
) -> None:
    worse = make_observation(losses=[2.1] * 10)
    state, done = decided(on_trial(make_observation), [worse] * 5)
    assert done == [None] * 4 + ["take_back_rate"]
    assert state.factor == 0.125
    # What is tried next, and only after a longer calm, is a smaller step.
    state, done = decided(state, [make_observation(losses=CALM)] * 20)
    assert done == [None] * 19 + ["restore_rate"]
    assert state.factor == pytest.approx(0.125 * math.sqrt(2))
    # That goes well: the one after it is as large and as soon as the first.
    state, done = decided(state, [make_observation(losses=CALM)] * 5)
    assert done == [None] * 4 + ["restore_rate"]
    assert state.factor == pytest.approx(0.25 * math.sqrt(2))


def test_trouble_on_trial_takes_it_back(make_observation: MakeObservation) -> None:
    for bad in (make_observation(losses=[9.0] * 40), make_observation(losses=CALM, ratio=40.0)):
        state, done = decided(on_trial(make_observation), [bad])
        assert done == ["take_back_rate"]
        assert state.factor <= 0.125
        assert state.failed


def test_a_rollback_on_trial_is_a_failure_of_it(make_observation: MakeObservation) -> None:
    assert CONTROL.lowered(on_trial(make_observation), 0.5).failed
    assert not CONTROL.lowered(lowered(make_observation), 0.5).failed
    assert math.isnan(CONTROL.forget(on_trial(make_observation)).before)


def test_a_run_that_is_starved_evenly_is_raised(make_observation: MakeObservation) -> None:
    state, done = run([starved(make_observation)] * 21)
    assert actions(done) == ["raise_rate"]
    assert state.factor == 10.0
    assert "1.0e-07" in done[0].reason
    assert done[0].after == pytest.approx({"factor": 10.0, "learning_rate": 1.0})


def test_it_is_never_raised_above_the_highest(make_observation: MakeObservation) -> None:
    observations = [starved(make_observation, rate=0.1)]
    state, done = CONTROL.begin(), []
    for _ in range(400):
        state, act = CONTROL.decide(state, starved(make_observation, rate=0.1 * state.factor))
        done += [act] if act else []
    assert state.factor == 1000.0
    assert len(done) == 3
    state, done = run(observations * 400, LearningRateControl(highest=1))
    assert (state.factor, done) == (1.0, [])


def test_a_run_that_had_to_be_lowered_is_not_raised(make_observation: MakeObservation) -> None:
    observations = [make_observation(ratio=40.0), *[starved(make_observation, rate=1e-4)] * 300]
    state, done = run(observations)
    assert "raise_rate" not in actions(done)
    assert state.factor <= 1.0


FIELDS = st.fixed_dictionaries(
    {
        "ratio": st.sampled_from([1e-7, 1e-3, 0.1, 2.0, 1e6]),
        "losses": st.sampled_from([(), (2.0,) * 60, (9.0,) * 60, (1.0, 3.0) * 40]),
        "norms": st.just((1.0,) * 30),
        "clipped": st.sampled_from([0, 30]),
        "skipped": st.sampled_from([0, 0, 3]),
        "learned": st.sampled_from([None, False, True]),
        "verdict": st.sampled_from([None, "healthy", "exploding", "nonfinite"]),
        "recorded": st.sampled_from([True, True, False]),
        "rate": st.sampled_from([math.nan, 0.1, 0.2]),
    }
)


@settings(deadline=None, max_examples=50)
@given(fields=st.lists(FIELDS, max_size=12))
def test_the_factor_stays_within_its_bounds(
    make_observation: MakeObservation, fields: list[dict[str, Any]]
) -> None:
    control = LearningRateControl(lowest=1e-3, highest=20.0, cool_down=1, calm=60)
    state = control.begin()
    for seen in fields:
        kept = str(state)
        after, act = control.decide(state, make_observation(**seen))
        assert str(state) == kept
        assert 1e-3 <= after.factor <= 20.0
        assert (act is None) == (after.factor == state.factor)
        if act is not None:
            assert act.after["factor"] == after.factor
            assert act.before["factor"] == state.factor
            lowers = act.action in ("lower_rate", "take_back_rate")
            assert lowers == (after.factor < state.factor)
        state = after


@settings(deadline=None, max_examples=50)
@given(fields=st.lists(FIELDS, max_size=12), exponent=st.integers(-20, 20))
def test_a_factor_of_the_loss_changes_nothing_if_the_rate_has_it_too(
    make_scaled_observation: MakeObservation, fields: list[dict[str, Any]], exponent: int
) -> None:
    factor = 2.0**exponent

    def factors(scale: float) -> list[float]:
        observations = [make_scaled_observation(seen, scale) for seen in fields]
        return [act.after["factor"] for act in run(observations)[1]]

    assert factors(factor) == factors(1.0)


def test_a_run_that_was_taken_back_is_judged_anew(make_observation: MakeObservation) -> None:
    state, _ = run([make_observation(losses=[2.0] * 50), make_observation(losses=[9.0] * 19)])
    forgotten = CONTROL.forget(state)
    assert CONTROL.decide(state, make_observation(losses=[9.0] * 19))[1] is not None
    assert CONTROL.decide(forgotten, make_observation(losses=[9.0] * 19))[1] is None
    assert forgotten.factor == state.factor
    assert forgotten.trend.first == 2.0


def test_a_cut_that_was_too_much_is_corrected_once(make_observation: MakeObservation) -> None:
    def after(ratio: float, share: float = 1e-4) -> list[float]:
        state, factors = CONTROL.lowered(CONTROL.begin(), share), []
        for step in (10, 20, 30):
            observation = make_observation(
                step=step, losses=[1.0] * 10, ratio=ratio, rate=0.1 * state.factor
            )
            state, act = CONTROL.decide(state, observation)
            factors.append(state.factor)
            assert act is None or "lowered too far" in act.reason
        return factors

    assert after(0.01) == [1e-4] * 3
    assert after(1e-4) == pytest.approx([5e-3] * 3)
    assert after(1e-9) == [1.0] * 3
    assert after(1e-9, share=0.5) == [0.5] * 3


def test_units_that_are_lost_say_nothing_against_a_cut(
    make_observation: MakeObservation, make_probed: Callable[..., Any]
) -> None:
    state = CONTROL.lowered(CONTROL.begin(), 1e-4)
    dead = make_probed(rms=[0, 0, 1.0], dead_fraction=[0, 0, 1.0])
    observation = make_observation(losses=[1.0] * 10, ratio=1e-9, probed=dead)
    assert observation.lost == "dead"
    assert CONTROL.decide(state, observation)[1] is None


def test_what_a_rollback_lowered_is_tried_again(make_observation: MakeObservation) -> None:
    state = CONTROL.lowered(CONTROL.begin(), 0.01)
    assert state.factor == 0.01
    state, done = decided(state, [make_observation(losses=[1.0] * 10, ratio=0.002)] * 5)
    assert done == [None] * 4 + ["restore_rate"]
    assert state.factor == 0.02
    assert CONTROL.lowered(state, 1e-9).factor == CONTROL.lowest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aim": 0.0}, "aim must be a finite number above 0 and below 1"),
        ({"cut": 1.0}, "cut must be a finite number above 0 and below 1"),
        ({"cool_down": 0}, "cool_down must be a whole number, at least 1"),
        ({"calm": 1.5}, "calm must be a whole number, at least 1"),
        ({"tiny": math.nan}, "tiny must be a finite number above 0"),
        ({"lowest": 1.0}, "lowest must be a finite number above 0"),
        ({"highest": 0.5}, "highest must be at least 1"),
        ({"highest": math.inf}, "highest must be a finite number"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        LearningRateControl(**fields)
