"""Moments of what is not finite, or leaves the range of float32 when squared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from statistics_reference import (
    MODES,
    TENSORS,
    check_moments,
    constant_rows,
    in_mode,
    reference_histogram,
    reference_moments,
    statistics_of,
    visited_by,
)

from keras_vanish.capture.tensorflow.statistics import finite_moments
from keras_vanish.capture.tensorflow.statistics.finite_moments import careful_parts
from keras_vanish.capture.tensorflow.statistics.sampling import histogram_stride


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_without_a_finite_entry_moments_are_missing_and_counts_are_not(mode: str) -> None:
    moments, rms, counts = constant_rows(mode, math.nan)
    sizes = [math.prod(shape) for shape, _ in TENSORS]
    assert np.isnan(moments[:, :4]).all()
    assert np.isnan(rms).all()
    np.testing.assert_array_equal(moments[:, 4], sizes)
    np.testing.assert_array_equal(moments[:, 5], 0)
    np.testing.assert_array_equal(counts[:, 255], sizes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copied", [1 << 16, 1 << 22])
def test_a_large_tensor_is_exact_over_all_entries(
    mode: str, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite_moments, "_LARGEST_COPIED_SIZE", copied)
    shape = (260, 257)

    def compute(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return statistics_of([shape] * 2, [tf.float32] * 2, [a, b], mode == "xla")

    compiled = in_mode(compute, mode)
    visited = visited_by(histogram_stride, shape)
    assert visited[-1] < math.prod(shape) - 1
    # At either end the squares leave the range of float32.
    for scale in (1e-30, 1e-14, 1.0, 1e18, 1e30):
        x = (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)
        x[-1, -1] = 50 * scale  # in no sample
        moments, rms, counts = (t.numpy() for t in compiled(tf.constant(x), tf.constant(-x)))
        for i, array in enumerate((x, -x)):
            check_moments(moments[i], array, rtol=1e-4)
            np.testing.assert_allclose(rms[i], reference_moments(x)[0], rtol=1e-4)
            expected = reference_histogram(array.reshape(-1)[visited])
            np.testing.assert_array_equal(counts[i], expected)
            assert counts[i].sum() == len(visited)


def test_no_constant_has_the_size_of_a_gradient() -> None:
    @tf.function
    def compute(x: tf.Tensor) -> tf.Tensor:
        return careful_parts(x)

    graph = compute.get_concrete_function(tf.TensorSpec([1, 300_000])).graph
    large = {
        operation.type
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.num_elements() == 300_000
    }
    assert not large & {"BroadcastTo", "Const", "Fill", "OnesLike", "SequenceMask", "ZerosLike"}
    assert "IsNan" in large
