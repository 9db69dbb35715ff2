from __future__ import annotations

import math

import numpy as np
import pytest

from keras_vanish.records.bins import BFLOAT16_FIRST_BIN, FLOAT16_FIRST_BIN


def _bounds(exponent_bin: int) -> tuple[float, float]:
    """The smallest and the largest float32 in a bin."""
    low = math.ldexp(1.0, exponent_bin - 127)
    return low, float(np.nextafter(np.float32(2 * low), np.float32(0)))


@pytest.mark.smoke
def test_float16_rounds_exactly_the_bins_below_its_first_to_zero() -> None:
    _, below = _bounds(FLOAT16_FIRST_BIN - 1)
    _, inside = _bounds(FLOAT16_FIRST_BIN)
    with np.errstate(under="ignore"):
        assert np.float16(below) == 0
        assert np.float16(inside) != 0


def test_the_first_bfloat16_bin_starts_at_its_smallest_normal_number() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    low, _ = _bounds(BFLOAT16_FIRST_BIN)
    assert low == float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_normal)
