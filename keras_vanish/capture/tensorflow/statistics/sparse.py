"""Computes the statistics of a sparse gradient from its rows alone.

An embedding's gradient has a row for each token of the batch, and is zero everywhere else. A dense
gradient of the whole vocabulary would take memory that the training does not need.

The number of distinct rows is unknown during tracing. XLA does not support that, so gradients
become dense under XLA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.finite_moments import careful_parts
from keras_vanish.capture.tensorflow.statistics.histograms import counts_by_exponent
from keras_vanish.capture.tensorflow.statistics.moments import exact, tiny
from keras_vanish.capture.tensorflow.statistics.packing import computing_dtype
from keras_vanish.records.bins import ZERO_BIN


@dataclass(frozen=True)
class Rows:
    """The entries of a sparse gradient.

    Attributes:
        entries: The entries of the rows that the gradient has, each row once: a float32 or float64
            vector.
        absent: The number of all other entries, which are zero; an int64 scalar.
        size: The number of all entries; a scalar in the dtype of `entries`.
    """

    entries: tf.Tensor
    absent: tf.Tensor
    size: tf.Tensor


def rows_of(gradient: Any, shape: Sequence[int]) -> Rows:
    """Returns the rows of a gradient. Rows with the same index are added up, as an optimizer does.

    Args:
        gradient: `IndexedSlices` of any dtype, or a tensor, which has all rows.
        shape: The shape of the variable.
    """
    values = gradient
    if isinstance(gradient, tf.IndexedSlices):
        indices, places = tf.unique(gradient.indices)
        values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
    entries = tf.cast(tf.reshape(values, [-1]), computing_dtype(values.dtype))
    size = math.prod(shape)
    return Rows(
        entries=entries,
        absent=size - tf.size(entries, tf.int64),
        size=tf.constant(size, entries.dtype),
    )


def moments(rows: Rows) -> tf.Tensor:
    """Returns the moments, as `moments.moments` does.

    Args:
        rows: The rows of the gradient.

    Returns:
        A float32 tensor of shape `[len(MEASURED_MOMENTS)]`.
    """
    x = rows.entries
    square = 2 * tf.nn.l2_loss(x) / rows.size
    mean = tf.reduce_sum(x) / rows.size
    low, high = _with_zeros(rows, tf.reduce_min(x), tf.reduce_max(x))
    none = tf.zeros_like(mean)
    return tf.cond(
        exact(square, low, high),
        lambda: tf.cast(tf.stack([tf.sqrt(square), mean, low, high, none, none]), tf.float32),
        lambda: _careful(rows),
    )


def _careful(rows: Rows) -> tf.Tensor:
    parts = careful_parts(rows.entries[tf.newaxis])
    count, scale, squares, total, low, high, nan, inf = tf.unstack(parts[0])
    count += tf.cast(rows.absent, count.dtype)
    moments = [
        scale * tf.sqrt(squares / count),
        scale * (total / count),
        *_with_zeros(rows, low, high),
    ]
    missing = tf.constant(math.nan, count.dtype)
    moments = [tf.where(count > 0, moment, missing) for moment in moments]
    return tf.cast(tf.stack([*moments, nan, inf]), tf.float32)


def _with_zeros(rows: Rows, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    any_absent = rows.absent > 0
    return (
        tf.where(any_absent, tf.minimum(low, 0), low),
        tf.where(any_absent, tf.maximum(high, 0), high),
    )


def clipped_root_mean_square(rows: Rows, unclipped: tf.Tensor) -> tf.Tensor:
    """Returns the RMS, as `moments.clipped_root_mean_squares` does: a float32 scalar.

    Args:
        rows: The rows of the clipped gradient.
        unclipped: The RMS before clipping, float32.
    """
    square = 2 * tf.nn.l2_loss(rows.entries) / rows.size
    clipped = tf.cast(tf.sqrt(square), tf.float32)
    return tf.where(tiny(square), unclipped, clipped)


def exponent_histogram(rows: Rows) -> tf.Tensor:
    """Counts all entries by binary exponent: float32 of shape `[BINS]`."""
    counts = tf.cast(counts_by_exponent(rows.entries), tf.float32)
    zeros = tf.cast(rows.absent, tf.float32)
    return tf.tensor_scatter_nd_add(counts, [[ZERO_BIN]], zeros[tf.newaxis])
