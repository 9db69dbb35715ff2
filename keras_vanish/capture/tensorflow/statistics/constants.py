"""Constants of the graph that is being built: each is made once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_CONSTANTS = "_keras_vanish_constants"


def shared(value: int | tuple[int, ...], dtype: tf.DType = tf.int32) -> tf.Tensor:
    """Gives a constant of the graph that is being built, one for all that need it.

    An operation takes some ten kilobytes by the time that a graph runs, and half of all operations
    would be constants that the others need.

    Args:
        value: A number, or a shape.
        dtype: The dtype of the constant.
    """
    if tf.executing_eagerly():
        return tf.constant(value, dtype)
    # A constant refers to its graph: kept anywhere else, it would keep the graph for good.
    graph = tf.compat.v1.get_default_graph()
    made: dict[Any, tf.Tensor] | None = getattr(graph, _CONSTANTS, None)
    if made is None:
        made = {}
        setattr(graph, _CONSTANTS, made)
    if (value, dtype) not in made:
        made[value, dtype] = tf.constant(value, dtype)
    return made[value, dtype]


def reshaped(x: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Gives a tensor another shape; a tensor that has it already is returned as it is."""
    # What comes of a sparse gradient has lost its shape.
    return x if x.shape == shape else tf.reshape(x, shared(shape))
