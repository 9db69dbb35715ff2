from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from gradient_norms import NORMS, limits
from hypothesis import given
from hypothesis import strategies as st
from numerics import noisy

from keras_vanish.interventions import PercentileClipping


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"percentile": 0}, "percentile must be a finite number above 0"),
        ({"percentile": 101}, "percentile must be at most 100"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Received: {next(iter(fields))}="):
        PercentileClipping(**fields)
