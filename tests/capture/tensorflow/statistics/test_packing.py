"""Tensors in few matrices, and out of them again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_reference import (
    MODES,
    check_moments,
    in_mode,
    reference_histogram,
    reference_moments,
    statistics_of,
)

from keras_vanish.capture.tensorflow.statistics.moments import moments as compute_moments
from keras_vanish.capture.tensorflow.statistics.packing import Packing, largest_packed_size

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
dtypes = st.sampled_from([tf.float16, tf.bfloat16, tf.float32, tf.float64])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=12))
def test_unpacking_restores_the_order(tensors: list[tuple[tuple[int, ...], tf.DType]]) -> None:
    packing = Packing([s for s, _ in tensors], [d for _, d in tensors])
    packed = packing.pack([tf.fill(s, tf.cast(i, d)) for i, (s, d) in enumerate(tensors)])
    largest = [group.max(tf.reduce_max(x, 1)) for group, x in zip(packing.groups, packed)]
    rows = packing.unpack([tf.cast(x, tf.float32) for x in largest])
    np.testing.assert_array_equal(rows, np.arange(len(tensors)))


@pytest.mark.smoke
def test_small_tensors_of_one_dtype_are_packed_together() -> None:
    large = (257, 256)
    packing = Packing(
        [(2, 3), (300,), large, (2, 3), (3,), large],
        [tf.float32] * 3 + [tf.float16, tf.float64] + [tf.float32],
    )
    assert [group.members for group in packing.groups] == [(0, 1, 3), (2,), (4,), (5,)]
    together = packing.groups[0]
    # A tensor begins in a row of its own.
    assert together.owners.tolist() == [0, 1, 1, 1, 2]
    assert together.entries.tolist() == [6, 128, 128, 44, 6]
    assert [group.width for group in packing.groups[1:]] == [257 * 256, 3, 257 * 256]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("xla", "members"), [(False, [(1, 2, 4), (0,), (3,)]), (True, [(0, 1, 2, 3, 4)])]
)
def test_what_costs_more_to_pack_than_to_reduce_is_left_alone(
    xla: bool, members: list[tuple[int, ...]]
) -> None:
    if tf.config.list_logical_devices("GPU"):
        members = [(0, 1, 2, 3, 4)]
    shapes = [(64, 65), (64, 64), (3,), (64, 65), (4,)]
    largest = largest_packed_size(xla)
    packing = Packing(shapes, [tf.float32] * 5, largest=largest)
    assert [group.members for group in packing.groups] == members


@pytest.mark.smoke
def test_a_packed_matrix_does_not_grow_without_bound() -> None:
    packing = Packing([(256, 256)] * 40, [tf.float32] * 40)
    assert [len(group.members) for group in packing.groups] == [16, 16, 8]


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.soak)])
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=6), st.sampled_from([-1, 1]))
def test_padding_is_in_no_statistic(mode: str, sizes: list[int], sign: int) -> None:
    # The zeros of the padding would be an extreme of each, and in the bin of zeros.
    arrays = [sign * np.linspace(1, 2, size, dtype=np.float32) for size in sizes]
    moments, rms, counts = (
        rows.numpy()
        for rows in in_mode(
            lambda *x: statistics_of([a.shape for a in x], [tf.float32] * len(x), x, mode == "xla"),
            mode,
        )(*map(tf.constant, arrays))
    )
    for row, root, count, x in zip(moments, rms, counts, arrays):
        check_moments(row, x)
        np.testing.assert_allclose(root, reference_moments(x)[0], rtol=1e-5)
        np.testing.assert_array_equal(count, reference_histogram(x))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: tf.DType) -> None:
    packing = Packing([(4,)], [dtype])
    (packed,) = packing.pack([tf.constant([300.0] * 4, dtype)])
    assert packed.dtype == tf.float32
    # In float16 the square of 300 is infinite.
    assert compute_moments(packing.groups, [packed], False)[0][0, 0] == 300


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_is_evenly_spaced_runs_of_each_member(mode: str) -> None:
    shape = (50, 47)
    x = np.arange(2 * 2350, dtype=np.float32).reshape(2, *shape)

    def stride(shape: Sequence[int]) -> int:
        return 11 if len(shape) == 2 else 1

    packing = Packing([shape, (3,), shape], [tf.float32] * 3, stride)

    def sample(a: tf.Tensor, b: tf.Tensor) -> list[tf.Tensor]:
        return packing.pack([a, tf.constant([1.0, 2.0, 3.0]), b])

    (packed,) = in_mode(sample, mode)(tf.constant(x[0]), tf.constant(x[1]))
    # 2350 entries are 293 runs of 8 and a rest; of these runs, each 11th is taken: 27.
    runs = (88 * np.arange(27)[:, np.newaxis] + np.arange(8)).ravel()
    expected = [runs, [1, 2, 3], 2350 + runs]
    (group,) = packing.groups
    assert group.sizes == (216, 3, 216)
    for member, entries in enumerate(expected):
        rows = packed.numpy()[group.owners == member].ravel()
        np.testing.assert_array_equal(rows[: len(entries)], entries)
        assert not rows[len(entries) :].any()
