from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_vanish.capture.purity import refuse_side_effects

counter = tf.Variable(0.0)


def loop(x: Any) -> Any:
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + counter), [0, x])[1]


def loop_with_a_side_effect(x: Any) -> Any:
    def body(i: Any, y: Any) -> Any:
        return i + 1, y + counter.assign_add(1.0)

    return tf.while_loop(lambda i, y: i < 3, body, [0, x])[1]


def checked(x: Any) -> Any:
    tf.debugging.assert_greater(x, -1.0)
    return tf.TensorArray(tf.float32, 1).write(0, x).stack()


@pytest.mark.smoke
@pytest.mark.parametrize(
    "pure",
    [
        lambda x: x * counter,
        loop,
        checked,
        lambda x: x * tf.random.stateless_uniform([], [1, 2]),
        lambda x: tf.cond(x > 0, lambda: x, lambda: x * counter),
    ],
)
def test_what_only_reads_passes(pure: Callable[[Any], Any]) -> None:
    refuse_side_effects(tf.function(pure).get_concrete_function(tf.constant(1.0)).graph)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("impure", "operation"),
    [
        (lambda x: counter.assign(x), "AssignVariableOp"),
        (lambda x: x + tf.random.uniform([]), "RandomUniform"),
        (lambda x: tf.nn.dropout(x[None], 0.5), "RandomUniform"),
        (lambda x: keras.random.uniform([], seed=None) + x, "AssignVariableOp"),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32), "PyFunc"),
        (loop_with_a_side_effect, "AssignAddVariableOp"),
        (lambda x: tf.cond(x > 0, lambda: x, lambda: counter.assign_add(x)), "AssignAddVariableOp"),
    ],
)
def test_what_changes_something_is_refused(impure: Callable[[Any], Any], operation: str) -> None:
    graph = tf.function(impure).get_concrete_function(tf.constant(1.0)).graph
    with pytest.raises(
        ValueError, match=f"change the training. Received: the operation {operation}"
    ):
        refuse_side_effects(graph)
