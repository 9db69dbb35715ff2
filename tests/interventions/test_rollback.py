from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vanish.diagnosis.loss_trend import NONFINITE
from keras_vanish.interventions import Decision, Observation, Rollback
from keras_vanish.records.probed import Probed

MakeObservation = Callable[..., Observation]

ROLLBACK = Rollback()
CALM = [2.0] * 50


def run(
    observations: Iterable[Observation], rollback: Rollback = ROLLBACK
) -> tuple[Any, list[Decision]]:
    """The last state, and all decisions."""
    state, found = rollback.begin(), []
    for observation in observations:
        state, decision = rollback.decide(state, observation)
        found.append(decision)
    return state, found


def last(observations: Iterable[Observation], rollback: Rollback = ROLLBACK) -> Decision:
    return run(observations, rollback)[1][-1]


# Keeping.


def test_a_calm_run_is_kept_and_nothing_else(make_observation: MakeObservation) -> None:
    _, found = run([make_observation(losses=CALM)] * 6)
    assert [decision.keep for decision in found] == [True, False, True, False, True, False]
    assert all(decision in (Decision(), Decision(keep=True)) for decision in found)


@pytest.mark.parametrize(
    "more",
    [
        {"recorded": False, "verdict": "healthy"},
        {"ratio": 2.0, "verdict": "healthy"},
        {"verdict": "nonfinite"},
        {"nan_count": 1.0, "verdict": "healthy"},
        {"losses": [2.0, math.nan]},
        {"norms": [1.0, math.inf]},
        {"skipped": 1},
        {"stalled": True},
        {"losses": [1.0] * 30},
        {"losses": [9.0] * 15},
    ],
)
def test_what_is_not_good_is_not_kept(
    make_observation: MakeObservation, more: dict[str, Any]
) -> None:
    before = [make_observation(losses=[2.0] * 50), make_observation(losses=[0.1] * 100)]
    fields: dict[str, Any] = {"losses": [0.1] * 100}
    assert last([*before, make_observation(**fields)]).keep
    assert not last([*before, make_observation(**{**fields, **more})]).keep


def test_gradients_that_grow_are_no_reason_not_to_keep(make_observation: MakeObservation) -> None:
    observation = make_observation(rms=[10.0, 0.1, 1e-3])
    assert observation.verdict == "exploding"
    assert last([observation]).keep


# Restoring.


def restored(decision: Decision) -> str:
    """Why the run was taken back; empty if it was not."""
    if not decision.restore:
        assert decision.intervention is None
        return ""
    assert decision.intervention is not None
    assert decision.intervention.action == "roll_back"
    assert not decision.keep
    assert not decision.stop
    return decision.intervention.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_stay_nan_take_it_back(make_observation: MakeObservation, bad: float) -> None:
    calm = make_observation(losses=CALM)
    decision = last([calm, make_observation(losses=[bad] * NONFINITE, rate=0.2)])
    assert restored(decision) == "the last 5 losses are NaN or infinite"
    assert decision.factor == 0.5
    assert decision.intervention is not None
    assert decision.intervention.before == {"restores": 0, "learning_rate": 0.2}
    assert decision.intervention.after == {"restores": 1, "learning_rate": 0.1}
    assert not restored(last([calm, make_observation(losses=[bad] * (NONFINITE - 1))]))
    assert not restored(last([calm, make_observation(losses=[bad, 2.0] * 30)]))


def test_gradients_that_stay_nan_take_it_back(make_observation: MakeObservation) -> None:
    bad = [math.nan] * NONFINITE
    calm = make_observation(norms=[1.0] * 50)
    assert "last 5 updates" in restored(last([calm, make_observation(norms=bad)]))
    halves = [make_observation(norms=[1.0, math.nan, math.nan]), make_observation(norms=bad[:3])]
    assert restored(last([calm, *halves]))
    assert not restored(last([calm, make_observation(norms=bad[:-1])]))
    assert not restored(last([calm, make_observation(norms=[*bad, 1.0])]))


def test_a_run_without_updates_is_taken_back(make_observation: MakeObservation) -> None:
    stalled = make_observation(losses=[2.0] * 10, stalled=True)
    assert not restored(last([stalled] * 3))
    assert "no update was applied for 40 steps" in restored(last([stalled] * 4))
    assert not restored(last([stalled, stalled, make_observation(losses=CALM), stalled, stalled]))


def test_nan_weights_take_it_back_at_once(make_observation: MakeObservation) -> None:
    bad = make_observation(nan_count=[0.0, 9.0, 9.0])
    assert not restored(last([make_observation(losses=CALM), bad]))
    lost = make_observation(
        nan_count=[0.0, 9.0, 9.0], weight_rms=math.nan, losses=[math.nan], verdict="nonfinite"
    )
    reason = restored(last([make_observation(losses=CALM), lost]))
    assert reason == "the weights of 3 layers are NaN or infinite, first dense_0"
    # Behind a ReLU that makes 0 of NaN, losses and gradients are finite.
    hidden = make_observation(weight_rms=[math.nan, 0.1, 0.1], losses=CALM, verdict="nonfinite")
    reason = restored(last([make_observation(losses=CALM), hidden]))
    assert reason == "the weights of 1 layers are NaN or infinite, first dense_0"


def test_divergence_takes_it_back(make_observation: MakeObservation) -> None:
    decision = last([make_observation(losses=CALM), make_observation(losses=[9.0] * 40)])
    assert restored(decision) == "the loss diverges: it is 9, after 2 at best and 2 at first"
    assert decision.factor == 0.5


def test_new_weights_are_alive_whatever_the_first_observation_after_them_shows(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    dead = make_probed(rms=[0, 0, 1.0], dead_fraction=[0, 0, 1.0])
    observation = make_observation(losses=CALM, probed=dead, verdict="vanishing")
    assert observation.lost == "dead"
    state, _ = ROLLBACK.decide(ROLLBACK.begin(), observation)
    assert not ROLLBACK.decide(state, observation)[1].restore
    _, decision = ROLLBACK.decide(ROLLBACK.begin(born=""), observation)
    assert restored(decision).startswith("training itself led to this")


def test_an_explosion_that_forgets_what_was_learned_takes_it_back(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    # A network that is cut in two, at the loss of a constant prediction: the loss tells nothing.
    def observation(saved: float, **fields: Any) -> Observation:
        probed = make_probed(loss=2.0 * (1 - saved), shuffled_loss=2.0)
        given = {"verdict": "exploding", "learned": True, "losses": [2.0] * 10, "probed": probed}
        return make_observation(**{**given, **fields})

    calm = make_observation(losses=CALM)
    lost = [observation(0.0)] * 5
    reason = "gradients have exploded for 50 steps, and of what was learned of the input nothing"
    assert restored(last([calm, *lost])).startswith(reason)
    assert not restored(last([calm, *lost[:-1]]))
    # It still learns, never has, is calm, or is not probed.
    for other in (
        observation(0.2),
        observation(0.0, learned=False),
        observation(0.0, learned=None),
        observation(0.0, verdict="healthy"),
        observation(0.0, probed=None),
    ):
        assert not restored(last([calm, *[other] * 10]))
    # One reading that knows something begins the count anew.
    assert not restored(last([calm, *lost[:-1], observation(0.2), *lost[:-1]]))
    # Such a state is not kept as a good one.
    kept = [observation(0.0)] * 3
    assert not last([calm, *kept], Rollback(every=1)).keep
    assert last([calm, observation(0.2)], Rollback(every=1)).keep


def test_units_that_die_in_training_take_it_back(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    first = make_observation(losses=CALM, ratio=0.1)
    flat = make_observation(losses=CALM, probed=make_probed(saturated_fraction=1.0))
    decision = last([first, flat])
    assert restored(decision).startswith("training itself led to this: Most activations are sat")
    assert decision.factor == pytest.approx(0.1)
    assert not restored(last([flat, flat]))  # They were from the beginning on.
    other = make_probed(saturated_fraction=1.0)
    assert not restored(last([first, make_observation(probed=other, verdict="healthy")]))


def test_flat_units_do_not_matter_where_much_was_learned(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    learned = [make_observation(losses=CALM), make_observation(losses=[0.1] * 50)]
    flat = make_probed(saturated_fraction=1.0)
    assert last([*learned, make_observation(losses=[0.1] * 50, probed=flat)]) == Decision()
    assert restored(last([*learned, make_observation(losses=[1.8] * 50, probed=flat)]))


def test_of_dead_units_less_must_have_been_lost(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    learned = [make_observation(losses=CALM), make_observation(losses=[1.0] * 50)]
    flat = make_probed(saturated_fraction=1.0)
    # Behind the second layer nothing gets through.
    dead = make_probed([0.0, 0.0, 1.0], dead_fraction=[0.0, 1.0, 0.0])
    for probed, loss, back in ((dead, 1.15, True), (dead, 1.05, False), (flat, 1.15, False)):
        observation = make_observation(losses=[loss] * 50, probed=probed)
        assert observation.lost
        assert last([*learned, observation]).restore == back


def test_dead_units_that_know_nothing_take_it_back_however_low_the_loss(
    make_observation: MakeObservation, make_probed: Callable[..., Probed]
) -> None:
    # The first losses were large: one that observations at no input lies far below them.
    learned = [make_observation(losses=[9.0] * 10), make_observation(losses=[2.3] * 50)]
    for shuffled_loss, back in ((1.0, True), (2.0, False)):
        dead = make_probed(
            [0.0, 0.0, 1.0], dead_fraction=[0.0, 1.0, 0.0], loss=1.0, shuffled_loss=shuffled_loss
        )
        assert last([*learned, make_observation(losses=[2.3] * 50, probed=dead)]).restore == back


def test_an_explosion_that_keeps_the_loss_high_takes_it_back(
    make_observation: MakeObservation,
) -> None:
    calm = make_observation(losses=CALM)
    exploding = make_observation(losses=[3.0] * 30, verdict="exploding")
    _, found = run([calm, exploding, exploding])
    assert [decision.restore for decision in found] == [False, False, True]
    assert restored(found[-1]) == (
        "gradients have exploded for 60 steps, and the loss is 3, after 2 at first"
    )
    assert not restored(last([calm, *[make_observation(losses=[3.0] * 30)] * 2]))
    low = make_observation(losses=[2.4] * 30, verdict="exploding")
    assert not restored(last([calm, low, low]))
    # Calm in between.
    assert not restored(last([calm, exploding, make_observation(losses=[3.0]), exploding]))


@pytest.mark.parametrize(("loss", "kept"), [(3.0, False), (2.0, True)])
def test_where_gradients_explode_a_high_loss_is_not_good(
    make_observation: MakeObservation, loss: float, kept: bool
) -> None:
    calm = [make_observation(losses=CALM), make_observation(losses=[2.0] * 80)]
    decision = last([*calm, make_observation(losses=[loss] * 20, verdict="exploding")])
    assert decision == Decision(keep=kept)


def test_updates_that_are_certainly_too_large_take_it_back(
    make_observation: MakeObservation,
) -> None:
    calm = make_observation(losses=CALM)
    assert restored(last([calm, make_observation(ratio=4.5)])).startswith(
        "one update was 4.5 times"
    )
    assert not restored(last([calm, make_observation(ratio=3.5)]))
    # At the first observation going back costs little.
    decision = last([make_observation(ratio=3.5)])
    assert restored(decision)
    assert decision.factor == pytest.approx(0.01 / 3.5)


def test_a_first_update_that_was_clipped_takes_it_back(make_observation: MakeObservation) -> None:
    # Plain gradient descent at a rate of 20, clipped to a hundredth.
    observation = make_observation(ratio=0.1, rms=[0.05] * 3, rate=20.0, norms=[1.0], clipped=1)
    decision = last([observation])
    assert "would have been 10 times as large" in restored(decision)
    assert decision.factor == pytest.approx(0.01 / 10)
    # One bad batch in the midst of a calm run is clipped, and that is that.
    assert not restored(last([make_observation(), observation]))


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


# Stopping.


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


# What holds in general.


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
    for given in fields:
        kept = str(state)
        after, decision = ROLLBACK.decide(state, make_observation(**given))
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
        observations = [make_scaled_observation(given, scale) for given in fields]
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
