"""Why a run is taken back, and which states are good, as the decisions show."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from policy_runs import MakeObservation
from rollback_runs import CALM, ROLLBACK, last, restored, run

from keras_vanish.diagnosis.loss_trend import NONFINITE
from keras_vanish.interventions import Decision, Observation, Rollback
from keras_vanish.records.probed import Probed


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
