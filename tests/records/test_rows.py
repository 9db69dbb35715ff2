from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.rows import from_rows
from keras_vanish.records.statistics import COLUMNS

RowOf = Callable[..., tuple[Any, Any]]


def layer_of(name: str, *indices_and_sizes: tuple[int, int], units: int = 3) -> LayerInfo:
    indices, sizes = zip(*indices_and_sizes)
    variables = tuple(f"v{i}" for i in indices)
    return LayerInfo(name, variables, tuple(indices), tuple(sizes), units)


@pytest.mark.smoke
def test_rows_become_the_layers_that_own_them(row_of: RowOf) -> None:
    gradients = [np.array([3.0, 4.0]), np.array([0.0, 1e-9, -5.0]), np.array([7.0])]
    floats, counts = map(np.stack, zip(*[row_of(g) for g in gradients]))
    layers = [layer_of("late", (2, 1), units=9), layer_of("early", (0, 2), (1, 3))]
    reading = from_rows(7, 1.5, layers, floats, counts)
    assert (reading.step, reading.wall_time) == (7, 1.5)
    assert reading.names == ("late", "early")
    assert reading.units == (9, 3)
    late, early = reading.layers
    assert (late.name, late.depth, late.units) == ("late", 0, 9)
    assert (early.name, early.depth, early.units) == ("early", 1, 3)
    assert late.size == 1
    assert late.gradient_norm == late.gradient_rms == 7
    assert early.size == 5
    assert early.gradient_norm == pytest.approx(math.sqrt(50))
    assert early.gradient_rms == pytest.approx(math.sqrt(10))
    assert early.gradient_norm_after_clipping == pytest.approx(math.sqrt(50) / 2)
    assert (early.gradient_min, early.gradient_max) == (-5, 4)
    assert early.gradient_mean == pytest.approx(2 / 5)
    assert early.zero_fraction == pytest.approx(0.2)
    assert early.float16_underflow == pytest.approx(0.2)
    assert early.bfloat16_underflow == 0
    assert early.update_ratio == 0.25


def test_rows_of_a_gradient_that_is_not_finite(row_of: RowOf) -> None:
    floats, counts = row_of(np.array([math.nan, 3.0, math.inf, 4.0]))
    (layer,) = from_rows(0, 0.0, [layer_of("d", (0, 4))], floats[None], counts[None]).layers
    assert (layer.nan_count, layer.inf_count) == (1, 1)
    assert layer.gradient_norm == pytest.approx(5)
    assert math.isnan(layer.gradient_norm_after_clipping)


def test_a_row_of_nan_is_a_variable_without_a_gradient(row_of: RowOf) -> None:
    floats, counts = map(np.stack, zip(row_of(np.array([3.0, 4.0])), row_of(np.ones(2))))
    floats[1], counts[1] = math.nan, math.nan
    layers = [layer_of("both", (0, 2), (1, 2)), layer_of("none", (1, 2))]
    both, none = from_rows(0, 0.0, layers, floats, counts).layers
    assert both.gradient_norm == pytest.approx(5)
    assert both.zero_fraction == 0
    assert none.size == 2
    assert all(math.isnan(getattr(none, name)) for name in COLUMNS if name != "size")


def test_shares_are_missing_where_nothing_was_sampled(row_of: RowOf) -> None:
    floats, counts = row_of(np.array([3.0, 4.0]))
    layers = [layer_of("d", (0, 2))]
    (layer,) = from_rows(0, 0.0, layers, floats[None], np.zeros_like(counts)[None]).layers
    assert layer.gradient_max == 4
    assert math.isnan(layer.zero_fraction)
    assert math.isnan(layer.float16_underflow)
    assert math.isnan(layer.bfloat16_underflow)


float32s = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1.0, 1.0, width=32),
    st.floats(-1.0, 1.0, width=32).map(lambda v: v * 2.0**-24),
    st.floats(-1.0, 1.0, width=32).map(lambda v: v * 2.0**-125),
)


@settings(deadline=None)
@given(st.lists(float32s, min_size=1, max_size=40))
def test_underflow_shares_are_those_of_a_cast(row_of: RowOf, values: list[float]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    gradient = np.array(values, np.float32)
    # A tie between zero and the smallest subnormal number shares its bin with what
    # rounds up; the definition is "below 2**-25".
    gradient[np.abs(gradient) == 2.0**-25] = 1.0
    floats, counts = row_of(gradient)
    layers = [layer_of("d", (0, len(gradient)))]
    (layer,) = from_rows(0, 0.0, layers, floats[None], counts[None]).layers
    with np.errstate(all="ignore"):
        in_float16 = gradient.astype(np.float16)
    smallest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_normal)
    nonzero = gradient != 0
    flushed = nonzero & (np.abs(gradient) < smallest)
    assert layer.float16_underflow == pytest.approx(np.mean(nonzero & (in_float16 == 0)))
    assert layer.bfloat16_underflow == pytest.approx(np.mean(flushed))
    assert layer.zero_fraction == pytest.approx(np.mean(~nonzero))
