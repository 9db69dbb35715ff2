from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.graph.recompute import barred, repeated


@pytest.mark.smoke
@pytest.mark.usefixtures("cpu")
def test_values_are_equal_bit_for_bit() -> None:
    @tf.function(jit_compile=True)
    def compute(x: tf.Tensor, w: tf.Tensor, when: tf.Tensor) -> tuple[list[tf.Tensor], ...]:
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = tf.matmul(x, w)
            y = tf.nn.relu(y) * tf.sigmoid(y) + tf.tanh(y) - tf.square(y) / (1.0 + tf.abs(y))
            y = tf.sqrt(tf.exp(tf.minimum(y, 3.0))) + tf.where(y > 0, y, -y)
            loss = tf.reduce_sum(tf.maximum(y, 0.1) ** 1.5)
        gradients = tape.gradient(loss, [x, w, y])
        again = tf.cond(
            when, lambda: repeated(gradients), lambda: [tf.zeros_like(g) for g in gradients]
        )
        return gradients, again

    generator = np.random.default_rng(0)
    x, w = (tf.constant(generator.normal(size=(5, 5)), tf.float32) for _ in range(2))
    gradients, again = compute(x, w, tf.constant(True))
    assert any(np.abs(g).max() > 0 for g in gradients)
    for a, b in zip(gradients, again):
        np.testing.assert_array_equal(a, b)


def types_added(function: tf.types.experimental.GenericFunction, *args: tf.Tensor) -> list[str]:
    graph = function.get_concrete_function(*args).graph
    return [operation.type for operation in graph.get_operations()]


def test_elementwise_operations_are_repeated_and_others_shared() -> None:
    @tf.function(jit_compile=True)
    def compute(x: tf.Tensor) -> tf.Tensor:
        (again,) = repeated([tf.tanh(tf.matmul(x, x)) * 2.0])
        return again

    types = types_added(compute, tf.ones([2, 2]))
    assert types.count("Tanh") == types.count("Mul") == 2
    assert types.count("MatMul") == 1


@pytest.mark.parametrize(("xla", "products"), [(True, 5), (False, 3)])
def test_under_xla_products_are_repeated_where_a_sum_reads_them(xla: bool, products: int) -> None:
    def branch(*tensors: tf.Tensor) -> tf.Tensor:
        (again,) = repeated(tensors, barrier=xla)
        return again

    @tf.function
    def compute(x: tf.Tensor) -> tf.Tensor:
        inner = tf.nn.relu(tf.matmul(x, x))
        return branch(tf.matmul(inner, x) + tf.matmul(x, inner))

    assert types_added(compute, tf.ones([2, 2])).count("MatMul") == products
    np.testing.assert_array_equal(compute(tf.ones([2, 2])), [[8, 8], [8, 8]])


def test_a_chain_is_longer_than_the_stack_is_deep() -> None:
    @tf.function
    def compute(x: tf.Tensor) -> tf.Tensor:
        for _ in range(2000):
            x = -x
        (again,) = repeated([x], barrier=False)
        return again

    assert types_added(compute, tf.ones([2])).count("Neg") == 4000


def test_what_two_tensors_share_is_repeated_once() -> None:
    @tf.function(jit_compile=True)
    def compute(x: tf.Tensor) -> list[tf.Tensor]:
        shared = tf.exp(x)
        return repeated([shared + 1.0, shared - 1.0, shared])

    types = types_added(compute, tf.ones([2]))
    assert types.count("Exp") == 2
    plus, minus, shared = compute(tf.constant([0.0]))
    assert (plus.numpy(), minus.numpy(), shared.numpy()) == (2.0, 0.0, 1.0)


@pytest.mark.parametrize("read", [repeated, barred])
def test_inputs_are_read_behind_a_barrier(
    read: Callable[[list[tf.Tensor]], list[tf.Tensor]],
) -> None:
    @tf.function(jit_compile=True)
    def compute(x: tf.Tensor) -> list[tf.Tensor]:
        return read([x, x + 1.0])

    x = tf.constant([2.0, 3.0])
    assert "XlaOptimizationBarrier" in types_added(compute, x)
    np.testing.assert_array_equal(compute(x), [[2.0, 3.0], [3.0, 4.0]])


def test_of_sparse_gradients_the_values_are_repeated() -> None:
    @tf.function(jit_compile=True)
    def compute(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        slices = tf.IndexedSlices(x * 2.0, tf.constant([1, 0]), tf.constant([3, 2]))
        (again,) = repeated([slices])
        return again.values, again.indices, again.dense_shape

    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    assert types_added(compute, x).count("Mul") == 2
    values, indices, shape = compute(x)
    np.testing.assert_array_equal(values, 2 * x)
    np.testing.assert_array_equal(indices, [1, 0])
    np.testing.assert_array_equal(shape, [3, 2])
