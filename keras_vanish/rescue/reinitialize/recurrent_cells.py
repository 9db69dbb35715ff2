"""Finds weights with which a recurrent cell passes gradients through time."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]
layers = keras.layers

#: The number of gates of each known cell. Gates share a kernel. Cells are matched by name, because
#: Keras does not export the cell of ConvLSTM, and creating one would advance the seed generator.
_GATES = {"SimpleRNNCell": 1, "GRUCell": 3, "LSTMCell": 4, "ConvLSTMCell": 4}

#: For a cell without gates: the spread over the batch of the input's sum over all time steps. It is
#: small enough that tanh stays nearly linear, and the state lasts to the end. For a cell with
#: gates: the least spread over batch and time. Embeddings start so small that the output would
#: otherwise be close to zero.
INPUT_SPREAD = 0.25


def known(cell: Any) -> bool:
    """Returns whether `start` can set the weights of a cell."""
    kind = type(cell)
    return kind.__name__ in _GATES and kind.__module__.startswith("keras.")


def weights(cell: Any) -> list[Any]:
    """Returns the trained kernels and the bias of a cell."""
    return [v for v in (cell.kernel, cell.recurrent_kernel, cell.bias) if v is not None]


def start(cell: Any, sequences: tf.Tensor | None, steps: int, random: np.random.Generator) -> None:
    """Sets the weights of a cell.

    - The recurrent kernel is orthogonal, gate by gate, so that a state neither grows nor fades
      (Saxe et al. 2014; for convolutions over the whole kernel). With ReLU, the kernel instead
      passes each unit's state to the next unit. Non-negative values pass unchanged, as through the
      identity (Le, Jaitly & Hinton 2015), but inputs of different time steps do not add up in the
      same unit.
    - The memory of a gated cell lasts between 1 and `steps` time steps, depending on the unit. This
      is chrono initialisation (Tallec & Ollivier 2018). The forget gate of an LSTM gets the bias
      log(u), with u uniform in [1, steps - 1], and the input gate gets minus that. In a GRU, the
      update gate gets log(u), because it keeps the state while it is open.
    - The input kernel is drawn as Glorot & Bengio (2010) propose. Without gates, it is scaled so
      that the sum of its outputs over time has a spread of `INPUT_SPREAD` over the batch, and the
      sum is centred. With gates, it is enlarged if the pre-activations spread less than that.

    Args:
        cell: A cell for which `known` returns True.
        sequences: The inputs of the cell, of shape `[batch, time, ...]`; None if unknown.
        steps: The number of time steps of the sequences.
        random: The generator of the random draws.
    """
    gates = _GATES[type(cell).__name__]
    recurrent = _gate_by_gate(tuple(cell.recurrent_kernel.shape), gates, random)
    plain = gates == 1
    shifted = plain and getattr(cell.activation, "__name__", "") == "relu"
    if shifted:
        recurrent = np.roll(np.eye(recurrent.shape[0]), 1, 0)
    kernel = _glorot(tuple(cell.kernel.shape), gates, random)
    bias = None if cell.bias is None else np.zeros(tuple(cell.bias.shape))
    if plain and sequences is not None:
        scale, centre = _fitted(sequences, kernel)
        scale *= 1.0 if shifted else INPUT_SPREAD
        kernel = kernel * scale
        if bias is not None:
            bias -= centre * scale
    if not plain and sequences is not None and kernel.ndim == 2:
        kernel = kernel * _louder(sequences, kernel)
    if not plain and bias is not None:
        units = bias.shape[-1] // gates
        memory = np.log(random.uniform(1.0, max(steps - 1.0, 1.0), units))
        own = bias[0] if bias.ndim == 2 else bias
        if gates == 3:
            own[:units] = memory
        else:
            own[:units], own[units : 2 * units] = -memory, memory
    cell.kernel.assign(kernel)
    cell.recurrent_kernel.assign(recurrent)
    if bias is not None:
        cell.bias.assign(bias)


def _fitted(sequences: tf.Tensor, kernel: Array) -> tuple[float, Array]:
    """Returns the factor for the kernel, and the mean pre-activations with the present kernel."""
    by_unit = _by_unit(sequences, kernel)
    centre = tf.reduce_mean(by_unit, [0, 1])
    by_time = tf.reduce_mean(tf.math.square(by_unit - centre), [0, 2])
    spread = math.sqrt(float(tf.reduce_sum(by_time)))
    if not math.isfinite(spread) or spread < 1e-6:
        return 1.0, np.zeros(kernel.shape[-1])
    return 1 / spread, centre.numpy()


def _by_unit(sequences: tf.Tensor, kernel: Array) -> tf.Tensor:
    """Returns the input's part of the pre-activations: float32 of shape `[batch, time, units]`."""
    return tf.tensordot(tf.cast(sequences, tf.float32), tf.constant(kernel, tf.float32), 1)


def _louder(sequences: tf.Tensor, kernel: Array) -> float:
    """Returns the factor, at least 1, that gives the pre-activations enough spread."""
    by_unit = _by_unit(sequences, kernel)
    spread = math.sqrt(float(tf.reduce_mean(tf.math.reduce_variance(by_unit, [0, 1]))))
    if not math.isfinite(spread) or spread < 1e-6:
        return 1.0
    return max(1.0, INPUT_SPREAD / spread)


def _gate_by_gate(shape: tuple[int, ...], gates: int, random: np.random.Generator) -> Array:
    units = shape[-1] // gates
    return np.concatenate([orthogonal((*shape[:-1], units), random) for _ in range(gates)], -1)


def _glorot(shape: tuple[int, ...], gates: int, random: np.random.Generator) -> Array:
    field, units = math.prod(shape[:-2]), shape[-1] // gates
    bound = math.sqrt(6 / (field * (shape[-2] + units)))
    return random.uniform(-bound, bound, shape)


def orthogonal(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Returns a matrix with orthonormal columns, or rows if these are fewer (Saxe et al. 2014).

    Args:
        shape: The shape of the result. All axes but the last count as rows.
        random: The generator of the random draws.

    Returns:
        A float64 array. If both sides exceed 2048, its entries are independent and normal, with
        columns of length 1 on average. Such a matrix is almost orthogonal and much faster to draw.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = random.standard_normal((max(rows, columns), min(rows, columns)))
    if min(rows, columns) > 2048:
        return random.standard_normal(shape) / math.sqrt(rows)
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)
