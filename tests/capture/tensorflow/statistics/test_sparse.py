"""The numbers of a sparse gradient are those of the same gradient made dense."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.python.framework import indexed_slices

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow.recorder import Recorder
from keras_vanish.capture.tensorflow.statistics import sparse
from keras_vanish.capture.tensorflow.statistics.histograms import exponent_histograms
from keras_vanish.capture.tensorflow.statistics.moments import clipped_root_mean_squares
from keras_vanish.capture.tensorflow.statistics.moments import moments as dense_moments
from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.records.bins import ZERO_BIN
from keras_vanish.records.statistics import FLOATS, MOMENTS

Array = npt.NDArray[Any]
SHAPE = (6, 3)
DTYPES = (tf.float16, tf.float32, tf.float64)

# Rounded to float32: only NumPy 2 takes them for equal to what the array holds.
extremes = np.float32([0.0, 1e-30, -1e30, 3e38, 1e-45, math.nan, math.inf, -math.inf])
special = st.sampled_from(extremes.tolist())
entries = st.one_of(special, st.floats(-4, 4, width=16))


@st.composite
def gradients(draw: Callable[..., Any]) -> tuple[list[int], Array]:
    indices = draw(st.lists(st.integers(0, SHAPE[0] - 1), max_size=9))
    return indices, draw(hnp.arrays(np.float32, (len(indices), SHAPE[1]), elements=entries))


@functools.cache
def both_ways(dtype: tf.DType) -> Callable[..., Any]:
    """Moments, RMS after clipping and histogram: of the slices, and of what they make dense."""
    packing = Packing([SHAPE], [dtype])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, SHAPE[1]], dtype),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def compute(values: tf.Tensor, indices: tf.Tensor) -> Any:
        slices = tf.IndexedSlices(values, indices, tf.constant(SHAPE))
        rows = sparse.rows_of(slices, SHAPE)
        moments = sparse.moments(rows)
        ours = (
            moments,
            sparse.clipped_root_mean_square(rows, moments[0]),
            sparse.exponent_histogram(rows),
        )
        packed = packing.pack([tf.convert_to_tensor(slices)])
        (expected,) = dense_moments(packing.groups, packed, False)
        (clipped,) = clipped_root_mean_squares(packing.groups, packed, [expected[:, 0]], False)
        counts = exponent_histograms(packing.groups, packed)
        return ours, (expected[0], clipped[0], counts[0])

    return compute


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(gradient=gradients())
def test_the_numbers_are_those_of_the_dense_gradient(
    dtype: tf.DType, gradient: tuple[list[int], Array]
) -> None:
    indices, values = gradient
    ours, dense = both_ways(dtype)(
        tf.cast(values, dtype), tf.constant(indices, tf.int32, [len(indices)])
    )
    # Where entries cancel that are beyond float32, as the row is, the mean says nothing.
    scale = min(np.nanmax([0, *np.abs(dense[0][2:4])]), 1e38)
    for name, got, expected in zip(MOMENTS, ours[0].numpy(), dense[0].numpy()):
        slack = 1e-6 * scale if name == "mean" else 1e-37
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=slack, err_msg=name)
    np.testing.assert_allclose(ours[1], dense[1], rtol=1e-5, atol=1e-37)
    np.testing.assert_array_equal(ours[2], dense[2])


def test_no_tensor_of_the_size_of_the_vocabulary_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary = 100_000
    # TensorFlow warns where slices become a tensor of so many entries, or of unknown shape.
    monkeypatch.setattr(indexed_slices, "_LARGE_SPARSE_NUM_ELEMENTS", 1)
    variable = tf.Variable(tf.ones([vocabulary, 8]))

    def traced(xla: bool) -> tuple[Recorder, Any]:
        recorder = Recorder([(vocabulary, 8)], [tf.float32], 1, 0, 1, xla, False)

        def before(values: tf.Tensor, indices: tf.Tensor) -> None:
            slices = tf.IndexedSlices(values, indices, tf.constant([vocabulary, 8]))
            weights = [tf.convert_to_tensor(variable)]
            recorder.keep(recorder.before([slices], [slices], weights))

        specs = [tf.TensorSpec([None, 8]), tf.TensorSpec([None], tf.int32)]
        return recorder, tf.function(before).get_concrete_function(*specs)

    with pytest.warns(UserWarning, match="Converting sparse IndexedSlices"):
        traced(xla=True)
    recorder, before = traced(xla=False)
    large = [
        operation.type
        for operation in before.graph.get_operations()
        for output in operation.outputs
        if (output.shape.num_elements() or 0) >= vocabulary
    ]
    # The weights, of which a sample is taken.
    assert set(large) <= {"ReadVariableOp", "Reshape"}
    before(tf.ones([3, 8]), tf.constant([5, 7, 5]))
    recorder.after(tf.constant(0, tf.int64), [tf.convert_to_tensor(variable)])
    (row,) = recorder.read(0)[1]
    named = dict(zip(FLOATS, row.floats[0]))
    assert named["rms"] == pytest.approx(math.sqrt((4 + 1) / vocabulary))
    assert (named["min"], named["max"]) == (0, 2)
    assert row.counts[0, ZERO_BIN] == 8 * (vocabulary - 2)


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.01}, {"global_clipnorm": 0.01}])
def test_sparse_and_dense_gradients_keep_their_places(clipping: dict[str, float]) -> None:
    L = keras.layers
    tokens = np.array([[1, 1, 4], [2, 4, 4]])
    targets = np.array([[1.0], [-1.0]])

    def model() -> Any:
        keras.utils.set_random_seed(1)
        layers = [L.Embedding(9, 4, name="table"), L.Flatten(), L.Dense(1, name="head")]
        made = keras.Sequential([keras.Input((3,)), *layers])
        made.compile(keras.optimizers.SGD(1.0, **clipping), "mse", jit_compile=False)
        return made

    plain, monitored = model(), model()
    before = [variable.numpy() for variable in plain.variables]
    plain.fit(tokens, targets, verbose=0)
    monitor = GradientMonitor(None, update_freq=1, probe=False)
    monitored.fit(tokens, targets, verbose=0, callbacks=[monitor])
    after = [variable.numpy() for variable in plain.variables]
    for theirs, ours in zip(after, monitored.variables):
        np.testing.assert_array_equal(theirs, ours.numpy())
    table, head = monitor.history[0].reading.layers
    assert (table.name, head.name) == ("table", "head")
    # At a rate of 1, weights change by the gradient that was clipped.
    changes = [old - new for old, new in zip(before, after)]
    for layer, parts in ((table, changes[:1]), (head, changes[1:])):
        norm = math.sqrt(sum(np.sum(np.square(part)) for part in parts))
        assert layer.gradient_norm_after_clipping == pytest.approx(norm, rel=1e-3)
    assert table.zero_fraction == pytest.approx(6 / 9)
    assert head.zero_fraction == 0
