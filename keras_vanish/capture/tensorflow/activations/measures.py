"""Computes the statistics of layers' outputs and of their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations import recurrent, units
from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput
from keras_vanish.records.activations import ACTIVATION_COLUMNS

# The float64 sums and counts of a layer. `table` computes `ACTIVATION_COLUMNS` from the rows of all
# layers at once. A new column needs a name here, a line in `measures` and a line in `table`.
_RAW = (
    "size",
    *("gradient_squares", "gradient_finite", "gradient_entries"),
    *("output_squares", "output_finite", "output_entries"),
    *("preactivation_mean", "preactivation_mean_square"),
    *("dead", "saturated", "attention"),
)


#: The row of a layer that was not called: everything is unknown.
UNKNOWN = [math.nan] * len(_RAW)


def measures(seen: LayerOutput, gradients: list[Any]) -> list[Any]:
    """Returns the row of a layer: sums and counts from which `table` computes columns.

    Args:
        seen: The outputs of the layer.
        gradients: The gradients with respect to the outputs that the loss depends on.
    """
    row: dict[str, Any] = dict.fromkeys(_RAW, math.nan)
    row["size"] = _size(seen.outputs)
    row.update(_sums("gradient", gradients))
    row.update(_sums("output", seen.outputs))
    if seen.before is not None and seen.after is not None:
        before = tf.cast(seen.before, tf.float64)
        row["preactivation_mean"] = tf.reduce_mean(before)
        row["preactivation_mean_square"] = tf.reduce_mean(tf.square(before))
        if units.rectifies(seen.function):
            channels_first = getattr(seen.layer, "data_format", None) == "channels_first"
            row["dead"] = units.dead(seen.after, 1 if channels_first else -1)
        row["saturated"] = units.saturated(seen.function, seen.after)
    elif seen.through is not None:
        function = units.activation_of(seen.layer)
        row["saturated"] = units.saturated(function, seen.through.outputs, seen.through.mask)
    if seen.attention is not None:
        row["attention"] = units.entropy(*seen.attention)
    return [row[name] for name in _RAW]


def _size(tensors: list[Any]) -> Any:
    """Returns the number of entries that several tensors have for one sample of a batch."""
    shapes = [tf.shape(tensor) for tensor in tensors]
    return tf.add_n([tf.reduce_prod(shape[1:]) for shape in shapes])


def _sums(of: str, tensors: list[Any]) -> dict[str, Any]:
    """Sums the squares of the finite entries of several tensors, and counts entries.

    Args:
        of: The prefix of the names of the sums.
        tensors: The tensors. Without any, the result is empty.
    """
    if not tensors:
        return {}
    flat = [tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors]
    x = flat[0] if len(flat) == 1 else tf.concat([tf.cast(t, tf.float32) for t in flat], 0)
    finite = tf.math.is_finite(x)
    # In float64, the square of a float32 never overflows or underflows.
    safe = tf.cast(tf.where(finite, x, tf.zeros_like(x)), tf.float64)
    squares = tf.reduce_sum(tf.square(safe))
    return {
        f"{of}_squares": squares,
        f"{of}_finite": tf.math.count_nonzero(finite),
        f"{of}_entries": tf.size(x),
    }


def table(rows: list[list[Any]]) -> tf.Tensor:
    """Returns a float32 tensor of shape `[layers, len(ACTIVATION_COLUMNS)]`.

    Args:
        rows: The row of each layer, from `measures`.
    """
    flat = [tf.cast(value, tf.float64) for row in rows for value in row]
    raw = tf.reshape(tf.stack(flat), [len(rows), len(_RAW)])
    value = dict(zip(_RAW, tf.unstack(raw, axis=1)))
    mean = value["preactivation_mean"]
    columns = {
        "size": value["size"],
        "gradient_rms": tf.sqrt(value["gradient_squares"] / value["gradient_finite"]),
        "gradient_nonfinite_count": value["gradient_entries"] - value["gradient_finite"],
        "output_rms": tf.sqrt(value["output_squares"] / value["output_finite"]),
        "output_nonfinite_count": value["output_entries"] - value["output_finite"],
        "preactivation_mean": mean,
        "preactivation_std": tf.sqrt(
            tf.maximum(value["preactivation_mean_square"] - tf.square(mean), 0)
        ),
        "dead_fraction": value["dead"],
        "saturated_fraction": value["saturated"],
        "attention_entropy": value["attention"],
    }
    ordered = [columns[name] for name in ACTIVATION_COLUMNS]
    return tf.cast(tf.stack(ordered, 1), tf.float32)


def measured(
    seen: Sequence[LayerOutput],
    layers: Sequence[Any],
    loops: Sequence[tuple[Any, int]],
    tape: tf.GradientTape,
    loss: tf.Tensor,
    factor: tf.Tensor | None,
) -> tf.Tensor:
    """Measures the outputs of one forward pass, and the gradients of its loss.

    Args:
        seen: The outputs of each layer.
        layers: The layers that get a row, in order. The row of a layer that was not called is NaN.
        loops: The recurrent layers that get a profile, and the number of time steps of each.
        tape: The tape that recorded the forward pass.
        loss: The scaled loss.
        factor: The factor that scaled the loss; None without one.

    Returns:
        A float32 vector: `layers * len(ACTIVATION_COLUMNS)` numbers, followed by the profiles.
    """
    sources = {
        "outputs": [entry.outputs for entry in seen],
        "before": [[] if entry.before is None else [entry.before] for entry in seen],
        "zeros": [[] if entry.through is None else [entry.through.zeros] for entry in seen],
    }
    gradients = tape.gradient(loss, sources)
    found = {id(entry.layer): i for i, entry in enumerate(seen)}
    rows, profiles = [], []
    for layer in layers:
        i = found.get(id(layer))
        if i is None:
            rows.append(UNKNOWN)
            continue
        reaching = [g for g in gradients["outputs"][i] if g is not None]
        # A loss that is computed from logits does not use the output of the activation function.
        reaching = reaching or [g for g in gradients["before"][i] if g is not None]
        rows.append(measures(seen[i], reaching))
    for layer, steps in loops:
        i = found.get(id(layer))
        through = None if i is None else seen[i].through
        if i is None or through is None:
            profiles.append(tf.fill([steps], math.nan))
        else:
            profiles.append(recurrent.profile(through, gradients["zeros"][i][0], steps))
    numbers = table(rows)
    if factor is not None:
        scaled = np.array(ACTIVATION_COLUMNS) == "gradient_rms"
        numbers = tf.where(scaled, numbers / factor, numbers)
        profiles = [profile / factor for profile in profiles]
    return tf.concat([tf.reshape(numbers, [-1]), *profiles], 0)
