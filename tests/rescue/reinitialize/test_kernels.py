"""Weights of a layer with a kernel, found from what it is given."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers, layers
from models_to_reinitialize import PICTURES, X, before_activation, sequential

from keras_vanish.rescue.reinitialize.kernels import (
    AIMS,
    KNOWN,
    kernels_of,
    sides,
    start,
    starts_at_zero,
)
from keras_vanish.rescue.reinitialize.reinitialize import reinitialize

PLAIN = np.random.default_rng(1).standard_normal((64, 6)).astype(np.float32) * 2 + 1


def started(
    layer: Any, aim: str, x: Any = PLAIN, share: float = 1.0, **options: Any
) -> tuple[Any, Any]:
    """Pre-activations of a layer by itself that was given new weights, and its kernel."""
    layer.build(x.shape)
    start(layer, lambda: layer(x), aim, share, np.random.default_rng(0), **options)
    return layer(x).numpy(), kernels_of(layer)[-1].numpy()


def rms(z: Any) -> float:
    return math.sqrt(float(np.mean(np.square(z))))


# Aims.


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("aim", [*sorted(AIMS), "relu", "gelu"])
def test_pre_activations_are_as_the_aim_says(aim: str, share: float) -> None:
    z, _ = started(layers.Dense(16), aim, share=share)
    wanted = AIMS.get(aim)
    spread = share * (1.0 if wanted is None else wanted.spread)
    if wanted is None:
        assert rms(z) == pytest.approx(spread, rel=1e-3)
        assert abs(z.mean(0)).max() > 0.1
        return
    assert wanted.centred
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    assert rms(z) == pytest.approx(spread, rel=1e-3)
    # By unit, or of the layer as a whole.
    even = np.allclose(z.std(0), spread, rtol=1e-3)
    assert even == wanted.by_unit


def test_a_unit_that_hardly_differs_does_not_become_the_loudest() -> None:
    x = PLAIN.copy()
    # With as many units as inputs, the like of `eye` gives each unit one input.
    x[:, 0] = 1.0 + 1e-4 * x[:, 0]
    layer = layers.Dense(6)
    eye = keras.Variable(np.eye(6, dtype=np.float32))
    z, _ = started(layer, "sigmoid", x, like=eye)
    spreads = z.std(0)
    np.testing.assert_allclose(spreads[1:], 2.5, rtol=1e-2)
    assert spreads[0] < 0.1


@pytest.mark.parametrize(("aim", "kept"), [("head", True), ("softmax", True), ("tanh", False)])
def test_the_bias_of_the_last_layer_is_kept(aim: str, kept: bool) -> None:
    bias = np.log([0.9, 0.1])
    layer = layers.Dense(2, bias_initializer=lambda shape, dtype: tf.constant(bias, dtype))
    z, _ = started(layer, aim)
    np.testing.assert_allclose(z.mean(0), bias if kept else [0, 0], atol=1e-4)


def test_a_bias_that_is_not_finite_is_not_kept() -> None:
    z, _ = started(layers.Dense(2, bias_initializer=initializers.Constant(math.nan)), "head")
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)


def test_without_a_bias_it_is_only_scaled() -> None:
    layer = layers.Dense(16, use_bias=False)
    z, _ = started(layer, "tanh")
    assert rms(z) == pytest.approx(1.0, rel=1e-3)
    assert layer.bias is None


def test_what_moves_is_not_made_loud_from_what_is_quiet() -> None:
    x = 100.0 + 0.01 * PLAIN
    still, _ = started(layers.Dense(6), "tanh", x)
    moving, _ = started(layers.Dense(6), "tanh", x, moves=True)
    assert rms(still) == pytest.approx(1.0, rel=0.05)
    assert rms(moving) < 0.01


# Orthogonality and fans.


@pytest.mark.parametrize("units", [3, 6, 20])
def test_a_kernel_is_orthogonal_up_to_its_scale(units: int) -> None:
    _, kernel = started(layers.Dense(units), "tanh")
    gram = kernel.T @ kernel if units <= 6 else kernel @ kernel.T
    np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-5)


def test_a_kernel_may_be_that_of_another() -> None:
    like = keras.Variable(np.arange(24, dtype=np.float32).reshape(6, 4))
    _, kernel = started(layers.Dense(4), "linear", like=like)
    np.testing.assert_allclose(kernel / kernel[0, 1], like.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "inner", "outer", "fans"),
    [
        (lambda: layers.Dense(5), (2, 7), [0], [1], 12),
        (lambda: layers.Conv2D(5, 3), (2, 8, 8, 7), [0, 1, 2], [3], 9 * 7 + 5),
        (lambda: layers.Conv2DTranspose(5, 3), (2, 8, 8, 7), [0, 1, 3], [2], 9 * 7 + 5),
        (
            lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
            (2, 8, 8, 7),
            [0, 1],
            [2, 3],
            9 + 14,
        ),
        (
            lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 5), bias_axes="de"),
            (2, 8, 7),
            [0],
            [1, 2],
            7 + 20,
        ),
        (lambda: layers.EinsumDense("...x,xy->...y", 5, bias_axes="y"), (2, 3, 7), [0], [1], 12),
    ],
)
def test_sides_and_fans(
    layer: Any, shape: tuple[int, ...], inner: list[int], outer: list[int], fans: int
) -> None:
    made = layer()
    # Nothing to go by: the spread is that of Glorot & Bengio, by the fans.
    z, kernel = started(made, "tanh", np.zeros(shape, np.float32))
    assert isinstance(made, KNOWN)
    assert sides(made, kernel.shape) == (inner, outer)
    assert rms(kernel) == pytest.approx(math.sqrt(2 / fans), rel=1e-3)
    assert not z.any()


def test_a_separable_convolution_has_two_kernels() -> None:
    layer = layers.SeparableConv2D(6, 3)
    z, _ = started(layer, "sigmoid", PICTURES)
    first, last = kernels_of(layer)
    assert last is layer.pointwise_kernel
    # Filters of length 1, one a channel.
    np.testing.assert_allclose(np.square(first.numpy()).sum((0, 1)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(z.std((0, 1, 2)), 2.5, rtol=1e-3)


def test_what_starts_at_zero_by_intention() -> None:
    def made(initializer: str, value: float | None = None) -> Any:
        layer = layers.Dense(2, kernel_initializer=initializer)
        layer.build((None, 3))
        if value is not None:
            layer.kernel.assign(np.full((3, 2), value))
        return layer

    assert starts_at_zero(made("zeros"))
    # It was opened by training, or is zero by accident.
    assert not starts_at_zero(made("zeros", 0.1))
    assert not starts_at_zero(made("glorot_uniform", 0.0))


# In a model.


@pytest.mark.parametrize(("depth", "spread"), [(2, 0.3), (8, 5.0)])
def test_outputs_that_the_last_layer_cannot_enlarge_are_large_at_once(
    depth: int, spread: float
) -> None:
    # What passes eight sigmoid layers differs by 1e-5, and so would the kernel's gradient.
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(64, "sigmoid", trainable=False) for _ in range(depth)]
    head = layers.Dense(3, name="head")
    model = keras.Sequential([layers.Input((10,)), layers.Dense(64), *stack, head])
    done = reinitialize(model, X)
    assert len(done.names) == 2
    outputs = model(X).numpy()
    assert np.sqrt(np.mean(np.square(outputs))) == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (lambda: layers.Conv2D(6, 3, activation="sigmoid"), (0, 1, 2)),
        (lambda: layers.Conv2DTranspose(6, 3, activation="sigmoid"), (0, 1, 2)),
        (lambda: layers.SeparableConv2D(6, 3, activation="sigmoid"), (0, 1, 2)),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="sigmoid"), (0, 1, 2)),
    ],
)
def test_each_channel_of_a_convolution_is_centred_and_scaled(layer: Any, axes: Any) -> None:
    convolution = layer()
    model = sequential((8, 8, 3), convolution, layers.GlobalAveragePooling2D())
    reinitialize(model, PICTURES)
    z = before_activation(model, convolution, PICTURES)
    np.testing.assert_allclose(z.mean(axes), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(axes), 2.5, rtol=1e-3)


def test_a_relu_layer_is_scaled_as_a_whole() -> None:
    model = sequential((10,), layers.Dense(16, "relu", kernel_initializer="zeros", name="zeros"))
    model.get_layer("zeros").kernel_initializer = initializers.RandomNormal(stddev=1e-3)
    done = reinitialize(model, X)
    z = before_activation(model, model.get_layer("zeros"), X)
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, rel=1e-3)
    assert done.touched[0].before == 0.0


def test_what_outputs_have_in_common_does_not_become_loud() -> None:
    common = layers.Dense(8, trainable=False, name="common")
    model = sequential((10,), layers.Dense(8, name="first"), common, layers.Dense(6, name="dense"))
    common.set_weights([0.01 * np.eye(8), np.ones(8)])
    reinitialize(model, X)
    dense = model.get_layer("dense")
    z = before_activation(model, dense, X)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    # What the bias cancels: not a hundred times as much as is left.
    assert np.sqrt(np.mean(dense.bias.numpy() ** 2)) == pytest.approx(1 / 0.3, rel=0.05)
    assert 0.01 < z.std() < 0.1


def test_a_raw_input_may_lie_far_from_zero() -> None:
    model = sequential((10,), layers.Dense(8, "sigmoid", name="dense"))
    x = X + 100.0
    reinitialize(model, x)
    z = before_activation(model, model.get_layer("dense"), x)
    np.testing.assert_allclose(z.std(0), 2.5, rtol=1e-2)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_a_layer_that_is_given_nothing_to_go_by(value: float) -> None:
    model = sequential((10,), layers.Dense(400, "sigmoid", name="dense"))
    reinitialize(model, np.full((8, 10), value, np.float32))
    for layer in model.layers:
        assert np.all(np.isfinite(layer.kernel.numpy()))
        assert not layer.bias.numpy().any()
        fans = sum(layer.kernel.shape)
        assert layer.kernel.numpy().std() == pytest.approx(math.sqrt(2 / fans), rel=0.2)
