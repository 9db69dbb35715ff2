"""Rows of numbers that steps leave on the device until the host reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.variables import unmanaged, value_of

#: The number of steps that are remembered between two looks of the host.
REMEMBERED = 1024


class RingBuffer:
    """Keeps the last rows that were written; new rows replace the oldest.

    The variables belong to the buffer alone: no model, optimizer or checkpoint has them.

    Args:
        width: The number of numbers in a row.
        rows: The number of rows that are kept.
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
        """Reads what has been written. The call waits for the device.

        Args:
            seen: The number of rows that had been written at the last look.

        Returns:
            The number of rows written by now, and the rows since the last look, oldest first: a
            float32 array of shape `[new rows, width]`. Rows that were replaced are missing.
        """
        written = int(value_of(self._written))
        new = min(written - seen, self._rows)
        slots = np.arange(written - new, written) % self._rows
        return written, value_of(self._buffer)[slots]
