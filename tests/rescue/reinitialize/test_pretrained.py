from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import initializers, layers

from keras_vanish.rescue.reinitialize.pretrained import looks_pretrained, pretrained

INITIALIZERS = [
    "glorot_uniform",
    "glorot_normal",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "orthogonal",
    "zeros",
    "ones",
    initializers.RandomNormal(0.5, 0.01),
    initializers.RandomUniform(-0.2, 0.0),
    initializers.TruncatedNormal(0.0, 3.0),
    initializers.VarianceScaling(2.0, "fan_out", "uniform"),
    initializers.Identity(1.4),
    initializers.Constant(0.3),
]


def built(layer: Any, *shape: int) -> Any:
    keras.utils.set_random_seed(1)
    layer.build((None, *shape))
    return layer


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda made: type(made).__name__)
@pytest.mark.parametrize("units", [1, 3, 64])
def test_what_an_initialiser_gave(initializer: Any, units: int) -> None:
    layer = built(layers.Dense(units, kernel_initializer=initializer), 30)
    assert not looks_pretrained(layer)


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda made: type(made).__name__)
def test_what_it_did_not_give(initializer: Any) -> None:
    layer = built(layers.Dense(64, kernel_initializer=initializer), 30)
    layer.kernel.assign(1.5 * layer.kernel.numpy() + 0.04)
    assert looks_pretrained(layer)


def test_a_bias_tells() -> None:
    layer = built(layers.Dense(4, bias_initializer=initializers.Constant(-2.0)), 3)
    assert not looks_pretrained(layer)
    layer.bias.assign(layer.bias + np.array([0, 0.1, 0, 0], np.float32))
    assert looks_pretrained(layer)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Conv2D(8, 3), (9, 9, 4)),
        (lambda: layers.Conv2DTranspose(8, 3), (9, 9, 4)),
        (lambda: layers.DepthwiseConv2D(3), (9, 9, 16)),
        (lambda: layers.SeparableConv2D(8, 3), (9, 9, 16)),
        (lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 8), bias_axes="de"), (5, 32)),
        (lambda: layers.LSTMCell(8), (5,)),
        (lambda: layers.LSTMCell(8, unit_forget_bias=False), (5,)),
        (lambda: layers.GRUCell(8), (5,)),
        (lambda: layers.SimpleRNNCell(8), (5,)),
        (lambda: layers.Dense(8, bias_initializer=lambda s, dtype=None: np.ones(s)), (5,)),
    ],
)
def test_kinds_of_layers(layer: Any, shape: tuple[int, ...]) -> None:
    fresh = built(layer(), *shape)
    assert not looks_pretrained(fresh)
    biased = [v for v in fresh.variables if v.name.endswith("kernel")]
    biased[-1].assign(3.0 * biased[-1].numpy())
    assert looks_pretrained(fresh)


def test_the_forget_bias_of_an_lstm_tells() -> None:
    cell = built(layers.LSTMCell(8), 5)
    bias = cell.bias.numpy()
    bias[9] = 1.2
    cell.bias.assign(bias)
    assert looks_pretrained(cell)


def test_weights_that_are_not_finite_were_not_trained() -> None:
    layer = built(layers.Dense(8), 5)
    layer.kernel.assign(np.full((5, 8), np.nan))
    assert not looks_pretrained(layer)


def test_the_layers_of_a_model_that_trained() -> None:
    keras.utils.set_random_seed(0)
    base = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu", name="a")], name="base")
    model = keras.Sequential([layers.Input((8,)), base, layers.Dense(2, name="head")])
    assert pretrained(model) == frozenset()
    base.compile("sgd", "mse")
    x = np.random.default_rng(0).random((64, 8))
    base.fit(x, np.ones((64, 16)), verbose=0)
    assert pretrained(model) == {"base/a"}
