from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions.learning_rate import RateState
from keras_vanish.interventions.learning_rate.state import ENOUGH, KEPT, counted_anew

COUNTS = st.integers(0, 1000)


def test_at_first_the_rate_is_the_users_and_nothing_is_known() -> None:
    state = RateState()
    assert state.factor == 1.0
    assert state.raisable
    flags = (state.failed, state.renewed, state.unchecked, state.on_trial)
    assert not any(flags)
    # It may be changed at once.
    assert state.since == math.inf
    assert math.isnan(state.usual_ratio)


def test_a_factor_is_on_trial_while_the_one_before_is_known() -> None:
    assert RateState(before=0.5).on_trial
    assert not RateState(before=math.nan).on_trial


@given(ratios=st.lists(st.floats(1e-9, 1e9), max_size=KEPT))
def test_what_is_usual_is_the_median_of_enough(ratios: list[float]) -> None:
    usual = RateState(ratios=tuple(ratios)).usual_ratio
    if len(ratios) < ENOUGH:
        assert math.isnan(usual)
    else:
        below = sum(ratio <= usual for ratio in ratios)
        above = sum(ratio >= usual for ratio in ratios)
        assert min(below, above) >= len(ratios) / 2


def test_one_odd_update_is_not_usual() -> None:
    assert RateState(ratios=(0.1, 1e9, 0.2)).usual_ratio == 0.2
    assert RateState(ratios=(0.1, 1e-9, 0.2, 0.3)).usual_ratio == pytest.approx(0.15)


@given(
    counts=st.fixed_dictionaries(
        dict.fromkeys(("since", "quiet", "updates", "clipped", "starved", "looks", "still"), COUNTS)
    ),
    kept=st.fixed_dictionaries(
        {
            "factor": st.floats(1e-6, 1e3),
            "step": COUNTS,
            "cuts": COUNTS,
            "failed": st.booleans(),
            "before": st.floats(1e-6, 1e3),
            "level": st.floats(-1e9, 1e9),
            "base": st.floats(1e-9, 1e3),
            "ratio": st.floats(1e-9, 1e9),
            "raisable": st.booleans(),
            "renewed": st.booleans(),
            "unchecked": st.booleans(),
        }
    ),
)
def test_counting_anew_forgets_the_counts_and_nothing_else(
    counts: dict[str, int], kept: dict[str, float]
) -> None:
    state = RateState(**counts, **kept, ratios=(0.1, 0.2), low=1.0)
    anew = counted_anew(state)
    assert {name: getattr(anew, name) for name in counts} == dict.fromkeys(counts, 0)
    assert (anew.ratios, anew.low) == ((), math.inf)
    assert {name: getattr(anew, name) for name in kept} == kept
    assert anew.trend is state.trend
    # No field is forgotten here.
    fields = {field.name for field in dataclasses.fields(RateState)}
    assert fields == {*counts, *kept, "ratios", "low", "trend"}
