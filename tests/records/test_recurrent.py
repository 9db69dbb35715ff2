from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_vanish.records.recurrent import RecurrentReading


@pytest.mark.parametrize(
    ("rms", "horizon"),
    [
        ([1.0, 1.0, 1.0], 2),
        ([1.0, 0.009, 0.02, 1.0], 1),  # What comes again further back does not count.
        ([0.011, 0.1, 1.0], 2),
        ([1e-3, 1e-3, 1.0], 0),
        ([math.inf, 1.0], 1),
        ([math.nan, 0.5, 1.0], 1),
        ([1.0], 0),
        ([], math.nan),
        ([1.0, 0.0], math.nan),
        ([1.0, math.nan], math.nan),
        ([1.0, math.inf], math.nan),
    ],
)
def test_horizon(rms: list[float], horizon: float) -> None:
    assert RecurrentReading(tuple(rms)).horizon == pytest.approx(horizon, nan_ok=True)


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
    st.floats(-12, 12).map(lambda exponent: 10.0**exponent),
)
def test_horizon_does_not_depend_on_the_scale(rms: list[float], factor: float) -> None:
    # Values that a rounding moves over the limit are left out.
    assume(all(abs(value / rms[-1] - 0.01) > 1e-6 for value in rms))
    scaled = RecurrentReading(tuple(value * factor for value in rms))
    assert scaled.horizon == RecurrentReading(tuple(rms)).horizon
