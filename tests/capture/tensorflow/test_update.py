"""One call of `optimizer.apply`, as the tap finds it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.update import Update, build, iterations_variable, of_values


def update(optimizer: Any, seen: list[Any]) -> Update:
    weight = keras.Variable(np.ones(2, np.float32))
    optimizer.build([weight])
    return Update(
        optimizer=optimizer,
        untapped=lambda grads, variables: seen.append((grads, variables)),
        grads=[None, tf.ones(2), tf.ones(3)],
        trainable_variables=None,
        places=[1],
        given=[tf.ones(2)],
        gradients=[tf.ones(2)],
        weights=[weight.value],
        accumulated=[tf.Variable([2.0, 4.0])],
        last=None,
        xla=False,
    )


def test_only_the_gradients_that_are_read_are_replaced() -> None:
    seen: list[Any] = []
    found = update(keras.optimizers.SGD(0.5), seen)
    found.apply([tf.zeros(2)])
    found.apply_as_given()
    (first, _), (second, _) = seen
    assert first[0] is second[0] is None
    assert first[1].numpy().tolist() == [0, 0]
    assert second[1].numpy().tolist() == [1, 1]
    assert first[2] is found.grads[2]
    assert found.grads[1].numpy().tolist() == [1, 1]


def test_a_call_can_be_counted_without_an_update() -> None:
    optimizer = keras.optimizers.SGD(0.5)
    found = update(optimizer, [])
    found.count()
    assert int(iterations_variable(optimizer)) == 1
    assert float(found.rate()) == 0.5
    assert found.read_weights()[0].numpy().tolist() == [1, 1]


def test_an_optimizer_is_built_as_apply_does() -> None:
    weights = [keras.Variable(np.ones(2, np.float32), name="weight")]
    optimizers = [keras.optimizers.Adam(0.1) for _ in range(2)]
    build(optimizers[0], weights)
    for optimizer in optimizers:
        optimizer.apply([tf.ones(2)], weights)
    first, second = (
        [(v.path.partition("/")[2], tuple(v.shape)) for v in optimizer.variables]
        for optimizer in optimizers
    )
    assert first == second


def test_a_sparse_gradient_stays_sparse() -> None:
    sparse = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([3]), tf.constant([5, 2]))
    doubled = of_values(sparse, lambda values: 2 * values)
    assert doubled.values.numpy().tolist() == [[2, 2]]
    assert doubled.indices.numpy().tolist() == [3]
    assert of_values(tf.ones(2), lambda values: 3 * values).numpy().tolist() == [3, 3]


def test_what_was_accumulated_is_scaled() -> None:
    found = update(keras.optimizers.SGD(0.5), [])
    found.scale_accumulated(tf.constant(0.5))
    assert found.accumulated[0].numpy().tolist() == [1, 2]
