"""Weights with which a recurrent cell passes gradients through time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models_to_reinitialize import RANDOM, SEQUENCES, sequential

from keras_vanish.rescue.reinitialize.recurrent_cells import (
    INPUT_SPREAD,
    known,
    orthogonal,
    start,
    weights,
)
from keras_vanish.rescue.reinitialize.reinitialize import reinitialize


def started(cell: Any, x: Any = SEQUENCES, steps: int = 20, seed: int = 0) -> Any:
    cell.build((None, 4))
    given = None if x is None else tf.constant(x)
    start(cell, given, steps, np.random.default_rng(seed))
    return cell


# Orthogonality.


@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8), (3, 3, 2, 4), (1, 1)])
def test_columns_are_orthonormal_or_rows_where_these_are_fewer(shape: tuple[int, ...]) -> None:
    found = orthogonal(shape, np.random.default_rng(0))
    assert found.shape == shape
    assert found.dtype == np.float64
    matrix = found.reshape(-1, shape[-1])
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-12)


def test_draws_are_spread_over_all_orthogonal_matrices() -> None:
    # Without the signs of `r`, the diagonal of what QR gives is never positive, or never negative.
    random = np.random.default_rng(0)
    diagonal = np.array([np.diag(orthogonal((4, 4), random)) for _ in range(200)])
    assert abs(diagonal.mean()) < 0.1
    assert (diagonal > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_a_very_large_one_is_almost_orthogonal() -> None:
    found = orthogonal((2049, 2049), np.random.default_rng(0))
    assert np.square(found).sum(0).mean() == pytest.approx(1.0, rel=0.01)
    assert abs(found[:, 0] @ found[:, 1]) < 0.1


# Cells.


def test_which_cells_are_known() -> None:
    class LSTMCell(layers.Layer):
        """One of the user's own."""

    for kind in (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell):
        assert known(kind(3))
    assert known(layers.ConvLSTM2D(2, 3).cell)
    assert not known(LSTMCell())
    assert not known(layers.StackedRNNCells([layers.GRUCell(3)]))


@pytest.mark.parametrize("bias", [False, True])
def test_its_weights_are_all_that_is_assigned(bias: bool) -> None:
    cell = started(layers.LSTMCell(3, use_bias=bias))
    assert [id(v) for v in weights(cell)] == [id(v) for v in cell.trainable_variables]


@pytest.mark.parametrize("kind", [layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell])
def test_the_seed_decides(kind: Any) -> None:
    def drawn(seed: int) -> list[Any]:
        return [v.numpy() for v in weights(started(kind(3), seed=seed))]

    assert all(map(np.array_equal, drawn(0), drawn(0)))
    assert not np.array_equal(drawn(0)[0], drawn(1)[0])


def test_without_gates_all_steps_together_spread_little() -> None:
    x = 3 * SEQUENCES + 7
    cell = started(layers.SimpleRNNCell(50), x)
    z = x @ cell.kernel.numpy() + cell.bias.numpy()
    # Of independent steps the variances add up.
    assert math.sqrt(z.var(0).mean(-1).sum()) == pytest.approx(INPUT_SPREAD, rel=0.1)
    np.testing.assert_allclose(z.mean((0, 1)), 0, atol=1e-3)
    # ReLU hands on what is there as it is.
    relu = started(layers.SimpleRNNCell(50, activation="relu"), x)
    np.testing.assert_allclose(relu.kernel.numpy(), cell.kernel.numpy() / INPUT_SPREAD, rtol=1e-5)


@pytest.mark.parametrize("x", [None, np.ones((4, 20, 4), np.float32), SEQUENCES * math.nan])
@pytest.mark.parametrize("kind", [layers.SimpleRNNCell, layers.LSTMCell])
def test_what_is_given_says_nothing(kind: Any, x: Any) -> None:
    cell = started(kind(50), x)
    gates = cell.kernel.shape[-1] // 50
    # Glorot's kernel as it is.
    bound = math.sqrt(6 / (4 + 50))
    largest = np.abs(cell.kernel.numpy()).max() / (1 if gates > 1 else INPUT_SPREAD)
    assert all(np.isfinite(v.numpy()).all() for v in weights(cell))
    if x is None or gates > 1:
        assert 0.95 * bound < np.abs(cell.kernel.numpy()).max() <= bound
    else:
        assert 0.95 * bound < largest <= bound
        assert not cell.bias.numpy().any()


# Memory: chrono initialisation.


@pytest.mark.parametrize("steps", [2, 20, 1000])
@pytest.mark.parametrize("kind", [layers.GRUCell, layers.LSTMCell])
def test_memories_last_from_one_step_to_all_of_them(kind: Any, steps: int) -> None:
    units = 200
    cell = started(kind(units), None, steps)
    bias = cell.bias.numpy()
    bias = bias[0] if bias.ndim == 2 else bias
    memory = bias[:units] if kind is layers.GRUCell else bias[units : 2 * units]
    lasts = np.exp(memory.astype(np.float64))
    longest = max(1, steps - 1)
    assert lasts.min() >= 1 - 1e-6
    assert lasts.max() <= longest * (1 + 1e-5)
    # Evenly: neither all short nor all long.
    assert lasts.mean() == pytest.approx((1 + longest) / 2, rel=0.1)
    if kind is layers.LSTMCell:
        np.testing.assert_array_equal(bias[:units], -memory)
    else:
        assert not bias[units:].any()


def test_a_single_step_needs_no_memory() -> None:
    cell = started(layers.LSTMCell(8), None, steps=1)
    assert not cell.bias.numpy().any()


def test_a_cell_without_a_bias() -> None:
    cell = started(layers.GRUCell(8, use_bias=False))
    assert cell.bias is None
    for gate in np.split(cell.recurrent_kernel.numpy(), 3, -1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)


# In a model.


@pytest.mark.smoke
def test_a_plain_recurrent_layer() -> None:
    model = sequential((20, 4), layers.SimpleRNN(8, recurrent_initializer="zeros", name="rnn"))
    done = reinitialize(model, SEQUENCES)
    kernel = model.get_layer("rnn").cell.recurrent_kernel.numpy()
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-5)
    assert done.names == ("rnn", "head")


def test_the_recurrent_kernel_of_relu_hands_on_each_unit_to_the_next() -> None:
    model = sequential((20, 4), layers.SimpleRNN(8, activation="relu", name="rnn"))
    reinitialize(model, SEQUENCES)
    kernel = model.get_layer("rnn").cell.recurrent_kernel.numpy()
    state = np.arange(8.0)
    np.testing.assert_array_equal(state @ kernel, np.roll(state, -1))


def test_gates_of_an_lstm_last_as_long_as_the_sequence() -> None:
    model = sequential((20, 4), layers.LSTM(50, name="lstm"))
    reinitialize(model, SEQUENCES)
    cell = model.get_layer("lstm").cell
    given, forget, candidate, output = np.split(cell.bias.numpy(), 4)
    np.testing.assert_array_equal(given, -forget)
    assert 0 <= forget.min() < 1.5
    assert 2.5 < forget.max() <= math.log(19)
    assert not candidate.any()
    assert not output.any()
    for gate in np.split(cell.recurrent_kernel.numpy(), 4, -1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(50), atol=1e-5)


@pytest.mark.parametrize("reset_after", [True, False])
def test_the_update_gate_of_a_gru_keeps(reset_after: bool) -> None:
    model = sequential((20, 4), layers.GRU(50, reset_after=reset_after, name="gru"))
    reinitialize(model, SEQUENCES)
    bias = model.get_layer("gru").cell.bias.numpy()
    bias = bias[0] if reset_after else bias
    assert 0 <= bias[:50].min() < 1.5
    assert 2.5 < bias[:50].max() <= math.log(19)
    assert not bias[50:].any()


def test_a_convolutional_recurrent_layer() -> None:
    model = sequential((5, 8, 8, 3), layers.ConvLSTM2D(4, 3, name="conv"), layers.Flatten())
    reinitialize(model, RANDOM.random((4, 5, 8, 8, 3)).astype(np.float32))
    bias = model.get_layer("conv").cell.bias.numpy()
    np.testing.assert_array_equal(bias[:4], -bias[4:8])


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_gates_hear_an_input_that_is_next_to_nothing(kind: Any) -> None:
    for size, expected in ((0.01, 0.25), (2.0, None)):
        model = sequential((20, 4), kind(50, name="cell"))
        reinitialize(model, size * SEQUENCES)
        z = size * SEQUENCES @ model.get_layer("cell").cell.kernel.numpy()
        if expected is None:
            # Glorot's kernel as it is.
            bound = math.sqrt(6 / (4 + 50))
            assert 0.99 * bound < np.abs(model.get_layer("cell").cell.kernel.numpy()).max() <= bound
        else:
            assert z.std((0, 1)).mean() == pytest.approx(expected, rel=0.05)
