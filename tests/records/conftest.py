"""What several tests of records need: the definitions, computed slowly and on their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from keras_vanish.records.bins import BINS, ZERO_BIN
from keras_vanish.records.statistics import COLUMNS, FLOATS, Statistics

Array = npt.NDArray[Any]


def _rms_of(x: Array) -> float:
    return math.sqrt(math.fsum(np.square(x)) / len(x)) if len(x) else math.nan


def _statistics_of(gradient: Array, weights: Array, update: Array) -> Statistics:
    """The definitions, applied to all entries at once in float64."""
    finite = gradient[np.isfinite(gradient)]
    size, absolute = len(gradient), np.abs(gradient)
    nonzero = absolute > 0
    return Statistics(
        size=size,
        gradient_rms=_rms_of(finite),
        gradient_norm=_rms_of(finite) * math.sqrt(len(finite)),
        gradient_norm_after_clipping=_rms_of(np.nan_to_num(gradient, posinf=1, neginf=-1) / 2)
        * math.sqrt(size),
        gradient_mean=math.fsum(finite) / len(finite) if len(finite) else math.nan,
        gradient_min=min(finite, default=math.nan),
        gradient_max=max(finite, default=math.nan),
        zero_fraction=float(np.mean(gradient == 0)),
        float16_underflow=float(np.mean(nonzero & (absolute < 2.0**-25))),
        bfloat16_underflow=float(np.mean(nonzero & (absolute < 2.0**-126))),
        nan_count=float(np.isnan(gradient).sum()),
        inf_count=float(np.isinf(gradient).sum()),
        weight_rms=_rms_of(weights),
        update_rms=_rms_of(update),
    )


def _assert_equal(got: Statistics, wanted: Statistics, but: tuple[str, ...] = ()) -> None:
    for name in COLUMNS:
        if name not in but:
            value, expected = getattr(got, name), getattr(wanted, name)
            # A mean of entries that cancel is as exact as the entries are.
            norm = np.nan_to_num(wanted.gradient_norm)
            slack = 1e-12 * norm if name == "gradient_mean" else 0.0
            # Below 1e-150 the squares of the reference leave float64.
            np.testing.assert_allclose(
                value, expected, rtol=1e-9, atol=slack + 1e-140, err_msg=name
            )


def _row_of(
    gradient: Array, weight_rms: float = 2.0, update_rms: float = 0.5
) -> tuple[Array, Array]:
    """The floats and counts that a recorded step leaves for one variable."""
    gradient = gradient.astype(np.float32)
    finite = gradient[np.isfinite(gradient)].astype(np.float64)
    known = len(finite) > 0
    floats = {
        "rms": _rms_of(finite),
        "mean": finite.mean() if known else math.nan,
        "min": finite.min() if known else math.nan,
        "max": finite.max() if known else math.nan,
        "nan_count": np.isnan(gradient).sum(),
        "inf_count": np.isinf(gradient).sum(),
        "rms_after_clipping": _rms_of(gradient.astype(np.float64)) / 2,
        "weight_rms": weight_rms,
        "update_rms": update_rms,
    }
    counts = np.zeros(BINS, np.float32)
    for bits in np.abs(gradient).view(np.int32):
        counts[ZERO_BIN if bits == 0 else bits >> 23] += 1
    return np.array([floats[name] for name in FLOATS], np.float32), counts


@pytest.fixture(scope="session")
def statistics_of() -> Callable[..., Statistics]:
    """`statistics_of(gradient, weights, update)`: the definitions, applied to all entries."""
    return _statistics_of


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """`assert_equal(got, wanted, but=())`: two `Statistics` are equal up to rounding."""
    return _assert_equal


@pytest.fixture(scope="session")
def row_of() -> Callable[..., tuple[Array, Array]]:
    """`row_of(gradient, weight_rms=2.0, update_rms=0.5)`: a variable's floats and counts."""
    return _row_of
