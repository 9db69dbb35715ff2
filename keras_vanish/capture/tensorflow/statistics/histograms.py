"""Histograms of gradients by binary exponent, inside the compiled train step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import is_deterministic
from keras_vanish.capture.tensorflow.statistics.packing import Group
from keras_vanish.records.bins import BINS, ZERO_BIN


def exponent_histograms(groups: Sequence[Group], packed: Sequence[tf.Tensor]) -> tf.Tensor:
    """Counts the entries of each tensor by binary exponent.

    Args:
        groups: The groups of a packing.
        packed: Their matrices, float32 or float64.

    Returns:
        A float32 tensor of shape `[tensors, BINS]`, in the order of the tensors.
    """
    tensors = sum(len(group.members) for group in groups)
    padding = np.zeros([tensors, 1], np.int32)
    shifted = []
    for group, x in zip(groups, packed):
        members = np.array(group.members, np.int32)
        padding[members, 0] = group.padding
        bins = _bins(x)
        shifted.append(tf.reshape(bins + BINS * members[group.owners][:, np.newaxis], [-1]))
    counts = tf.reshape(_counted(tf.concat(shifted, 0), tensors * BINS), [tensors, BINS])
    counts = tf.concat([counts[:, :ZERO_BIN], counts[:, ZERO_BIN:] - padding], 1)
    return tf.cast(counts, tf.float32)


def counts_by_exponent(x: tf.Tensor) -> tf.Tensor:
    """Counts the entries of a vector by binary exponent.

    Args:
        x: A float32 or float64 tensor of one axis.

    Returns:
        An int32 tensor of shape `[BINS]`.
    """
    return _counted(_bins(x), BINS)


def _counted(bins: tf.Tensor, size: int) -> tf.Tensor:
    if is_deterministic():
        # A GPU would refuse to run the operation below, and training would end. This one is several
        # times slower.
        return tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, size)
    return tf.raw_ops.DenseBincount(
        input=bins, size=size, weights=tf.zeros([0], tf.int32), binary_output=False
    )


def _bins(x: tf.Tensor) -> tf.Tensor:
    bits = _magnitude_bits(x)
    return tf.where(bits == 0, ZERO_BIN, tf.bitwise.right_shift(bits, 23))


def _magnitude_bits(x: tf.Tensor) -> tf.Tensor:
    # Reading the bits, and not comparing with 0.0, tells subnormal numbers from
    # zeros on machines that flush them.
    bits = tf.bitwise.bitwise_and(tf.bitcast(tf.cast(x, tf.float32), tf.int32), 0x7FFFFFFF)
    if x.dtype == tf.float64:
        # A float64 that is too small for float32 is not zero.
        bits = tf.where(tf.logical_and(bits == 0, x != 0), 1, bits)
    return bits
