"""Moments over the finite entries of tensors, free of overflow and underflow.

They need several passes over a gradient. Only sick models need them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.packing import LARGEST_PACKED_SIZE, Group

#: The moments of a gradient, in the order of a row.
MEASURED_MOMENTS = ("rms", "mean", "min", "max", "nan_count", "inf_count")

# Copies of a tensor with more entries would take too much memory.
_LARGEST_COPIED_SIZE = 1 << 22

# Below this, the loop over the chunks of a large tensor costs more than its memory.
_SHORTEST_CHUNK = 1024


def careful(group: Group, x: tf.Tensor, xla: bool) -> tf.Tensor:
    """Computes moments over the finite entries, free of overflow and underflow.

    Args:
        group: The group that the matrix belongs to.
        x: The matrix of the group, float32 or float64.
        xla: Whether XLA compiles the graph.

    Returns:
        A float32 tensor of shape `[members, len(MEASURED_MOMENTS)]`.
    """
    rows, width = x.shape
    length = largest_divisor(width, LARGEST_PACKED_SIZE)
    largest_whole = length if xla else _LARGEST_COPIED_SIZE
    if rows == 1 and width > largest_whole and length >= _SHORTEST_CHUNK:
        # The loop takes memory in the graph even if it never runs. Under XLA, the copies do.
        group = Group(group.members, group.sizes, length, group.dtype)
        parts = tf.map_fn(
            lambda chunk: careful_parts(chunk[tf.newaxis])[0],
            tf.reshape(x, [width // length, length]),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([_PARTS], x.dtype),
        )
    else:
        parts = careful_parts(x, group.entries)
    count, scale, squares, total, low, high, nan, inf = tf.unstack(parts, axis=1)
    counts = group.sum(count)
    largest = group.max(scale)
    divisor = tf.gather(largest, group.owners)
    share = scale / tf.where(divisor > 0, divisor, tf.ones_like(divisor))
    moments = [
        largest * tf.sqrt(group.sum(share * share * squares) / counts),
        largest * (group.sum(share * total) / counts),
        group.min(low),
        group.max(high),
    ]
    missing = tf.constant(math.nan, x.dtype)
    moments = [tf.where(counts > 0, moment, missing) for moment in moments]
    return tf.cast(tf.stack([*moments, group.sum(nan), group.sum(inf)], 1), tf.float32)


_PARTS = 8


def careful_parts(x: tf.Tensor, entries: npt.NDArray[np.int32] | None = None) -> tf.Tensor:
    """Computes the parts of each row that moments are made of.

    Args:
        x: Tensor of shape `[rows, width]`.
        entries: How many entries of each row count; None for all.

    Returns:
        A tensor of shape `[rows, 8]`. The columns are the number of finite entries, the largest
        magnitude, the sum of squares and the sum of the entries divided by that magnitude, the
        smallest and the largest entry, and the numbers of NaN and infinite entries.
    """
    dtype = x.dtype
    nan = tf.math.is_nan(x)
    inf = tf.math.is_inf(x)
    finite = tf.logical_not(tf.logical_or(nan, inf))
    if entries is not None and (entries < x.shape[1]).any():
        finite = tf.logical_and(finite, tf.sequence_mask(entries, x.shape[1]))
    # These are scalars on purpose. TensorFlow would turn a tensor of the shape of `x` with equal
    # entries into a constant, which takes memory in each copy of the graph.
    safe = tf.where(finite, x, tf.zeros([], dtype))
    largest = tf.reduce_max(tf.abs(safe), 1)
    scaled = safe / tf.where(largest > 0, largest, tf.ones_like(largest))[:, tf.newaxis]
    parts = [
        tf.reduce_sum(tf.cast(finite, dtype), 1),
        largest,
        tf.reduce_sum(scaled * scaled, 1),
        tf.reduce_sum(scaled, 1),
        tf.reduce_min(tf.where(finite, x, dtype.max), 1),
        tf.reduce_max(tf.where(finite, x, dtype.min), 1),
        tf.reduce_sum(tf.cast(nan, dtype), 1),
        tf.reduce_sum(tf.cast(inf, dtype), 1),
    ]
    return tf.stack(parts, 1)


def largest_divisor(number: int, largest: int) -> int:
    """Returns the largest divisor of `number` that is at most `largest`."""
    return max(d for d in range(1, min(number, largest) + 1) if number % d == 0)
