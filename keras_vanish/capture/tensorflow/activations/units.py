"""Measures the state of units from their outputs: dead units, saturation, attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# An entry is saturated if the slope of the function is below this share of its steepest slope. The
# unit then passes on almost none of the gradient (Glorot & Bengio, "Understanding the difficulty of
# training deep feedforward neural networks", 2010).
_FLAT = 0.05

# Whether a function is that flat, by its output. The slopes are y(1 - y) for the sigmoid, whose
# steepest slope is 1/4, 1 - y**2 for tanh and (1 - |y|)**2 for softsign. The piecewise linear
# functions are flat at their bounds.
_SATURATED: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "sigmoid": lambda y: y * (1 - y) < _FLAT / 4,
    "tanh": lambda y: 1 - y * y < _FLAT,
    "softsign": lambda y: tf.square(1 - tf.abs(y)) < _FLAT,
    "hard_sigmoid": lambda y: tf.logical_or(y <= 0, y >= 1),
    "hard_tanh": lambda y: tf.abs(y) >= 1,
}


def saturated(function: Any, y: tf.Tensor, present: tf.Tensor | None = None) -> Any:
    """Returns the share of entries at which an activation function is flat.

    Args:
        function: The activation function. The known names are sigmoid, tanh, softsign, hard_sigmoid
            and hard_tanh.
        y: The output of the function.
        present: Bool tensor of the shape of the first axes of `y` that tells which entries count;
            None if all do.

    Returns:
        A float64 scalar; NaN for any other function.
    """
    flat = _SATURATED.get(getattr(function, "__name__", ""))
    if flat is None:
        return math.nan
    share = tf.cast(flat(tf.cast(y, tf.float32)), tf.float64)
    if present is None:
        return tf.reduce_mean(share)
    weight = tf.cast(present, tf.float64)
    share = tf.reduce_mean(share, list(range(weight.shape.rank, share.shape.rank)))
    return tf.reduce_sum(share * weight) / tf.reduce_sum(weight)


def rectifies(function: Any) -> bool:
    """Returns whether an activation function is exactly zero for every negative number."""
    try:
        with tf.init_scope():
            y = np.asarray(function(tf.constant([[-64.0, -8.0, -1.0, -0.125, 1.0]])))
    except Exception:  # The function cannot be evaluated alone: unknown.
        return False
    return bool(np.shape(y) == (1, 5) and (y[0, :4] == 0).all() and y[0, 4] != 0)


def dead(y: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns the share of units that are exactly zero for every sample and position.

    Args:
        y: The output of a function for which `rectifies` returns True.
        axis: The axis of the units.

    Returns:
        A float64 scalar.
    """
    others = [i for i in range(y.shape.rank) if i != axis % y.shape.rank]
    return tf.reduce_mean(tf.cast(tf.reduce_all(y == 0, others), tf.float64))


def entropy(weights: tf.Tensor, mask: Any, axes: int) -> tf.Tensor:
    """Returns how evenly attention is spread, from 0 to 1.

    The result is 0 if each query attends to one key, and 1 if each attends to all keys alike. It is
    the mean, over queries and heads, of the entropy divided by the logarithm of the number of keys
    that the query may attend to. Queries that may attend to fewer than two keys are left out.

    Args:
        weights: Attention weights, which add up to 1 over the last `axes` axes.
        mask: A tensor that broadcasts to the shape of `weights`, True at keys that a query may
            attend to; or None.
        axes: The number of axes of keys.

    Returns:
        A float64 scalar; NaN if every query is left out.
    """
    keys = list(range(-axes, 0))
    weights = tf.cast(weights, tf.float32)
    spread = -tf.reduce_sum(tf.math.xlogy(weights, weights), keys)
    allowed = tf.ones_like(weights)
    if mask is not None:
        allowed *= tf.cast(tf.cast(mask, tf.bool), tf.float32)
    allowed = tf.reduce_sum(allowed, keys)
    counts = allowed > 1
    share = spread / tf.math.log(tf.where(counts, allowed, 2 * tf.ones_like(allowed)))
    counts = tf.cast(counts, tf.float64)
    return tf.reduce_sum(tf.cast(share, tf.float64) * counts) / tf.reduce_sum(counts)


def activation_of(layer: Any) -> Any:
    """Returns the activation function of a recurrent layer's states; None if it is unknown."""
    known = (keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM)
    return layer.activation if isinstance(layer, known) else None
