from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.activations import units
from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.records.activations import ACTIVATION_COLUMNS

RNG = np.random.default_rng(0)


def column(model: Any, name: str, *x: np.ndarray, loss: Any = "mse") -> np.ndarray:
    """A column of what the probe finds, with the model's own output as the target."""
    model.compile(keras.optimizers.SGD(0.0), loss)
    inputs = [tf.constant(part, tf.float32) for part in x]
    probe = Probe(model)
    vector = probe.trace((inputs if len(x) > 1 else inputs[0], model(*inputs[:1]) + 1.0))
    return probe.parse(vector.numpy()).table[:, ACTIVATION_COLUMNS.index(name)]


@pytest.mark.smoke
@pytest.mark.parametrize("function", ["relu", "relu6"])
def test_a_dead_unit_is_one_that_is_zero_for_every_sample(function: str) -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=function)])
    model.layers[0].bias.assign([-100.0, 0.0, -100.0, -100.0])
    x = np.abs(RNG.normal(size=(10, 3)))
    kernel = np.eye(3, 4) * 0.1
    kernel[2, 3] = 1.0
    x[0, 2] = 1000.0  # One sample wakes one of the three.
    model.layers[0].kernel.assign(kernel)
    kernel[2, 2] = 0
    model.layers[0].kernel.assign(kernel)
    assert column(model, "dead_fraction", x).tolist() == [0.5]


def test_a_channel_is_a_unit() -> None:
    model = keras.Sequential([layers.Input((5, 5, 1)), layers.Conv2D(4, 3), layers.ReLU()])
    model.layers[0].bias.assign([-100.0, 1.0, 1.0, 1.0])
    found = column(model, "dead_fraction", RNG.normal(size=(3, 5, 5, 1)))
    np.testing.assert_array_equal(found, [np.nan, 0.25])


@pytest.mark.parametrize(
    ("function", "rectifies"),
    [
        (keras.activations.relu, True),
        (tf.nn.relu, True),
        (keras.activations.relu6, True),
        (layers.ReLU(), True),
        (layers.ReLU(max_value=2.0), True),
        (lambda x: keras.ops.square(keras.ops.relu(x)), True),
        (layers.ReLU(negative_slope=0.1), False),
        (layers.LeakyReLU(), False),
        (keras.activations.sigmoid, False),
        (keras.activations.gelu, False),
        (keras.activations.linear, False),
        (lambda x: x[:, :2], False),
        (lambda x: None, False),
    ],
)
def test_what_rectifies(function: Any, rectifies: bool) -> None:
    assert units.rectifies(function) is rectifies

    @tf.function
    def traced() -> Any:
        assert units.rectifies(function) is rectifies
        return tf.zeros([])

    traced()


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "softsign", "hard_sigmoid", "hard_tanh"])
def test_an_entry_is_saturated_where_the_slope_is_a_twentieth_of_the_steepest(
    function: str,
) -> None:
    if not hasattr(keras.activations, function):
        pytest.skip("This Keras does not have it.")
    activation = keras.activations.get(function)
    z = tf.Variable(np.linspace(-7, 7, 1401), dtype=tf.float32)
    with tf.GradientTape() as tape:
        y = activation(z)
    slope = tape.gradient(y, z).numpy()
    expected = np.mean(slope < 0.05 * slope.max())
    assert 0.1 < expected < 0.9
    assert float(units.saturated(activation, y)) == pytest.approx(expected, abs=2e-3)


def test_larger_weights_saturate_and_another_function_is_unknown() -> None:
    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(8, activation="tanh"), layers.Dense(2, "gelu")]
    )
    x = RNG.normal(size=(20, 4))
    low, unknown = column(model, "saturated_fraction", x)
    model.layers[0].kernel.assign(100 * model.layers[0].kernel.numpy())
    high, _ = column(model, "saturated_fraction", x)
    assert low < 0.2 < 0.9 < high
    assert np.isnan(unknown)


def test_the_states_of_a_recurrent_layer_saturate_where_it_is_not_masked() -> None:
    model = keras.Sequential(
        [layers.Input((4, 1)), layers.Masking(), layers.SimpleRNN(2, use_bias=False)]
    )
    model.layers[1].cell.kernel.assign([[10.0, 0.0]])
    model.layers[1].cell.recurrent_kernel.assign(np.zeros((2, 2)))
    x = np.ones((2, 4, 1))
    x[0, 1:] = 0
    x[1, 0] = 0
    assert column(model, "saturated_fraction", x).tolist() == [0.5]


def attending(layer: Any, **arguments: Any) -> Any:
    x = layers.Input((6, 4))
    return keras.Model(x, layer(*arguments.pop("call", (x, x)), **arguments))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["multi", "grouped"])
def test_uniform_attention_has_entropy_one(kind: str, causal: bool) -> None:
    layer = (
        layers.MultiHeadAttention(2, 3) if kind == "multi" else layers.GroupQueryAttention(3, 2, 1)
    )
    model = attending(layer, use_causal_mask=causal)
    x = RNG.normal(size=(3, 6, 4))
    layer._query_dense.kernel.assign(np.zeros(layer._query_dense.kernel.shape))
    assert column(model, "attention_entropy", x)[0] == pytest.approx(1.0, abs=1e-5)
    for dense in (layer._query_dense, layer._key_dense):
        dense.kernel.assign(100 * RNG.normal(size=dense.kernel.shape))
    assert column(model, "attention_entropy", x)[0] < 0.1


@pytest.mark.parametrize("kind", [layers.Attention, layers.AdditiveAttention])
def test_the_entropy_of_attention_without_weights(kind: Any) -> None:
    x = layers.Input((6, 4))
    model = keras.Model(x, kind(dropout=0.5)([layers.Dense(4)(x), x]))
    model.layers[1].kernel.assign(np.zeros((4, 4)))
    x = RNG.normal(size=(3, 6, 4))
    expected = []
    for sample in x if kind is layers.AdditiveAttention else []:
        scores = np.tanh(sample).sum(1)
        p = np.exp(scores) / np.exp(scores).sum()
        expected.append(-(p * np.log(p)).sum() / np.log(6))
    found = column(model, "attention_entropy", x)[1]
    if not expected:
        assert found == pytest.approx(1.0, abs=1e-5)
    else:
        assert 0 < found < 1


def test_entropy_counts_the_keys_that_a_query_may_attend_to() -> None:
    weights = tf.constant([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]])
    mask = tf.constant([[[True, True, False], [True, False, False], [True, True, True]]])
    third = 1.5 * np.log(2) / np.log(3)
    assert float(units.entropy(weights, mask, 1)) == pytest.approx((1 + third) / 2)
    everything = (np.log(2) / np.log(3) + 0 + third) / 3
    assert float(units.entropy(weights, None, 1)) == pytest.approx(everything)
    assert np.isnan(units.entropy(weights, tf.constant([[[True, False, False]]]), 1))


def test_explicit_attention_gives_what_the_fused_kernel_gives() -> None:
    layer = layers.MultiHeadAttention(2, 3)
    model = attending(layer, use_causal_mask=True)
    x = RNG.normal(size=(3, 6, 4)).astype(np.float32)
    rms = float(np.sqrt(np.mean(np.square(model(x)))))
    assert column(model, "output_rms", x)[0] == pytest.approx(rms, rel=1e-5)
