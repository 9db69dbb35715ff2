from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vanish.interventions import Intervention, LearningRateControl, Observation
from keras_vanish.interventions.learning_rate import RateState

MakeObservation = Callable[..., Observation]

CONTROL = LearningRateControl()
CALM = [2.0] * 10

#: The layers' update ratios after clipping; they do not follow the gradient.
CLIPPED = [0.05, 0.1, 0.2]


def run(observations: Iterable[Observation], control: LearningRateControl = CONTROL) -> Any:
    """The last state, and all interventions."""
    state, done = control.begin(), []
    for observation in observations:
        state, act = control.decide(state, observation)
        done += [act] if act else []
    return state, done


def actions(done: list[Intervention]) -> list[str]:
    return [act.action for act in done]


def test_it_begins_with_the_rate_as_it_is() -> None:
    assert CONTROL.begin().factor == 1.0


# Lowering.


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


# Restoring.


def lowered(make_observation: MakeObservation, **more: Any) -> RateState:
    """Lowered to a half, because the loss had risen far; it was at its best with 2."""
    observations = [make_observation(losses=[4.0] * 10), make_observation(losses=[2.0] * 40)]
    state, (act,) = run([*observations, make_observation(losses=[9.0] * 40)])
    assert (act.action, state.factor, state.trend.best) == ("lower_rate", 0.5, 2.0)
    return dataclasses.replace(state, **more)


def decided(state: RateState, observations: Iterable[Observation], control: Any = CONTROL) -> Any:
    """The last state, and what was done after each observation."""
    done = []
    for observation in observations:
        state, act = control.decide(state, observation)
        done.append(act.action if act else None)
    return state, done


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


def on_trial(make_observation: MakeObservation) -> RateState:
    """Doubled from 0.125 a moment ago, with a loss of 2; it was 4 at first."""
    state, done = decided(
        lowered(make_observation, factor=0.125), [make_observation(losses=CALM)] * 5
    )
    assert (done[-1], state.factor) == ("restore_rate", 0.25)
    return state


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


# A run that does not settle.


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


# Raising.


def starved(make_observation: MakeObservation, **more: Any) -> Observation:
    fields: dict[str, Any] = {"losses": CALM, "ratio": 1e-7, "learned": False}
    return make_observation(**{**fields, **more})


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


def test_a_run_that_had_to_be_lowered_is_not_raised(make_observation: MakeObservation) -> None:
    observations = [make_observation(ratio=40.0), *[starved(make_observation, rate=1e-4)] * 300]
    state, done = run(observations)
    assert "raise_rate" not in actions(done)
    assert state.factor <= 1.0


# What holds in general.


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
    for given in fields:
        kept = str(state)
        after, act = control.decide(state, make_observation(**given))
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
        observations = [make_scaled_observation(given, scale) for given in fields]
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
