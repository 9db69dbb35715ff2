from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numerics import rms
from small_models import compiled, numbers, sequential

from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.capture.tensorflow.activations.recurrent import Through
from keras_vanish.capture.tensorflow.activations.recurrent import profile as profile_of
from keras_vanish.records.activations import ACTIVATION_COLUMNS


def profiles(model: Any, x: Any, y: Any) -> dict[str, np.ndarray]:
    probe = Probe(model)
    data = tf.nest.map_structure(tf.constant, (x, y))
    return probe.parse(probe.trace(data).numpy()).profiles


def profile(model: Any, x: Any, y: Any) -> np.ndarray:
    """The profile of a model's only recurrent layer."""
    (only,) = profiles(model, x, y).values()
    return only


def unrolled(
    cell: Any, x: np.ndarray, states: list[Any], loss: Callable[[list[Any]], Any]
) -> np.ndarray:
    """RMS of dL/dstate_t: each step takes the states as they are handed on, each watched."""
    with tf.GradientTape() as tape:
        watched, outputs = [], []
        for t in range(x.shape[1]):
            output, new = cell(x[:, t], states)
            flat = tf.nest.flatten(new)
            fresh = [tf.identity(state) for state in flat]
            for state in fresh:
                tape.watch(state)
            is_state = [i for i, state in enumerate(flat) if state is output]
            outputs.append(fresh[is_state[0]])
            watched.append(fresh)
            states = tf.nest.pack_sequence_as(new, fresh)
        value = loss(outputs)
    gradients = tape.gradient(value, watched, unconnected_gradients="zero")
    return np.array([rms(*step) for step in gradients])


def mean_square(prediction: Any, y: Any) -> Any:
    return tf.reduce_mean(tf.square(prediction - y))


@pytest.mark.smoke
def test_a_plain_layer_against_back_propagation_through_time_by_hand() -> None:
    model = sequential(layers.Input((7, 3)), layers.SimpleRNN(4), layers.Dense(2))
    x, y = numbers(5, 7, 3), numbers(5, 2)
    kernel, recurrent, bias, out, out_bias = (v.numpy() for v in model.weights)
    h, states = np.zeros((5, 4)), []
    for t in range(7):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        states.append(h)
    gradient = (2 * (h @ out + out_bias - y) / y.size) @ out.T
    expected = [gradient]
    for h in states[:0:-1]:
        gradient = (gradient * (1 - h**2)) @ recurrent.T
        expected.append(gradient)
    expected_rms = [rms(g) for g in expected[::-1]]
    np.testing.assert_allclose(profile(model, x, y), expected_rms, rtol=1e-4)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_gated_layers_against_an_unrolled_loop(kind: Any, unroll: bool, sequences: bool) -> None:
    layer = kind(4, return_sequences=sequences, unroll=unroll)
    head = layers.Dense(2)
    model = sequential(layers.Input((6, 3)), layer, head)
    x, y = numbers(5, 6, 3), numbers(5, 6, 2) if sequences else numbers(5, 2)

    def loss(outputs: list[Any]) -> Any:
        return mean_square(head(tf.stack(outputs, 1) if sequences else outputs[-1]), y)

    zeros = [tf.zeros((5, 4)) for _ in range(2 if kind is layers.LSTM else 1)]
    expected = unrolled(layer.cell, x, zeros, loss)
    np.testing.assert_allclose(profile(model, x, y), expected, rtol=1e-4)


def test_stacked_cells_against_an_unrolled_loop() -> None:
    layer = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)])
    head = layers.Dense(1)
    model = sequential(layers.Input((5, 2)), layer, head)
    x, y = numbers(4, 5, 2), numbers(4, 1)
    zeros = [tf.zeros((4, 3)), [tf.zeros((4, 4)), tf.zeros((4, 4))]]
    expected = unrolled(layer.cell, x, zeros, lambda outputs: mean_square(head(outputs[-1]), y))
    np.testing.assert_allclose(profile(model, x, y), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [layers.ConvLSTM1D, layers.ConvLSTM2D])
def test_convolutional_layers_against_an_unrolled_loop(kind: Any) -> None:
    shape = (5, 4, 2) if kind is layers.ConvLSTM1D else (5, 4, 4, 2)
    layer = kind(3, 3, padding="same")
    model = sequential(layers.Input(shape), layer, layers.Flatten(), layers.Dense(1))
    x, y = numbers(2, *shape), numbers(2, 1)
    head = keras.Sequential(model.layers[1:])
    zeros = [tf.zeros((2, *shape[1:-1], 3))] * 2
    expected = unrolled(layer.cell, x, zeros, lambda outputs: mean_square(head(outputs[-1]), y))
    np.testing.assert_allclose(profile(model, x, y), expected, rtol=1e-4)


class Projecting(layers.Layer):
    """A cell that emits something else than its state."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.state_size, self.output_size = units, 2
        self.inner, self.project = layers.Dense(units, activation="tanh"), layers.Dense(2)

    def build(self, shape: Any) -> None:
        self.inner.build((shape[0], shape[-1] + self.state_size))
        self.project.build((shape[0], self.state_size))
        self.built = True

    def call(self, inputs: Any, states: Any) -> tuple[Any, Any]:
        state = self.inner(keras.ops.concatenate([inputs, states[0]], -1))
        return self.project(state), [state]


def test_a_custom_cell_that_emits_no_state_is_derived_by_state_and_output() -> None:
    layer = layers.RNN(Projecting(3), return_sequences=True)
    model = sequential(layers.Input((4, 2)), layer)
    x, y = numbers(5, 4, 2), numbers(5, 4, 2)
    with tf.GradientTape() as tape:
        state, watched, outputs = tf.zeros((5, 3)), [], []
        for t in range(4):
            output, (state,) = layer.cell(x[:, t], [state])
            output, state = tf.identity(output), tf.identity(state)
            tape.watch([output, state])
            watched.append([output, state])
            outputs.append(output)
        value = mean_square(tf.stack(outputs, 1), y)
    gradients = tape.gradient(value, watched, unconnected_gradients="zero")
    expected = [rms(*step) for step in gradients]
    np.testing.assert_allclose(profile(model, x, y), expected, rtol=1e-4)


# After the end, a layer that emits zeros for masked steps loses its states' gradient.
@pytest.mark.parametrize(("before", "zero_output"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("unroll", [False, True])
def test_masked_steps_do_not_count(before: bool, unroll: bool, zero_output: bool) -> None:
    layer = layers.GRU(3, zero_output_for_mask=zero_output, unroll=unroll)
    padded = sequential(layers.Input((8, 2)), layers.Masking(), layer, layers.Dense(1))
    x, y = numbers(5, 6, 2), numbers(5, 1)
    nothing = np.zeros((5, 2, 2), np.float32)
    plain = sequential(layers.Input((6, 2)), layers.GRU(3), layers.Dense(1))
    plain.set_weights(padded.get_weights())
    parts = [nothing, x] if before else [x, nothing]
    found = profile(padded, np.concatenate(parts, 1), y)
    np.testing.assert_allclose(found, profile(plain, x, y), rtol=1e-4)


@pytest.mark.parametrize("backwards", [False, True])
def test_samples_of_different_lengths_are_aligned_at_their_ends(backwards: bool) -> None:
    layer = layers.LSTM(3, go_backwards=backwards)
    model = sequential(layers.Input((None, 2)), layers.Masking(), layer, layers.Dense(1))
    x, y = numbers(3, 6, 2), numbers(3, 1)
    lengths = (6, 2, 4)
    each = [profile(model, x[i : i + 1, :n], y[i : i + 1]) for i, n in enumerate(lengths)]
    for i, n in enumerate(lengths):
        x[i, n:] = 0
    squares = np.full((3, 6), np.nan)
    for i, n in enumerate(lengths):
        squares[i, 6 - n :] = (each[i] / 3) ** 2  # The loss is a mean over three samples.
    expected = np.sqrt(np.nanmean(squares, 0))
    np.testing.assert_allclose(profile(model, x, y), expected, rtol=1e-4)


def test_going_backwards_is_going_through_the_reversed_input() -> None:
    forwards = sequential(layers.Input((6, 2)), layers.GRU(3), layers.Dense(1))
    backwards = sequential(layers.Input((6, 2)), layers.GRU(3, go_backwards=True), layers.Dense(1))
    backwards.set_weights(forwards.get_weights())
    x, y = numbers(4, 6, 2), numbers(4, 1)
    found = profile(backwards, x, y)
    np.testing.assert_allclose(found, profile(forwards, x[:, ::-1], y), rtol=1e-4)
    assert found[-1] > 2 * found[0]


def test_both_directions_of_a_bidirectional_layer() -> None:
    model = sequential(
        layers.Input((6, 2)), layers.Bidirectional(layers.SimpleRNN(3), name="b"), layers.Dense(1)
    )
    x, y = numbers(4, 6, 2), numbers(4, 1)
    both = model.layers[0]
    head = model.layers[1]
    found = profiles(model, x, y)
    forward, backward = both.forward_layer, both.backward_layer
    other = backward(x)
    expected = unrolled(
        forward.cell,
        x,
        [tf.zeros((4, 3))],
        lambda out: mean_square(head(tf.concat([out[-1], other], 1)), y),
    )
    np.testing.assert_allclose(found[f"b/{forward.name}"], expected, rtol=1e-4)
    other = forward(x)
    expected = unrolled(
        backward.cell,
        x[:, ::-1],
        [tf.zeros((4, 3))],
        lambda out: mean_square(head(tf.concat([other, out[-1]], 1)), y),
    )
    np.testing.assert_allclose(found[f"b/{backward.name}"], expected, rtol=1e-4)


def test_an_encoder_hands_its_states_to_a_decoder() -> None:
    keras.utils.set_random_seed(1)
    source, target = layers.Input((5, 2)), layers.Input((3, 2))
    encoder = layers.LSTM(4, return_state=True, name="encoder")
    decoder = layers.LSTM(4, return_sequences=True, name="decoder")
    head = layers.Dense(1)
    _, h, c = encoder(source)
    model = compiled(keras.Model([source, target], head(decoder(target, initial_state=[h, c]))))
    a, b, y = numbers(4, 5, 2), numbers(4, 3, 2), numbers(4, 3, 1)
    found = profiles(model, [a, b], y)
    with tf.GradientTape() as tape:
        states, watched, outputs = [tf.zeros((4, 4))] * 2, [], []
        for cell, x in ((encoder.cell, a), (decoder.cell, b)):
            for t in range(x.shape[1]):
                _, states = cell(x[:, t], states)
                states = [tf.identity(state) for state in states]
                tape.watch(states)
                watched.append(states)
                outputs.append(states[0])
        value = mean_square(head(tf.stack(outputs[5:], 1)), y)
    gradients = tape.gradient(value, watched, unconnected_gradients="zero")
    expected = [rms(*step) for step in gradients]
    np.testing.assert_allclose(found["encoder"], expected[:5], rtol=1e-4)
    np.testing.assert_allclose(found["decoder"], expected[5:], rtol=1e-4)


def test_a_gradient_that_overflows_is_infinite_and_not_missing() -> None:
    model = sequential(
        layers.Input((40, 1)), layers.SimpleRNN(2, activation="linear"), layers.Dense(1)
    )
    model.layers[0].cell.recurrent_kernel.assign(np.eye(2) * 100)
    found = profile(model, numbers(2, 40, 1) * 1e-38, numbers(2, 1))
    assert found.shape == (40,)
    assert np.isinf(found[0])
    assert np.isfinite(found[-1])


def test_a_gradient_that_is_nan_is_infinite_and_not_missing() -> None:
    zeros = tf.zeros((1, 3, 2))
    passed = Through(zeros, outputs=zeros, mask=None, backwards=False)
    gradient = tf.constant([[[np.nan, 1.0], [3.0, 3.0], [1.0, 1.0]]])
    found = profile_of(passed, gradient, 4).numpy()
    np.testing.assert_array_equal(found, [np.nan, np.inf, 3.0, 1.0])
    assert np.isnan(profile_of(passed, None, 4)).all()


def test_what_is_emitted_is_not_changed() -> None:
    """The zeros are zeros: the loss that the probe sees is the model's own."""
    model = sequential(
        layers.Input((5, 2)),
        layers.Masking(),
        layers.LSTM(3, return_sequences=True),
        layers.GRU(3, go_backwards=True, return_sequences=True),
        layers.Dense(1),
    )
    x, y = numbers(4, 5, 2), numbers(4, 5, 1)
    x[1, 3:] = 0
    probe = Probe(model)
    found = probe.parse(probe.trace((tf.constant(x), tf.constant(y))).numpy())
    output_rms = found.table[-1, ACTIVATION_COLUMNS.index("output_rms")]
    assert output_rms == pytest.approx(rms(model(x)), rel=1e-5)
