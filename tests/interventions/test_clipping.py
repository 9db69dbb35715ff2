from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.interventions import (
    AdaptiveClipping,
    Limits,
    NormClipping,
    PercentileClipping,
    ZScoreClipping,
)

POLICIES = [ZScoreClipping(), ZScoreClipping(z=1.0, factor=1.5), PercentileClipping()]
NORMS = st.lists(st.floats(1e-9, 1e9), max_size=80)
BAD = [0.0, math.nan, math.inf]


def noisy(level: float, steps: int, spread: float = 0.3, seed: int = 0) -> list[float]:
    dice = random.Random(seed)
    return [level * dice.lognormvariate(0.0, spread) for _ in range(steps)]


def limits(policy: Any, norms: list[float]) -> Limits:
    return policy.limits(policy.after(policy.begin(), norms))


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


@given(norms=NORMS.filter(bool), percentile=st.floats(1.0, 100.0))
def test_percentiles_are_near_the_exact_one(norms: list[float], percentile: float) -> None:
    found = limits(PercentileClipping(percentile), norms)
    assert found.fires_above == found.clips_to
    rank = math.ceil(percentile / 100 * len(norms) * (1 - 1e-12))
    assert found.clips_to == pytest.approx(sorted(norms)[max(rank, 1) - 1], rel=0.011)


def test_the_default_percentile_is_that_of_autoclip() -> None:
    norms = noisy(1.0, 5000)
    expected = statistics.quantiles(norms, n=10)[0]
    assert limits(PercentileClipping(), norms).clips_to == pytest.approx(expected, rel=0.02)


def test_percentiles_keep_a_bounded_history() -> None:
    policy = PercentileClipping()
    state = policy.after(policy.begin(), noisy(1.0, 100_000, spread=1.0))
    assert len(state) < 32 * 16  # No norm of these is 2**8 times as far as another.
    assert sum(state.values()) == 100_000


def test_a_norm_is_always_the_same() -> None:
    assert limits(NormClipping(2), [1e9] * 50) == Limits(2.0, 2.0)


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        (ZScoreClipping, {"z": 0.0}, "z must be a finite number above 0"),
        (ZScoreClipping, {"factor": 1.0}, "factor must be a finite number above 1"),
        (ZScoreClipping, {"beyond": -1.0}, "beyond must be a finite number above 0"),
        (ZScoreClipping, {"decay": 1.0}, "decay must be a finite number above 0 and below 1"),
        (ZScoreClipping, {"history": 1}, "history must be a whole number, at least 2"),
        (ZScoreClipping, {"reach": "far"}, "reach must be a finite number above 0"),
        (PercentileClipping, {"percentile": 0}, "percentile must be a finite number above 0"),
        (PercentileClipping, {"percentile": 101}, "percentile must be at most 100"),
        (NormClipping, {"norm": math.nan}, "norm must be a finite number above 0"),
        (AdaptiveClipping, {"clipping": 0.0}, "clipping must be a finite number above 0"),
        (AdaptiveClipping, {"eps": None}, "eps must be a finite number above 0"),
    ],
)
def test_fields_are_checked(policy: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        policy(**fields)


def test_the_defaults_of_agc_are_those_of_its_paper() -> None:
    assert AdaptiveClipping() == AdaptiveClipping(clipping=0.01, eps=1e-3)
