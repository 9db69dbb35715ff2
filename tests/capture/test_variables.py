"""Variables that nobody else knows of."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_vanish.capture.variables import unmanaged


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
