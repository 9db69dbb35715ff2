from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from gradient_norms import limits
from hypothesis import given
from hypothesis import strategies as st
from numerics import noisy

from keras_vanish.interventions import Limits, ZScoreClipping
from keras_vanish.interventions.clipping import NormHistory


def test_z_scores_wait_for_their_history() -> None:
    policy = ZScoreClipping(history=25)
    assert limits(policy, noisy(1.0, 24)) == Limits(reach=policy.reach)
    assert limits(policy, noisy(1.0, 25)).fires_above < math.inf


@given(norms=st.lists(st.floats(1e-9, 1e9), min_size=25, max_size=80))
def test_z_scores_clip_to_less_than_they_fire_at(norms: list[float]) -> None:
    found = limits(ZScoreClipping(), norms)
    assert found.clips_to < found.fires_above
    assert found.clips_to >= min(norms) * 50.0**0.25 * (1 - 1e-9)


def test_the_limit_is_the_largest_of_three() -> None:
    same = [1.0] * 200
    assert limits(ZScoreClipping(), same).fires_above == pytest.approx(50.0)
    assert limits(ZScoreClipping(), same).clips_to == pytest.approx(50.0**0.25)
    assert limits(ZScoreClipping(beyond=70.0), same).fires_above == pytest.approx(70.0)

    wide = noisy(1.0, 3000, spread=1.0)
    policy = ZScoreClipping(z=6.0, beyond=1e-9)
    state = policy.after(policy.begin(), wide)
    assert math.sqrt(state.variance) == pytest.approx(1.0, rel=0.4)
    above = state.mean + 6.0 * math.sqrt(state.variance)
    assert policy.limits(state).fires_above == pytest.approx(math.exp(above))


def test_an_average_forgets() -> None:
    found = limits(ZScoreClipping(beyond=1e-9), noisy(1.0, 100) + noisy(3.0, 600))
    assert found.clips_to == pytest.approx(3.0 * 50.0**0.25, rel=0.3)


def test_an_outlier_hardly_moves_the_average() -> None:
    policy, calm = ZScoreClipping(), noisy(1.0, 200)
    before, after = limits(policy, calm), limits(policy, [*calm, 1e9])
    assert before.fires_above < 1e9
    assert after.fires_above < 1.2 * before.fires_above


def test_a_new_level_that_lasts_is_reached() -> None:
    policy = ZScoreClipping()
    state = policy.after(policy.begin(), noisy(1.0, 200))
    steps = 0
    for norm in noisy(300.0, 400):
        if norm < policy.limits(state).fires_above:
            break
        state = policy.after(state, [norm])
        steps += 1
    assert 1 < steps < 100


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("every", [1, 10, 100])
def test_z_scores_leave_what_is_calm_alone(seed: int, every: int) -> None:
    # It falls by a factor of 3,000, then stays, with a spread of a factor of three.
    norms = [
        norm * max(0.99**step, 1 / 3000)
        for step, norm in enumerate(noisy(1.0, 3000, spread=1.1, seed=seed))
    ]
    policy = ZScoreClipping()
    state = policy.begin()
    for start in range(0, len(norms), every):
        part = norms[start : start + every]
        assert max(part) < policy.limits(state).fires_above
        state = policy.after(state, part)


@given(logs=st.lists(st.floats(-20.0, 20.0), min_size=1, max_size=24))
def test_at_first_the_average_is_the_mean_of_all(logs: list[float]) -> None:
    # As many as fit in the memory of a decay of 0.97, before anything is clipped.
    state = ZScoreClipping().after(NormHistory(), map(math.exp, logs))
    assert state.count == len(logs)
    assert state.mean == pytest.approx(statistics.fmean(logs), abs=1e-9)
    assert state.variance == pytest.approx(statistics.pvariance(logs), abs=1e-6)
    assert state.largest == pytest.approx(max(logs))


@pytest.mark.parametrize(
    "figures", [{"mean": math.nan}, {"mean": math.inf}, {"variance": -1.0}, {"variance": math.nan}]
)
def test_a_history_that_no_norms_have_is_refused(figures: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no norms have the mean .* variance .*must be finite and"):
        NormHistory(count=30, **figures)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"z": 0.0}, "z must be a finite number above 0"),
        ({"factor": 1.0}, "factor must be a finite number above 1"),
        ({"beyond": -1.0}, "beyond must be a finite number above 0"),
        ({"decay": 1.0}, "decay must be a finite number above 0 and below 1"),
        ({"history": 1}, "history must be a whole number, at least 2"),
        ({"reach": "far"}, "reach must be a finite number above 0"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        ZScoreClipping(**fields)
