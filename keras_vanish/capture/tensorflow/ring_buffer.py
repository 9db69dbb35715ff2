"""Rows of numbers that steps leave on the device, until the host comes to read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.variables import unmanaged, value_of

#: How many steps are remembered from one look of the host to the next.
REMEMBERED = 1024


class RingBuffer:
    """Keeps the last rows that were written; older ones are written over.

    Its variables are its own: they are in no model, optimizer or checkpoint.

    Args:
        width: Numbers in a row.
        rows: How many rows are kept.
    """

    def __init__(self, width: int, rows: int = REMEMBERED) -> None:
        self._rows = rows
        with tf.init_scope():
            self._written = unmanaged(0, tf.int64, [])
            self._buffer = unmanaged(0, tf.float32, [rows, width])

    def write(self, row: Sequence[tf.Tensor]) -> None:
        """Writes a row of scalars, from within a step."""
        values = tf.stack([tf.cast(value, tf.float32) for value in row])
        slot = (self._written.assign_add(1) - 1) % self._rows
        self._buffer.scatter_update(tf.IndexedSlices(values[tf.newaxis], slot[tf.newaxis]))

    def read(self, seen: int) -> tuple[int, np.ndarray]:
        """Reads what has been written; waits for the device.

        Args:
            seen: How many rows had been written at the last look.

        Returns:
            How many have been written by now, and those since, oldest first, as a float32
            array of shape `[new rows, width]`; at most as many as are kept.
        """
        written = int(value_of(self._written))
        new = min(written - seen, self._rows)
        slots = np.arange(written - new, written) % self._rows
        return written, value_of(self._buffer)[slots]
