"""Weights with which a recurrent cell passes gradients through time, found from its input."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]
layers = keras.layers

#: Gates of each cell that is known, in the order in which they share a kernel. By name: Keras does
#: not export that of ConvLSTM, and to make one would draw from the generator of seeds.
_GATES = {"SimpleRNNCell": 1, "GRUCell": 3, "LSTMCell": 4, "ConvLSTMCell": 4}

#: Spread over the batch of what a cell without gates adds up over all time steps. So small,
#: tanh is nearly linear, and the state is still there at the end. Of a cell with gates, the least
#: spread over batch and time: embeddings begin so small that its output would be next to nothing.
INPUT_SPREAD = 0.25


def known(cell: Any) -> bool:
    """Whether `start` can set the weights of a cell."""
    kind = type(cell)
    return kind.__name__ in _GATES and kind.__module__.startswith("keras.")


def weights(cell: Any) -> list[Any]:
    """Its trained kernels and bias."""
    return [v for v in (cell.kernel, cell.recurrent_kernel, cell.bias) if v is not None]


def start(cell: Any, sequences: tf.Tensor | None, steps: int, random: np.random.Generator) -> None:
    """Sets the weights of a cell.

    - The recurrent kernel is orthogonal, gate by gate, so that what it hands on neither grows
      nor fades (Saxe et al. 2014; for convolutions over the whole kernel). With ReLU it
      hands each unit's state to the next one: what is not negative passes unchanged, as
      through the identity (Le, Jaitly & Hinton 2015), but inputs of different time steps do
      not add up in the same unit.
    - The memory of gated cells lasts for 1 to `steps` time steps, differently from unit to
      unit: chrono initialisation (Tallec & Ollivier 2018). An LSTM's forget gate gets the
      bias log(u), u uniform in [1, steps - 1], its input gate minus that; of a GRU it is the
      update gate, which keeps where it is open.
    - The input kernel is drawn as Glorot & Bengio (2010) say. Without gates it is scaled so
      that what it adds up over time spreads by `INPUT_SPREAD` over the batch, and centred; with
      gates it is made larger where the pre-activations spread by less than that.

    Args:
        cell: For which `known` holds.
        sequences: What the cell is given, of shape `[batch, time, ...]`. None where that is
            not known.
        steps: How many time steps the sequences have.
        random: Where the draws come from.
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
    """What the kernel is to be multiplied by, and the mean pre-activation with the kernel."""
    by_unit = _by_unit(sequences, kernel)
    centre = tf.reduce_mean(by_unit, [0, 1])
    by_time = tf.reduce_mean(tf.math.square(by_unit - centre), [0, 2])
    spread = math.sqrt(float(tf.reduce_sum(by_time)))
    if not math.isfinite(spread) or spread < 1e-6:
        return 1.0, np.zeros(kernel.shape[-1])
    return 1 / spread, centre.numpy()


def _by_unit(sequences: tf.Tensor, kernel: Array) -> tf.Tensor:
    """What the input adds to the pre-activations: float32 of shape `[batch, time, units]`."""
    return tf.tensordot(tf.cast(sequences, tf.float32), tf.constant(kernel, tf.float32), 1)


def _louder(sequences: tf.Tensor, kernel: Array) -> float:
    """What the kernel is to be multiplied by for pre-activations that spread enough, at least 1."""
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
    """Orthonormal columns, or rows where these are fewer (Saxe et al. 2014).

    Args:
        shape: Of the result; all but the last axis are the rows.
        random: Where the draws come from.

    Returns:
        A float64 array. Where both sides are above 2048, entries are independent and normal,
        with columns of length 1 on average: almost orthogonal, and not slow.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = random.standard_normal((max(rows, columns), min(rows, columns)))
    if min(rows, columns) > 2048:
        return random.standard_normal(shape) / math.sqrt(rows)
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)
