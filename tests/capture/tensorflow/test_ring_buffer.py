"""Rows that steps leave on the device."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.ring_buffer import RingBuffer


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_come_back_in_order_and_once(jit_compile: bool) -> None:
    ring = RingBuffer(2, 4)

    @tf.function(jit_compile=jit_compile)
    def step(value: tf.Tensor) -> None:
        ring.write([value, tf.constant(True)])

    assert ring.read(0)[1].shape == (0, 2)
    for value in (1.0, 2.0, 3.0):
        step(tf.constant(value))
    seen, rows = ring.read(0)
    np.testing.assert_array_equal(rows, [[1, 1], [2, 1], [3, 1]])
    assert seen == 3
    step(tf.constant(4.0))
    seen, rows = ring.read(seen)
    np.testing.assert_array_equal(rows, [[4, 1]])


def test_the_oldest_rows_are_written_over() -> None:
    ring = RingBuffer(1, 3)
    for value in range(8):
        ring.write([tf.constant(float(value))])
    assert ring.read(0)[1].ravel().tolist() == [5, 6, 7]
    assert ring.read(7)[1].ravel().tolist() == [7]
