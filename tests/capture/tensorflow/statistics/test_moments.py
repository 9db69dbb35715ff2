"""Moments and RMS against a slow, independent reference in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from statistics_reference import (
    FLUSHED,
    MODES,
    PACKED,
    TENSORS,
    Array,
    check_moments,
    in_mode,
    reference_moments,
    rows_in,
    statistics_of,
    tensors_of,
    values,
)

from keras_vanish.capture.tensorflow.statistics.moments import moments as compute_moments
from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.records.statistics import MOMENTS


@pytest.mark.parametrize("mode", PACKED)
def test_nan_among_zeros_is_seen(mode: str) -> None:
    flat = np.zeros(77, np.float32)
    flat[0] = math.nan
    arrays = tensors_of(flat)
    for row, x in zip(rows_in(mode)(arrays)[0], arrays):
        check_moments(row, x)


@pytest.mark.parametrize("mode", PACKED)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_moments_equal_the_reference(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    moments, _, _ = rows_in(mode)(arrays)
    assert moments.dtype == np.float32
    assert moments.shape == (len(TENSORS), len(MOMENTS))
    for row, x in zip(moments, arrays):
        check_moments(row, x)


@pytest.mark.parametrize("mode", PACKED)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_root_mean_squares_equal_the_reference(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    _, rms, _ = rows_in(mode)(arrays)
    for got, x in zip(rms, arrays):
        if np.isfinite(np.asarray(x, np.float64)).all():
            np.testing.assert_allclose(got, reference_moments(x)[0], rtol=1e-5, atol=FLUSHED)
        else:
            assert not np.isfinite(got)


@pytest.mark.parametrize("mode", MODES)
def test_a_sum_over_millions_of_entries_stays_exact(mode: str) -> None:
    # One running float32 sum would lose the small terms: 2% at 20 million entries.
    x = 1 + np.random.default_rng(0).normal(size=(1, 4_000_000)).astype(np.float32)
    exact = math.sqrt(np.mean(np.square(x, dtype=np.float64)))

    def compute(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moments, rms, _ = statistics_of([x.shape], [x.dtype], [x], mode == "xla")
        return moments, rms

    moments, rms = in_mode(compute, mode)(tf.constant(x))
    np.testing.assert_allclose(moments[0, 0], exact, rtol=1e-4)
    np.testing.assert_allclose(rms[0], exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtypes", "conditions"),
    [
        ((65, 65), [tf.float32] * 9, 1),
        ((65, 65), [tf.float32] * 4 + [tf.float64] * 4, 2),
        ((1024, 600), [tf.float32] * 3, 3),
    ],
)
def test_one_condition_for_as_many_as_may_be_packed(
    shape: tuple[int, int], dtypes: list[tf.DType], conditions: int
) -> None:
    packing = Packing([shape] * len(dtypes), dtypes, largest=1 << 12)
    assert len(packing.groups) == len(dtypes)

    @tf.function
    def read(tensors: list[tf.Tensor]) -> tf.Tensor:
        rows = compute_moments(packing.groups, packing.pack(tensors), False)
        return packing.unpack(rows)

    tensors = [tf.fill(shape, tf.cast(i, dtype)) for i, dtype in enumerate(dtypes)]
    graph = read.get_concrete_function(tensors).graph
    assert sum(op.type in ("If", "StatelessIf") for op in graph.get_operations()) == conditions
    np.testing.assert_allclose(read(tensors)[:, 0], np.arange(len(dtypes)), rtol=1e-6)
