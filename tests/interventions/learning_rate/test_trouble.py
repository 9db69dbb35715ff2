"""Which troubles call for another rate, as the decisions show."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
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

#: The layers' update ratios after clipping; they do not follow the gradient.
CLIPPED = [0.05, 0.1, 0.2]


def test_updates_that_are_far_too_large_lower_it_at_once(make_observation: MakeObservation) -> None:
    state, (act,) = run([make_observation(step=5, ratio=40.0, rate=2.0)])
    assert state.factor == pytest.approx(0.01 / 40)
    assert act.action == "lower_rate"
    assert act.step == 5
    assert act.before == {"factor": 1.0, "learning_rate": 2.0}
    assert act.after == pytest.approx({"factor": 0.00025, "learning_rate": 0.0005})
    assert "3 layers" in act.reason
    assert "40 times" in act.reason


def test_a_single_reading_that_is_not_certain_does_not(make_observation: MakeObservation) -> None:
    assert run([make_observation(ratio=2.0, verdict="healthy")])[1] == []
    assert actions(run([make_observation(ratio=2.0, verdict="exploding")])[1]) == ["lower_rate"]


def test_the_calm_before_tells_by_how_much(make_observation: MakeObservation) -> None:
    state, _ = run([make_observation(ratio=0.1), make_observation(ratio=1e6)])
    assert state.factor == pytest.approx(0.1)
    state, _ = run([make_observation(ratio=0.001), make_observation(ratio=1e6)])
    assert state.factor == CONTROL.cut
    state, _ = run([make_observation(ratio=1e6)])
    assert state.factor == pytest.approx(1e-4)


def test_explosions_of_another_cause_do_not_lower_it(make_observation: MakeObservation) -> None:
    observation = make_observation(rms=[10.0, 0.1, 1e-3])
    assert (observation.verdict, observation.thrown) == ("exploding", False)
    assert run([observation] * 30)[1] == []


def test_divergence_lowers_it(make_observation: MakeObservation) -> None:
    bad = make_observation(losses=[9.0] * 40)
    state, (act,) = run([make_observation(losses=[2.0] * 40), bad])
    assert state.factor == CONTROL.cut
    assert act.action == "lower_rate"
    assert "9, after 2 at best and 2 at first" in act.reason


def test_oscillation_lowers_it(make_observation: MakeObservation) -> None:
    swings = [2.0 + (-1) ** step for step in range(80)]
    state, done = run([make_observation(losses=swings, ratio=0.01)])
    assert (state.factor, actions(done)) == (CONTROL.cut, ["lower_rate"])
    assert "up and down" in done[0].reason
    # Not where the updates are small: then the batches are to blame.
    assert run([make_observation(losses=swings, ratio=1e-4)])[1] == []


def test_clipping_most_of_the_steps_lowers_it(make_observation: MakeObservation) -> None:
    def clips(count: int, **more: Any) -> Any:
        observation = make_observation(norms=[1.0] * 5, clipped=count, **{"ratio": CLIPPED, **more})
        return run([make_observation(ratio=0.001), *[observation] * 4])

    state, done = clips(3)
    assert (state.factor, actions(done)) == (pytest.approx(0.1), ["lower_rate"])
    assert "12 of 20 updates had to be clipped, are 0.1 times the weights" in done[0].reason
    assert clips(2)[1] == []
    # Small after clipping, as where a norm or a percentile is the limit of most steps.
    assert clips(5, ratio=0.005)[1] == []
    # Not where the loss falls all the same.
    falling = [make_observation(losses=[2.0] * 10), make_observation(losses=[1.0] * 20)]
    clipped = make_observation(losses=[1.0] * 20, norms=[1.0] * 20, clipped=20, ratio=CLIPPED)
    assert run([*falling, clipped])[1] == []


def test_only_the_last_updates_count_as_clipped(make_observation: MakeObservation) -> None:
    calm = make_observation(norms=[1.0] * 20)
    clipped = make_observation(norms=[1.0] * 20, clipped=20, ratio=CLIPPED)
    assert actions(run([*[calm] * 50, clipped])[1]) == ["lower_rate"]


def test_first_updates_that_are_clipped_lower_it_at_once(make_observation: MakeObservation) -> None:
    # Plain gradient descent at a rate of 20, clipped to a hundredth.
    observation = make_observation(ratio=0.1, rms=[0.05] * 3, rate=20.0, norms=[1.0], clipped=1)
    assert observation.saved_by_clipping
    state, (act,) = run([observation])
    assert state.factor == pytest.approx(0.01 / 10)
    assert "would have been 10 times as large" in act.reason
    # One bad batch in the midst of a calm run is clipped, and that is that.
    assert run([make_observation(), observation])[1] == []


@pytest.mark.parametrize(
    "more",
    [
        {"verdict": "exploding"},
        {"verdict": "nonfinite"},
        {"skipped": 1},
        {"recorded": False, "verdict": "healthy"},
        {"ratio": 0.006},
        {"losses": [2.3] * 10},
        {"losses": [3.5] * 10},
    ],
)
def test_what_is_not_calm_does_not_restore_it(
    make_observation: MakeObservation, more: dict[str, Any]
) -> None:
    state, done = decided(
        lowered(make_observation), [make_observation(**{"losses": CALM, **more})] * 9
    )
    assert set(done) == {None}
    assert state.factor == 0.5


def test_a_loss_that_is_thrown_up_and_comes_down_again_is_no_failure(
    make_observation: MakeObservation,
) -> None:
    observations = [make_observation(losses=[loss] * 10) for loss in (3.9, 3.0, 2.2, 1.9, 1.9, 1.9)]
    state, done = decided(on_trial(make_observation), observations)
    # It is so good that a larger one is tried at once.
    assert done == [None] * 4 + ["restore_rate", None]
    assert (state.before, state.failed) == (0.25, False)
    # Above the first level, it has failed at once.
    assert decided(on_trial(make_observation), [make_observation(losses=[4.1] * 10)])[1] == [
        "take_back_rate"
    ]


def test_large_updates_with_no_progress_lower_it_further(make_observation: MakeObservation) -> None:
    stuck = make_observation(losses=CALM, ratio=0.02)
    state, done = decided(lowered(make_observation), [stuck] * 11)
    assert done == [None] * 10 + ["lower_rate"]
    assert (state.factor, state.failed) == (0.25, True)
    # With these, nothing is known against the rate.
    assert set(
        decided(lowered(make_observation), [make_observation(losses=CALM, ratio=0.008)] * 50)[1]
    ) == {None}
    # Nor where the loss comes down.
    falling = [make_observation(losses=[2.0 * 0.97**n] * 10, ratio=0.02) for n in range(50)]
    assert set(decided(lowered(make_observation), falling)[1]) == {None}


def test_a_loss_that_stays_apart_from_its_best_lowers_it(make_observation: MakeObservation) -> None:
    state, _ = decided(
        lowered(make_observation), [make_observation(losses=[1.0] * 10, ratio=0.008)] * 3
    )
    assert state.trend.best == 1.0

    def after(loss: float, ratio: float = 0.008) -> set[str | None]:
        return set(decided(state, [make_observation(losses=[loss] * 10, ratio=ratio)] * 15)[1])

    assert after(1.3) == {None, "lower_rate"}
    assert after(1.2) == {None}
    assert after(1.3, ratio=5e-5) == {None}
    # Before half of the loss is gone, it may be high for many reasons.
    state, _ = decided(lowered(make_observation), [make_observation(losses=CALM, ratio=0.008)] * 3)
    state = dataclasses.replace(state, trend=dataclasses.replace(state.trend, best=2.1))
    assert after(2.8) == {None}


def test_only_a_run_that_was_rescued_is_taken_for_unsettled(
    make_observation: MakeObservation,
) -> None:
    observations = [
        make_observation(losses=[4.0] * 10),
        *[make_observation(losses=CALM, ratio=0.02)] * 30,
    ]
    assert run(observations)[1] == []
    state, _ = run(observations[:1])
    _, done = decided(CONTROL.renewed(state), observations[1:])
    assert "lower_rate" in done


def test_much_momentum_calls_for_smaller_updates(make_observation: MakeObservation) -> None:
    for momentum, aim in ((0.0, 0.01), (0.9, 0.01), (0.99, 0.001)):
        state, _ = run([make_observation(ratio=4.0, momentum=momentum)])
        assert state.factor == pytest.approx(aim / 4)


@pytest.mark.parametrize(
    "more",
    [
        {"learned": None},
        {"learned": True},
        {"ratio": [1e-7, 1e-7, 1e-4]},
        {"verdict": "unknown"},
        {"rms": [1e-9, 1e-6, 1e-3]},
        {"losses": ()},
        {"rate": math.nan},
        {"rate": 0.0},
        {"recorded": False, "verdict": "healthy"},
    ],
)
def test_what_is_not_starved_evenly_is_not_raised(
    make_observation: MakeObservation, more: dict[str, Any]
) -> None:
    assert run([starved(make_observation, **more)] * 300)[1] == []


def test_a_falling_loss_is_not_starved(make_observation: MakeObservation) -> None:
    observations = [
        starved(make_observation, losses=[2.0 * 0.999**step] * 10) for step in range(300)
    ]
    assert run(observations)[1] == []


def test_a_warm_up_is_waited_for(make_observation: MakeObservation) -> None:
    warm_up = [starved(make_observation, rate=1e-6 * step) for step in range(1, 301)]
    assert run(warm_up)[1] == []
    assert actions(run([*warm_up, *[starved(make_observation, rate=3e-4)] * 21])[1]) == [
        "raise_rate"
    ]


def test_a_raise_after_which_the_loss_rises_is_taken_back(
    make_observation: MakeObservation,
) -> None:
    worse = starved(make_observation, losses=[2.5] * 20, rate=1.0)
    state, done = run([*[starved(make_observation)] * 21, worse, *[worse] * 100])
    assert actions(done) == ["raise_rate", "take_back_rate"]
    assert "from 2 to 2.5" in done[1].reason
    assert state.factor == 1.0


def test_a_raise_after_which_updates_are_too_large_is_taken_back(
    make_observation: MakeObservation,
) -> None:
    state, done = run([*[starved(make_observation)] * 21, make_observation(ratio=40.0, rate=1.0)])
    assert actions(done) == ["raise_rate", "take_back_rate"]
    assert state.factor <= 1.0
