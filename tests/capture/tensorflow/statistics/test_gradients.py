"""Dense and sparse gradients of one update, in the order of the variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from statistics_reference import check_moments, reference_histogram, reference_moments

from keras_vanish.capture.tensorflow.statistics.gradients import GradientReader

SHAPES = [(4, 3), (6, 2), (5,), (3, 2)]
DTYPES = [tf.float32, tf.float32, tf.float64, tf.float32]


def gradients(scale: float = 1.0) -> tuple[list[Any], list[np.ndarray]]:
    """Two sparse gradients between two dense ones, and the same as arrays."""
    random = np.random.default_rng(0)
    given: list[Any] = []
    for shape, dtype in zip(SHAPES, DTYPES):
        if len(shape) == 2 and shape[1] == 2:
            # One row is there twice, and the others are zero.
            values = tf.constant(scale * random.normal(size=(3, 2)), dtype)
            given.append(tf.IndexedSlices(values, tf.constant([1, 0, 1]), tf.constant(shape)))
        else:
            given.append(tf.constant(scale * random.normal(size=shape), dtype))
    return given, [tf.convert_to_tensor(gradient).numpy() for gradient in given]


@pytest.mark.smoke
@pytest.mark.parametrize("xla", [False, True])
def test_rows_follow_the_variables(xla: bool) -> None:
    given, arrays = gradients()
    clipped, clipped_arrays = gradients(0.5)
    read = GradientReader(SHAPES, DTYPES, xla).read
    moments, after_clipping, counts = read(given, clipped)
    for i, array in enumerate(arrays):
        check_moments(moments[i].numpy(), array)
        np.testing.assert_array_equal(counts[i], reference_histogram(array))
        expected = reference_moments(clipped_arrays[i])[0]
        assert float(after_clipping[i]) == pytest.approx(expected, rel=1e-5)


def test_where_nothing_clips_the_rms_after_clipping_is_the_rms() -> None:
    moments, after_clipping, _ = GradientReader(SHAPES, DTYPES, False).read(gradients()[0], None)
    np.testing.assert_array_equal(moments[:, 0], after_clipping)


def test_which_gradients_are_sparse_may_change_from_trace_to_trace() -> None:
    reader = GradientReader(SHAPES, DTYPES, False)
    given, arrays = gradients()
    for each in (given, [tf.convert_to_tensor(gradient) for gradient in given]):
        moments, _, _ = reader.read(each, None)
        for i, array in enumerate(arrays):
            check_moments(moments[i].numpy(), array)
