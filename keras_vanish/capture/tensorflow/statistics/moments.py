"""Moments and root mean squares of gradients and weights, inside the compiled train step.

Everything here must compile under XLA: no dynamic shapes, no `tf.summary`, no
`tf.histogram_fixed_width`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.constants import shared
from keras_vanish.capture.tensorflow.statistics.finite_moments import careful, largest_divisor
from keras_vanish.capture.tensorflow.statistics.packing import (
    LARGEST_GROUP_SIZE,
    WIDTH,
    Group,
    concatenated,
)

# A mean square of float32 entries below this is inexact: the squares of entries below about 1e-19
# are subnormal.
_SMALLEST_EXACT_MEAN_SQUARE = 1e-30

# Longer rows of a dot product lose digits, because XLA sums them in one register.
_LONGEST_DOT = 4096


def moments(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> list[tf.Tensor]:
    """Computes the moments of gradients, exact over all their entries.

    Args:
        groups: The groups of a packing.
        packed: Their matrices, float32 or float64.
        xla: Whether XLA compiles the graph.

    Returns:
        Float32 tensors of shape `[members, len(MEASURED_MOMENTS)]`, one for each run of
        consecutive groups. RMS, mean, minimum and maximum are over the finite entries, and NaN if
        there is none.
    """
    # Each batch of groups is read separately, so that the memory of a large gradient is freed as
    # soon as it is read.
    return [_moments(groups[batch], packed[batch], xla) for batch in _batches(groups)]


def _batches(groups: Sequence[Group]) -> list[slice]:
    """Joins consecutive groups of one dtype, up to the size of the largest group."""
    batches: list[slice] = []
    size = 0
    for i, group in enumerate(groups):
        size += sum(group.sizes)
        if batches and groups[i - 1].dtype == group.dtype and size <= LARGEST_GROUP_SIZE:
            batches[-1] = slice(batches[-1].start, i + 1)
        else:
            batches.append(slice(i, i + 1))
            size = sum(group.sizes)
    return batches


def _moments(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    square = _mean_squares(groups, packed, xla)
    sums = [group.sum(tf.reduce_sum(x, shared(1))) for group, x in zip(groups, packed)]
    mean = concatenated(sums) / _sizes(groups, packed[0].dtype)
    low, high = map(concatenated, zip(*map(_extremes, groups, packed)))
    none = tf.zeros_like(mean)
    # A sum of squares is finite only if every entry is. The careful formulas need several more
    # passes over the gradients, and only sick models need them.
    return tf.cond(
        tf.reduce_all(exact(square, low, high)),
        lambda: tf.cast(tf.stack([tf.sqrt(square), mean, low, high, none, none], 1), tf.float32),
        lambda: careful(*_in_one(groups, packed), xla),
    )


def _mean_squares(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    # On one long row, `l2_loss` is five times faster. Groups with one member come last.
    alone = [x for x in packed if x.shape[0] == 1 and not xla]
    sums = [
        group.sum(_sum_of_squares(x, xla))
        for group, x in zip(groups, packed[: len(packed) - len(alone)])
    ]
    if alone:
        sums.append(2 * tf.stack([tf.nn.l2_loss(x) for x in alone]))
    return concatenated(sums) / _sizes(groups, packed[0].dtype)


def _sizes(groups: Sequence[Group], dtype: tf.DType) -> npt.NDArray[Any]:
    return np.array([size for group in groups for size in group.sizes], dtype.as_numpy_dtype)


def _in_one(groups: Sequence[Group], packed: Sequence[tf.Tensor]) -> tuple[Group, tf.Tensor]:
    """Returns one group of all members, and its matrix."""
    if len(groups) == 1:
        return groups[0], packed[0]
    sizes = tuple(size for group in groups for size in group.sizes)
    together = Group(tuple(range(len(sizes))), sizes, WIDTH, groups[0].dtype)
    rows = []
    for group, x in zip(groups, packed):
        if group.width != WIDTH:  # One member, in one row.
            if group.width % WIDTH:
                x = tf.pad(x, [[0, 0], [0, -group.width % WIDTH]])
            x = tf.reshape(x, shared((-1, WIDTH)))
        rows.append(x)
    return together, tf.concat(rows, 0)


def _extremes(group: Group, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the smallest and the largest entry of each member, without the padding."""
    low, high = tf.reduce_min(x, shared(1)), tf.reduce_max(x, shared(1))
    (filled_up,) = np.nonzero(group.entries < group.width)
    if filled_up.size:
        rows = tf.gather(x, filled_up)
        # The first entry of a row stands in for its padding.
        rows = tf.where(tf.sequence_mask(group.entries[filled_up], group.width), rows, rows[:, :1])
        where = filled_up[:, np.newaxis]
        low = tf.tensor_scatter_nd_update(low, where, tf.reduce_min(rows, 1))
        high = tf.tensor_scatter_nd_update(high, where, tf.reduce_max(rows, 1))
    return group.min(low), group.max(high)


def exact(mean_square: tf.Tensor, smallest: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """Returns whether a mean square lost nothing to overflow or underflow: a bool tensor."""
    normal = tf.logical_and(
        mean_square >= _SMALLEST_EXACT_MEAN_SQUARE, mean_square < tf.float32.max
    )
    # The extremes alone may miss a NaN.
    zero = tf.logical_and(mean_square == 0, tf.logical_and(smallest == 0, largest == 0))
    return tf.logical_or(normal, zero)


def root_mean_squares(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    """Returns the RMS of the members of all groups: float32 of shape `[members]`.

    The function is meant for samples. It computes in float64, in which no square overflows or
    underflows. Unlike in `moments`, an entry that is not finite makes the result NaN or Inf.
    """
    packed = [tf.cast(x, tf.float64) for x in packed]
    return tf.cast(tf.sqrt(_mean_squares(groups, packed, xla)), tf.float32)


def clipped_root_mean_squares(
    groups: Sequence[Group], packed: Sequence[tf.Tensor], unclipped: Sequence[tf.Tensor], xla: bool
) -> list[tf.Tensor]:
    """Returns the RMS of clipped gradients: float32 tensors of shape `[members]`.

    Args:
        groups: The groups of a packing.
        packed: The matrices of the clipped gradients.
        unclipped: The RMS before clipping, in the shapes that `moments` returns.
        xla: Whether XLA compiles the graph.
    """
    rows = []
    for batch, rms in zip(_batches(groups), unclipped):
        square = _mean_squares(groups[batch], packed[batch], xla)
        # A gradient that is too small to be squared is too small to be clipped.
        rows.append(tf.where(tiny(square), rms, tf.cast(tf.sqrt(square), tf.float32)))
    return rows


def tiny(mean_square: tf.Tensor) -> tf.Tensor:
    """Returns whether a mean square may have lost digits to underflow."""
    return mean_square < _SMALLEST_EXACT_MEAN_SQUARE


def _sum_of_squares(x: tf.Tensor, xla: bool) -> tf.Tensor:
    """Returns `sum(x**2, axis=1)` without a temporary of the size of a large `x`.

    On a CPU, XLA stores the squares in memory. Dot products are twice as fast there.
    """
    if not xla:
        return tf.square(tf.math.reduce_euclidean_norm(x, shared(1)))
    if tf.config.list_logical_devices("GPU"):
        return tf.reduce_sum(tf.square(x), 1)
    rows, entries = x.shape
    length = largest_divisor(entries, _LONGEST_DOT)
    parts = tf.reshape(x, [rows * (entries // length), 1, length])
    squares = tf.matmul(parts, parts, transpose_b=True)
    return tf.reduce_sum(tf.reshape(squares, [rows, entries // length]), 1)
