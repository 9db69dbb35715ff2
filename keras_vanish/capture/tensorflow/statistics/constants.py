"""Shares constants within the graph that is being built."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_CONSTANTS = "_keras_vanish_constants"


def shared(value: int | tuple[int, ...], dtype: tf.DType = tf.int32) -> tf.Tensor:
    """Returns a constant of the graph that is being built. Equal constants are created once.

    Every operation of a running graph takes some ten kilobytes. Without sharing, half of all
    operations would be constants.

    Args:
        value: A number, or a shape.
        dtype: The dtype of the constant.
    """
    if tf.executing_eagerly():
        return tf.constant(value, dtype)
    # A constant refers to its graph, so keeping it elsewhere would keep the graph alive.
    graph = tf.compat.v1.get_default_graph()
    made: dict[Any, tf.Tensor] | None = getattr(graph, _CONSTANTS, None)
    if made is None:
        made = {}
        setattr(graph, _CONSTANTS, made)
    if (value, dtype) not in made:
        made[value, dtype] = tf.constant(value, dtype)
    return made[value, dtype]


def reshaped(x: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns a tensor in another shape. A tensor that already has this shape stays as it is."""
    # A tensor that comes from a sparse gradient has lost its static shape.
    return x if x.shape == shape else tf.reshape(x, shared(shape))
