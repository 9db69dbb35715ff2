"""The outputs of layers and their gradients become rows of numbers."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.activations import health
from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput

# Float64 sums and counts of a layer, which become `ACTIVATION_COLUMNS` for all layers at once.
_RAW = (
    "size",
    *("gradient_squares", "gradient_finite", "gradient_entries"),
    *("output_squares", "output_finite", "output_entries"),
    *("preactivation_mean", "preactivation_mean_square"),
    *("dead", "saturated", "attention"),
)


#: The row of a layer that was not seen.
UNKNOWN = [math.nan] * len(_RAW)


def measures(seen: LayerOutput, gradients: list[Any]) -> list[Any]:
    """The row of a layer: sums and counts of which `table` makes columns.

    Args:
        seen: What the layer computed.
        gradients: With respect to its outputs, as far as the loss depends on them.
    """
    row = [
        _size(seen.outputs),
        *_sums(gradients),
        *_sums(seen.outputs),
        math.nan,
        math.nan,
        math.nan,
        math.nan,
    ]
    if seen.before is not None and seen.after is not None:
        before = tf.cast(seen.before, tf.float64)
        row[7:9] = tf.reduce_mean(before), tf.reduce_mean(tf.square(before))
        if health.rectifies(seen.function):
            channels_first = getattr(seen.layer, "data_format", None) == "channels_first"
            row[9] = health.dead(seen.after, 1 if channels_first else -1)
        row[10] = health.saturated(seen.function, seen.after)
    elif seen.through is not None:
        function = health.activation_of(seen.layer)
        row[10] = health.saturated(function, seen.through.outputs, seen.through.mask)
    attention = math.nan if seen.attention is None else health.entropy(*seen.attention)
    return [*row, attention]


def _size(tensors: list[Any]) -> Any:
    """How many entries several tensors have for one sample of a batch."""
    shapes = [tf.shape(tensor) for tensor in tensors]
    return tf.add_n([tf.reduce_prod(shape[1:]) for shape in shapes])


def _sums(tensors: list[Any]) -> list[Any]:
    """Over several tensors: sum of squares of the finite entries, their number, all entries."""
    if not tensors:
        return [math.nan] * 3
    flat = [tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors]
    x = flat[0] if len(flat) == 1 else tf.concat([tf.cast(t, tf.float32) for t in flat], 0)
    finite = tf.math.is_finite(x)
    # In float64 no square of a float32 leaves the range.
    safe = tf.cast(tf.where(finite, x, tf.zeros_like(x)), tf.float64)
    squares = tf.reduce_sum(tf.square(safe))
    return [squares, tf.math.count_nonzero(finite), tf.size(x)]


def table(rows: list[list[Any]]) -> tf.Tensor:
    """Makes one float32 tensor of shape `[layers, len(ACTIVATIONS)]` of what was measured."""
    flat = [tf.cast(value, tf.float64) for row in rows for value in row]
    raw = tf.reshape(tf.stack(flat), [len(rows), len(_RAW)])
    value = dict(zip(_RAW, tf.unstack(raw, axis=1)))
    mean = value["preactivation_mean"]
    columns = [
        value["size"],
        tf.sqrt(value["gradient_squares"] / value["gradient_finite"]),
        value["gradient_entries"] - value["gradient_finite"],
        tf.sqrt(value["output_squares"] / value["output_finite"]),
        value["output_entries"] - value["output_finite"],
        mean,
        tf.sqrt(tf.maximum(value["preactivation_mean_square"] - tf.square(mean), 0)),
        value["dead"],
        value["saturated"],
        value["attention"],
    ]
    return tf.cast(tf.stack(columns, 1), tf.float32)
