"""Computes gradients with respect to the states that a recurrent layer passes through time.

A tensor of zeros is added to the states at every time step. The gradient with respect to these
zeros is dL/dh_t, for all t at once and for any cell that a Keras loop runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import rnn, takes_training

_LOOPS = {keras.layers.RNN.inner_loop, keras.layers.LSTM.inner_loop, keras.layers.GRU.inner_loop}


@dataclass(frozen=True)
class Through:
    """One recurrent layer's pass over its sequences.

    Attributes:
        zeros: The added zeros, of shape `[batch, time, entries]`, in the order of the input.
        outputs: The outputs of the cell, of shape `[batch, time, ...]`, in processing order.
        mask: Bool tensor of shape `[batch, time]`, in processing order: False where a
            sample has no such time step. None where nothing is masked.
        backwards: Whether the layer goes from the last time step to the first.
    """

    zeros: tf.Tensor
    outputs: tf.Tensor
    mask: tf.Tensor | None
    backwards: bool


def loops(layer: Any) -> bool:
    """Returns whether a layer is recurrent and runs Keras's own loop over time."""
    return isinstance(layer, keras.layers.RNN) and type(layer).inner_loop in _LOOPS


def run(
    layer: Any, tape: tf.GradientTape, sequences: Any, initial_state: Any, mask: Any, training: Any
) -> tuple[Any, Through]:
    """Does the same as `layer.inner_loop`, with zeros added to the states of its cell.

    If the output of the cell is none of its states, zeros are added to the output as well.

    Args:
        layer: A recurrent layer for which `loops` returns True.
        tape: Watches the zeros.
        sequences: The inputs that `inner_loop` received.
        initial_state: A tensor for each state, possibly nested.
        mask: None, or a bool tensor of shape `[batch, time]` or `[batch, time, 1]`.
        training: Whether the cell runs as in training.

    Returns:
        The results of `inner_loop`, and the pass for `profile`.
    """
    # The function is long because its inner functions share the sizes of the states.
    arguments = {}
    if takes_training(layer.cell):
        arguments["training"] = training
    if not tf.nest.is_nested(initial_state):
        initial_state = [initial_state]

    def cell(inputs: Any, before: Any) -> tuple[Any, Any]:
        output, after = layer.cell(inputs, before, **arguments)
        return output, after if tf.nest.is_nested(after) else [after]

    # This call only shows the cell's outputs. Nothing consumes its operations.
    emitted, handed = cell(sequences[:, 0], initial_state)
    changed = [*tf.nest.flatten(handed)]
    if not any(state is emitted for state in changed):
        changed.append(emitted)
    shapes = [tuple(x.shape[1:]) for x in changed]
    sizes = [math.prod(shape) for shape in shapes]
    features = tuple(sequences.shape[2:])
    width = math.prod(features)

    batch, steps = (
        dynamic if static is None else static
        for static, dynamic in zip(sequences.shape[:2], tf.unstack(tf.shape(sequences)[:2]))
    )
    zeros = tf.zeros([batch, steps, sum(sizes)], sequences.dtype)
    tape.watch(zeros)
    # Keras's loop only accepts nested inputs of a known length.
    inputs = tf.concat([tf.reshape(sequences, [batch, steps, width]), zeros], 2)

    def add(tensor: tf.Tensor, zero: tf.Tensor) -> tf.Tensor:
        if tensor.shape.rank != 2:
            zero = tf.reshape(zero, tf.shape(tensor))
        return tensor + tf.cast(zero, tensor.dtype)

    def step(both: Any, before: Any) -> tuple[Any, Any]:
        x, *added = tf.split(both, [width, *sizes], 1)
        if len(features) != 1:
            x = tf.reshape(x, [batch, *features])
        output, after = cell(x, before)
        old = tf.nest.flatten(after)
        new = [add(state, zero) for state, zero in zip(old, added)]
        same = [i for i, state in enumerate(old) if state is output]
        output = new[same[0]] if same else add(output, added[-1])
        return output, tf.nest.pack_sequence_as(after, new)

    mask = None if mask is None else tf.nest.flatten(mask)[0]
    last, outputs, final = rnn(
        step,
        inputs,
        initial_state,
        go_backwards=layer.go_backwards,
        mask=mask,
        unroll=layer.unroll,
        input_length=sequences.shape[1],
        zero_output_for_mask=layer.zero_output_for_mask,
        return_all_outputs=True,
    )
    if mask is not None:
        mask = tf.cast(tf.reshape(mask, [batch, steps]), tf.bool)
        mask = tf.reverse(mask, [1]) if layer.go_backwards else mask
    return (last, outputs, final), Through(zeros, outputs, mask, layer.go_backwards)


def profile(through: Through, gradient: tf.Tensor | None, width: int) -> tf.Tensor:
    """Returns the RMS of dL/dh_t over time, in the order in which the layer processes it.

    The RMS at a time step is taken over the samples and over all entries of the states: h and c of
    an LSTM, and the states of all stacked cells. The gradient is the one with respect to the states
    as the next step receives them. So dL/dc_t of an LSTM does not contain the effect of c_t through
    h_t, which is a state of its own.

    Samples are aligned at their ends. The last entry belongs to the last time step of each sample,
    and the entry before to the time step before. Masked steps do not count.

    Args:
        through: The pass of the layer.
        gradient: The gradient with respect to `through.zeros`; None if the loss does not depend on
            them.
        width: The number of time steps that are kept: the last ones.

    Returns:
        A float32 tensor of shape `[width]`. An entry is NaN if no sample has such a time step, and
        Inf if an entry of the gradient is NaN or Inf.
    """
    if gradient is None:
        return tf.fill([width], math.nan)
    # In float64, the square of a float32 never overflows or underflows.
    gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float64)
    finite = tf.reduce_all(tf.math.is_finite(gradient), 2)
    squares = tf.reduce_mean(tf.square(gradient), 2)
    squares = tf.where(
        finite, squares, tf.fill(tf.shape(squares), tf.constant(math.inf, tf.float64))
    )
    if through.backwards:
        squares = tf.reverse(squares, [1])
    present = tf.ones_like(squares) if through.mask is None else tf.cast(through.mask, tf.float64)
    later = tf.cast(tf.cumsum(present, 1, exclusive=True, reverse=True), tf.int32)
    # The steps that are not kept go into one extra column.
    kept = tf.logical_and(present > 0, later < width)
    column = tf.reshape(tf.where(kept, width - 1 - later, width), [-1])
    total, count = (
        tf.math.unsorted_segment_sum(tf.reshape(x, [-1]), column, width + 1)[:width]
        for x in (squares, present)
    )
    return tf.cast(tf.sqrt(total / count), tf.float32)
