"""The device-resident buffer that one optimizer's readings are written to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_vanish.capture import statistics
from keras_vanish.capture.columns import BINS, FLOATS

#: An update number that no run reaches: nothing is recorded until the host says so.
NEVER = np.iinfo(np.int64).max

# Update numbers pass through a float32 buffer in two halves: each stays exact.
_HALF = 1 << 20


class Row(NamedTuple):
    """What one recorded update left in the buffer.

    Attributes:
        update: How many updates the optimizer had applied before it.
        floats: Float32 array of shape `[variables, len(FLOATS)]`.
        counts: Float32 array of shape `[variables, BINS]`: the sampled histogram.
    """

    update: int
    floats: np.ndarray
    counts: np.ndarray


class Recorder:
    """Writes a row every `every` updates, and lets the host read the last ones.

    Its variables are its own: they are in no model, optimizer or checkpoint.

    Args:
        shapes: Fully known shapes of the trained variables.
        dtypes: Their dtypes.
        every: Updates from one recorded update to the next, at least 1; `NEVER`
            if only `arm` starts a recording.
        first: The first update number to record.
        slots: How many rows the buffer holds: as many as may be written before
            the host comes to read.
        xla: Whether the train step is compiled by XLA.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[tf.DType],
        every: int,
        first: int,
        slots: int,
        xla: bool,
    ) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        self.dtypes = list(dtypes)
        self.slots = slots
        self._every = every
        self.xla = xla
        self._packing = statistics.Packing(self.shapes, self.dtypes)
        width = len(self.shapes) * (len(FLOATS) + BINS)
        with tf.init_scope():
            self._due_at = _variable(first, tf.int64, [])
            self._written = _variable(0, tf.int64, [])
            self._buffer = _variable(math.nan, tf.float32, [slots, 2 + width])
            self._before = [
                _variable(0, statistics.computing_dtype(self.dtypes[group[0]]), shape)
                for group, shape in zip(
                    self._packing.groups, self._packing.sampled(statistics.update_stride)
                )
            ]

    def due(self, update: tf.Tensor) -> tf.Tensor:
        """Whether the update with this int64 number is to be recorded: a bool scalar."""
        return update >= self._due_at

    def keep_weights(self, weights: Sequence[tf.Tensor]) -> None:
        """Keeps a sample of the weights as they are before the update."""
        packed = self._packing.pack([tf.convert_to_tensor(w) for w in weights])
        samples = self._packing.sample(packed, statistics.update_stride)
        for variable, sample in zip(self._before, samples):
            variable.assign(sample)

    def write(
        self,
        update: tf.Tensor,
        gradients: Sequence[tf.Tensor],
        clipped: Sequence[tf.Tensor] | None,
        weights: Sequence[tf.Tensor],
    ) -> None:
        """Writes one row, after the update.

        Args:
            update: Int64 scalar, the number of the update.
            gradients: What the update was made from, before clipping.
            clipped: The same after clipping; None where nothing clips.
            weights: The trained variables, after the update.
        """
        pack, xla = self._packing, self.xla
        packed = pack.pack(gradients)
        rows = statistics.moments(packed, xla)
        if clipped is None:
            after_clipping = [row[:, 0] for row in rows]
        else:
            after_clipping = statistics.root_mean_squares(pack.pack(clipped), xla)
        counts = statistics.exponent_histograms(pack.sample(packed, statistics.histogram_stride))
        before = [tf.convert_to_tensor(variable) for variable in self._before]
        after = pack.sample(
            pack.pack([tf.convert_to_tensor(w) for w in weights]), statistics.update_stride
        )
        weight_rms = statistics.root_mean_squares(before, xla)
        update_rms = statistics.root_mean_squares([a - b for a, b in zip(after, before)], xla)
        table = pack.unpack(
            [
                tf.concat([row, tf.stack(columns, 1), count], 1)
                for row, count, *columns in zip(
                    rows, counts, after_clipping, weight_rms, update_rms
                )
            ]
        )
        head = tf.cast(tf.stack([update // _HALF, update % _HALF]), tf.float32)
        row = tf.concat([head, tf.reshape(table, [-1])], 0)
        slot = self._written % self.slots
        self._buffer.scatter_update(tf.IndexedSlices(row[tf.newaxis], slot[tf.newaxis]))
        self._written.assign_add(1)
        self._due_at.assign(update + self._every if self._every < NEVER else NEVER)

    def arm(self) -> None:
        """Makes the next update a recorded one."""
        self._due_at.assign(0)

    def written(self) -> int:
        """How many rows have been written so far; waits for the device."""
        return int(self._written.numpy())

    def due_at(self) -> int:
        """The number of the next update that is going to be recorded."""
        return int(self._due_at.numpy())

    def read(self, count: int) -> list[Row]:
        """The last `count` rows, oldest first; waits for the device.

        Args:
            count: At most `slots`: what is older has been written over.
        """
        written = self.written()
        buffer = self._buffer.numpy()
        rows = []
        for number in range(written - count, written):
            line = buffer[number % self.slots]
            table = line[2:].reshape(len(self.shapes), -1)
            rows.append(
                Row(
                    update=int(line[0]) * _HALF + int(line[1]),
                    floats=table[:, : len(FLOATS)],
                    counts=table[:, len(FLOATS) :],
                )
            )
        return rows


def _variable(value: float, dtype: tf.DType, shape: Sequence[int]) -> tf.Variable:
    return tf.Variable(tf.fill(shape, tf.constant(value, dtype)), trainable=False)
