from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations.side_effects import draws, refuse_side_effects

counter = tf.Variable(0.0)
SEEDS = keras.random.SeedGenerator(1)
GENERATOR = tf.random.Generator.from_seed(1)


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


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + tf.random.uniform([]), True),
        (lambda x: tf.nn.dropout(x[None], 0.5), True),
        (lambda x: tf.cond(x > 0, lambda: tf.random.normal([]), lambda: x), True),
        (tf.function(lambda x: x + tf.random.normal([])), True),
        (lambda x: tf.random.shuffle(x[None]), True),
        # These keep their state in a variable, or have none.
        (lambda x: keras.random.uniform([], seed=SEEDS) + x, False),
        (lambda x: x + GENERATOR.normal([]), False),
        (lambda x: x * tf.random.stateless_uniform([], [1, 2]), False),
        (loop_with_a_side_effect, False),
    ],
)
def test_what_draws_from_a_state_of_its_own(function: Callable[[Any], Any], expected: bool) -> None:
    graph = tf.function(function).get_concrete_function(tf.constant(1.0)).graph
    assert draws(graph) is expected


def test_of_what_is_too_large_it_is_said_that_it_draws() -> None:
    class Large:
        def as_graph_def(self) -> Any:
            raise ValueError("GraphDef cannot be larger than 2GB.")

    assert draws(Large())
