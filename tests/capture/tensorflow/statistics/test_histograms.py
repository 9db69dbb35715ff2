"""Histograms against `frexp`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from statistics_reference import (
    MODES,
    PACKED,
    TENSORS,
    Array,
    constant_rows,
    in_mode,
    reference_histogram,
    rows_in,
    tensors_of,
    values,
)

from keras_vanish.capture.tensorflow.statistics.histograms import (
    counts_by_exponent,
    exponent_histograms,
)
from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.records.bins import ZERO_BIN


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_histograms_equal_frexp(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    # Float64 below the range of float32 has a test of its own.
    arrays = [np.where(np.abs(x) < 2.0**-126, 0, x) if x.dtype == float else x for x in arrays]
    _, _, counts = rows_in(mode)(arrays)
    for row, x in zip(counts, arrays):
        assert row.sum() == np.size(x)
        np.testing.assert_array_equal(row, reference_histogram(x))


@pytest.mark.smoke
@pytest.mark.parametrize("mode", PACKED)
def test_zeros_have_an_rms_of_zero_and_a_bin_of_their_own(mode: str) -> None:
    moments, rms, counts = constant_rows(mode, 0.0)
    assert not moments.any()
    assert not rms.any()
    sizes = [math.prod(shape) for shape, _ in TENSORS]
    np.testing.assert_array_equal(counts[:, ZERO_BIN], sizes)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [1e-45, -1e-45, 1e-39, 1.17e-38])
def test_subnormal_numbers_are_told_from_zeros(mode: str, value: float) -> None:
    _, _, counts = constant_rows(mode, value)
    for row, (shape, dtype) in zip(counts, TENSORS):
        if dtype == tf.float32:
            assert row[0] == math.prod(shape)
            assert row[ZERO_BIN] == 0


@pytest.mark.smoke
@pytest.mark.usefixtures("op_determinism")
@pytest.mark.parametrize("xla", [False, True])
def test_with_op_determinism_counts_need_nothing_that_a_gpu_refuses(xla: bool) -> None:
    x = tf.constant([0.0, 1e-45, 1e-3, -1e-3, 1.0, math.inf, math.nan])
    count = tf.function(counts_by_exponent, jit_compile=xla)
    np.testing.assert_array_equal(count(x), reference_histogram(x.numpy()))
    operations = count.get_concrete_function(x).graph.get_operations()
    assert not [op.name for op in operations if "Bincount" in op.type]


@pytest.mark.parametrize("mode", MODES)
def test_float64_below_the_range_of_float32_is_told_from_zeros(mode: str) -> None:
    packing = Packing([(3,)], [tf.float64])

    def compute(x: tf.Tensor) -> tf.Tensor:
        return exponent_histograms(packing.groups, packing.pack([x]))

    (counts,) = in_mode(compute, mode)(tf.constant([1e-39, -1e-200, 0.0], tf.float64)).numpy()
    assert counts[0] == 2
    assert counts[ZERO_BIN] == 1
