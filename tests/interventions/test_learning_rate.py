from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vanish.interventions import Intervention, LearningRateControl, Look
from keras_vanish.interventions.learning_rate import RateState

MakeLook = Callable[..., Look]

CONTROL = LearningRateControl()
CALM = [2.0] * 10

#: The layers' update ratios after clipping; they do not follow the gradient.
CLIPPED = [0.05, 0.1, 0.2]


def run(looks: Iterable[Look], control: LearningRateControl = CONTROL) -> Any:
    """The last state, and all interventions."""
    state, done = control.begin(), []
    for look in looks:
        state, act = control.decide(state, look)
        done += [act] if act else []
    return state, done


def actions(done: list[Intervention]) -> list[str]:
    return [act.action for act in done]


def test_it_begins_with_the_rate_as_it_is() -> None:
    assert CONTROL.begin().factor == 1.0


# Lowering.


def test_updates_that_are_far_too_large_lower_it_at_once(make_look: MakeLook) -> None:
    state, (act,) = run([make_look(step=5, ratio=40.0, rate=2.0)])
    assert state.factor == pytest.approx(0.01 / 40)
    assert act.action == "lower_rate"
    assert act.step == 5
    assert act.before == {"factor": 1.0, "learning_rate": 2.0}
    assert act.after == pytest.approx({"factor": 0.00025, "learning_rate": 0.0005})
    assert "3 layers" in act.reason
    assert "40 times" in act.reason


def test_a_single_reading_that_is_not_certain_does_not(make_look: MakeLook) -> None:
    assert run([make_look(ratio=2.0, verdict="healthy")])[1] == []
    assert actions(run([make_look(ratio=2.0, verdict="exploding")])[1]) == ["lower_rate"]


def test_the_calm_before_tells_by_how_much(make_look: MakeLook) -> None:
    state, _ = run([make_look(ratio=0.1), make_look(ratio=1e6)])
    assert state.factor == pytest.approx(0.1)
    state, _ = run([make_look(ratio=0.001), make_look(ratio=1e6)])
    assert state.factor == CONTROL.cut
    state, _ = run([make_look(ratio=1e6)])
    assert state.factor == pytest.approx(1e-4)


def test_explosions_of_another_cause_do_not_lower_it(make_look: MakeLook) -> None:
    look = make_look(rms=[10.0, 0.1, 1e-3])
    assert (look.verdict, look.thrown) == ("exploding", False)
    assert run([look] * 30)[1] == []


def test_divergence_lowers_it(make_look: MakeLook) -> None:
    bad = make_look(losses=[9.0] * 40)
    state, (act,) = run([make_look(losses=[2.0] * 40), bad])
    assert state.factor == CONTROL.cut
    assert act.action == "lower_rate"
    assert "9, after 2 at best and 2 at first" in act.reason


def test_oscillation_lowers_it(make_look: MakeLook) -> None:
    swings = [2.0 + (-1) ** step for step in range(80)]
    state, done = run([make_look(losses=swings, ratio=0.01)])
    assert (state.factor, actions(done)) == (CONTROL.cut, ["lower_rate"])
    assert "up and down" in done[0].reason
    # Not where the updates are small: then the batches are to blame.
    assert run([make_look(losses=swings, ratio=1e-4)])[1] == []


def test_clipping_most_of_the_steps_lowers_it(make_look: MakeLook) -> None:
    def clips(count: int, **more: Any) -> Any:
        look = make_look(norms=[1.0] * 5, clipped=count, **{"ratio": CLIPPED, **more})
        return run([make_look(ratio=0.001), *[look] * 4])

    state, done = clips(3)
    assert (state.factor, actions(done)) == (pytest.approx(0.1), ["lower_rate"])
    assert "12 of 20 updates had to be clipped, are 0.1 times the weights" in done[0].reason
    assert clips(2)[1] == []
    # Small after clipping, as where a norm or a percentile is the limit of most steps.
    assert clips(5, ratio=0.005)[1] == []
    # Not where the loss falls all the same.
    falling = [make_look(losses=[2.0] * 10), make_look(losses=[1.0] * 20)]
    clipped = make_look(losses=[1.0] * 20, norms=[1.0] * 20, clipped=20, ratio=CLIPPED)
    assert run([*falling, clipped])[1] == []


def test_only_the_last_updates_count_as_clipped(make_look: MakeLook) -> None:
    calm = make_look(norms=[1.0] * 20)
    clipped = make_look(norms=[1.0] * 20, clipped=20, ratio=CLIPPED)
    assert actions(run([*[calm] * 50, clipped])[1]) == ["lower_rate"]


def test_first_updates_that_are_clipped_lower_it_at_once(make_look: MakeLook) -> None:
    # Plain gradient descent at a rate of 20, clipped to a hundredth.
    look = make_look(ratio=0.1, rms=[0.05] * 3, rate=20.0, norms=[1.0], clipped=1)
    assert look.held
    state, (act,) = run([look])
    assert state.factor == pytest.approx(0.01 / 10)
    assert "would have been 10 times as large" in act.reason
    # One bad batch in the midst of a calm run is clipped, and that is that.
    assert run([make_look(), look])[1] == []


def test_it_cools_down_after_a_change(make_look: MakeLook) -> None:
    bad = make_look(ratio=40.0, losses=[2.0] * 10, verdict="exploding")
    assert len(run([bad] * 5)[1]) == 1
    assert len(run([bad] * 6)[1]) == 2


def test_what_did_not_help_is_done_less_often(make_look: MakeLook) -> None:
    diverging = [make_look(losses=[2.0] * 50)] + [make_look(losses=[9.0] * 50)] * 40
    _, done = run(diverging)
    # After 50, 100, 200, 400 and 800 steps more.
    assert len(done) == 6


def test_it_is_never_lowered_below_the_lowest(make_look: MakeLook) -> None:
    control = LearningRateControl(lowest=0.1, cool_down=1)
    state, done = run([make_look(ratio=1e9)] * 5, control)
    assert state.factor == 0.1
    assert len(done) == 1


# Restoring.


def lowered(make_look: MakeLook, **more: Any) -> RateState:
    """Lowered to a half, because the loss diverged for a while."""
    looks = [make_look(losses=[2.0] * 50), make_look(losses=[9.0] * 40)]
    state, _ = run(looks)
    assert state.factor == 0.5
    return dataclasses.replace(state, **more)


def test_calm_restores_it(make_look: MakeLook) -> None:
    state, done = lowered(make_look), []
    for _ in range(25):
        state, act = CONTROL.decide(state, make_look(losses=CALM))
        done += [act] if act else []
        if len(done) == 0:
            assert state.factor == 0.5
    assert actions(done) == ["restore_rate"]
    assert state.factor == 1.0
    assert "200 steps" in done[0].reason


@pytest.mark.parametrize(
    "more",
    [
        {"verdict": "exploding"},
        {"verdict": "nonfinite"},
        {"skipped": 1},
        {"recorded": False, "verdict": "healthy"},
        {"ratio": 0.006},
    ],
)
def test_what_is_not_calm_does_not_restore_it(make_look: MakeLook, more: dict[str, Any]) -> None:
    state = lowered(make_look)
    for _ in range(60):
        state, act = CONTROL.decide(state, make_look(losses=CALM, **more))
        assert act is None
    assert state.factor == 0.5


def test_only_calm_counts_as_calm(make_look: MakeLook) -> None:
    state, done = lowered(make_look), []
    # Trouble that is waited with, because the rate was lowered a short while ago.
    bad = make_look(losses=[9.0] * 40)
    calm = make_look(losses=CALM)
    for look in [*[calm] * 15, bad, *[calm] * 15]:
        state, act = LearningRateControl(cool_down=10_000).decide(state, look)
        done += [act] if act else []
    assert done == []
    # The first calm look still sees half of the bad losses.
    assert state.quiet == 140


def test_trouble_on_probation_takes_it_back_for_good(make_look: MakeLook) -> None:
    state, done = lowered(make_look, factor=0.25), []
    calm, bad = make_look(losses=CALM), make_look(losses=[9.0] * 40)
    for look in [*[calm] * 21, bad, *[calm] * 300]:
        state, act = CONTROL.decide(state, look)
        done += [act] if act else []
    assert actions(done) == ["restore_rate", "take_back_rate"]
    assert state.factor == state.ceiling == 0.25


def test_restoring_stays_near_what_large_updates_were_lowered_to(make_look: MakeLook) -> None:
    looks = [make_look(ratio=40.0), *[make_look(losses=CALM, ratio=1e-3)] * 300]
    state, done = run(looks)
    assert state.factor == pytest.approx(2 * 0.01 / 40)
    assert set(actions(done[1:])) == {"restore_rate"}


# Raising.


def starved(make_look: MakeLook, **more: Any) -> Look:
    fields: dict[str, Any] = {"losses": CALM, "ratio": 1e-7, "learned": False}
    return make_look(**{**fields, **more})


def test_a_run_that_is_starved_evenly_is_raised(make_look: MakeLook) -> None:
    state, done = run([starved(make_look)] * 21)
    assert actions(done) == ["raise_rate"]
    assert state.factor == 10.0
    assert "1.0e-07" in done[0].reason
    assert done[0].after == pytest.approx({"factor": 10.0, "learning_rate": 1.0})


def test_it_is_never_raised_above_the_highest(make_look: MakeLook) -> None:
    looks = [starved(make_look, rate=0.1)]
    state, done = CONTROL.begin(), []
    for _ in range(400):
        state, act = CONTROL.decide(state, starved(make_look, rate=0.1 * state.factor))
        done += [act] if act else []
    assert state.factor == 1000.0
    assert len(done) == 3
    state, done = run(looks * 400, LearningRateControl(highest=1))
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
    make_look: MakeLook, more: dict[str, Any]
) -> None:
    assert run([starved(make_look, **more)] * 300)[1] == []


def test_a_falling_loss_is_not_starved(make_look: MakeLook) -> None:
    looks = [starved(make_look, losses=[2.0 * 0.999**step] * 10) for step in range(300)]
    assert run(looks)[1] == []


def test_a_warm_up_is_waited_for(make_look: MakeLook) -> None:
    warm_up = [starved(make_look, rate=1e-6 * step) for step in range(1, 301)]
    assert run(warm_up)[1] == []
    assert actions(run([*warm_up, *[starved(make_look, rate=3e-4)] * 21])[1]) == ["raise_rate"]


def test_a_raise_after_which_the_loss_rises_is_taken_back(make_look: MakeLook) -> None:
    worse = starved(make_look, losses=[2.5] * 20, rate=1.0)
    state, done = run([*[starved(make_look)] * 21, worse, *[worse] * 100])
    assert actions(done) == ["raise_rate", "take_back_rate"]
    assert "from 2 to 2.5" in done[1].reason
    assert state.factor == 1.0


def test_a_raise_after_which_updates_are_too_large_is_taken_back(make_look: MakeLook) -> None:
    state, done = run([*[starved(make_look)] * 21, make_look(ratio=40.0, rate=1.0)])
    assert actions(done) == ["raise_rate", "take_back_rate"]
    assert state.factor <= 1.0


def test_a_run_that_had_to_be_lowered_is_not_raised(make_look: MakeLook) -> None:
    looks = [make_look(ratio=40.0), *[starved(make_look, rate=1e-4)] * 300]
    state, done = run(looks)
    assert "raise_rate" not in actions(done)
    assert state.factor <= 1.0


# What holds in general.


LOOKS = st.fixed_dictionaries(
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
@given(fields=st.lists(LOOKS, max_size=12))
def test_the_factor_stays_within_its_bounds(
    make_look: MakeLook, fields: list[dict[str, Any]]
) -> None:
    control = LearningRateControl(lowest=1e-3, highest=20.0, cool_down=1, calm=60)
    state = control.begin()
    for look in fields:
        kept = str(state)
        after, act = control.decide(state, make_look(**look))
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
@given(fields=st.lists(LOOKS, max_size=12), exponent=st.integers(-20, 20))
def test_a_factor_of_the_loss_changes_nothing_if_the_rate_has_it_too(
    make_scaled_look: MakeLook, fields: list[dict[str, Any]], exponent: int
) -> None:
    factor = 2.0**exponent

    def factors(scale: float) -> list[float]:
        looks = [make_scaled_look(look, scale) for look in fields]
        return [act.after["factor"] for act in run(looks)[1]]

    assert factors(factor) == factors(1.0)


def test_a_run_that_was_taken_back_is_judged_anew(make_look: MakeLook) -> None:
    state, _ = run([make_look(losses=[2.0] * 50), make_look(losses=[9.0] * 19)])
    forgotten = CONTROL.forget(state)
    assert CONTROL.decide(state, make_look(losses=[9.0] * 19))[1] is not None
    assert CONTROL.decide(forgotten, make_look(losses=[9.0] * 19))[1] is None
    assert forgotten.factor == state.factor
    assert forgotten.trend.first == 2.0


def test_a_cut_that_was_too_much_is_corrected_once(make_look: MakeLook) -> None:
    def after(ratio: float, share: float = 1e-4) -> list[float]:
        state, factors = CONTROL.lowered(CONTROL.begin(), share), []
        for step in (10, 20, 30):
            look = make_look(step=step, losses=[1.0] * 10, ratio=ratio, rate=0.1 * state.factor)
            state, act = CONTROL.decide(state, look)
            factors.append(state.factor)
            assert act is None or "lowered too far" in act.reason
        return factors

    assert after(0.01) == [1e-4] * 3
    assert after(1e-4) == pytest.approx([5e-3] * 3)
    assert after(1e-9) == [1.0] * 3
    assert after(1e-9, share=0.5) == [0.5] * 3


def test_what_a_rollback_lowered_stays(make_look: MakeLook) -> None:
    state = CONTROL.lowered(CONTROL.begin(), 0.01)
    assert state.factor == 0.01
    for step in range(0, 3000, 10):
        look = make_look(step=step, losses=[1.0] * 10, ratio=0.002, rate=0.1 * state.factor)
        state, act = CONTROL.decide(state, look)
        assert act is None
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
