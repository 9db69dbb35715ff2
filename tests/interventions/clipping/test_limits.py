"""What limits are by default, and what holds of those of every policy with a history."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from gradient_norms import NORMS, limits
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions import (
    AdaptiveClipping,
    Limits,
    NormClipping,
    PercentileClipping,
    ZScoreClipping,
)
from keras_vanish.interventions.clipping.limits import exp_or_inf

POLICIES = [ZScoreClipping(), ZScoreClipping(z=1.0, factor=1.5), PercentileClipping()]
BAD = [0.0, math.nan, math.inf]


def test_by_default_nothing_is_clipped() -> None:
    assert Limits() == Limits(
        fires_above=math.inf, clips_to=math.inf, reach=math.inf, smallest_norm=None
    )


def test_limits_are_values() -> None:
    assert Limits(2.0, 1.0) == Limits(2.0, 1.0) != Limits(1.0, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().reach = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("policy", [ZScoreClipping(), PercentileClipping(), NormClipping(1.0)])
def test_limits_of_the_global_norm_have_no_smallest_norm(policy: Any) -> None:
    assert policy.limits(policy.begin()).smallest_norm is None
    assert AdaptiveClipping().limits(None).smallest_norm is not None


@pytest.mark.parametrize("policy", POLICIES)
@given(norms=NORMS, exponent=st.integers(-20, 20))
def test_limits_scale_with_the_norms(policy: Any, norms: list[float], exponent: int) -> None:
    factor = 2.0**exponent
    found, scaled = limits(policy, norms), limits(policy, [factor * norm for norm in norms])
    assert scaled.fires_above == pytest.approx(factor * found.fires_above, rel=1e-6)
    assert scaled.clips_to == pytest.approx(factor * found.clips_to, rel=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
@given(norms=NORMS, cut=st.integers(0, 80))
def test_it_does_not_matter_when_norms_are_looked_at(
    policy: Any, norms: list[float], cut: int
) -> None:
    state = policy.after(policy.begin(), norms[:cut])
    kept = str(state)
    assert policy.limits(policy.after(state, norms[cut:])) == limits(policy, norms)
    assert str(state) == kept


@pytest.mark.parametrize("policy", POLICIES)
@given(norms=NORMS, place=st.integers(0, 80), bad=st.sampled_from(BAD))
def test_bad_norms_do_not_count(policy: Any, norms: list[float], place: int, bad: float) -> None:
    assert limits(policy, [*norms[:place], bad, *norms[place:]]) == limits(policy, norms)


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_clipped_before_anything_is_known(policy: Any) -> None:
    first = policy.limits(policy.begin())
    assert (first.fires_above, first.clips_to) == (math.inf, math.inf)


def test_a_limit_that_no_float_holds_is_infinite() -> None:
    assert exp_or_inf(0.0) == 1.0
    assert exp_or_inf(708.0) < math.inf
    assert exp_or_inf(710.0) == exp_or_inf(math.inf) == math.inf
