"""Variables that nobody else knows of."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.variables import unmanaged, value_of


def test_it_can_be_made_while_a_function_is_traced_again() -> None:
    made: list[Any] = []

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        with tf.init_scope():
            made.append(unmanaged(2.0, tf.float32, [3]))
        return x + made[-1]

    step(tf.ones([3]))
    assert step(tf.ones([2, 3])).numpy().tolist() == [[3.0] * 3] * 2
    assert len(made) == 2
    assert made[0].dtype == tf.float32
    assert not made[0].trainable


def test_its_value_is_a_copy_that_later_steps_leave_alone() -> None:
    variable = unmanaged(2.0, tf.float32, [2, 3])
    value = value_of(variable)
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.float32
    variable.scatter_update(tf.IndexedSlices(tf.ones([1, 3]), [0]))
    assert value.tolist() == [[2.0] * 3] * 2
    assert value_of(variable).tolist() == [[1.0] * 3, [2.0] * 3]
    assert value_of(unmanaged(7, tf.int64, [])) == 7
