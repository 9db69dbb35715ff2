"""A factor on the learning rate, whatever the rate comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.control.rate_factor import RateFactor
from keras_vanish.capture.tensorflow.tap import tap, unwrapped

schedules = keras.optimizers.schedules

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: keras.optimizers.SGD(0.1),
    "schedule": lambda: keras.optimizers.SGD(schedules.PiecewiseConstantDecay([10], [0.1, 9.0])),
    "callable": lambda: keras.optimizers.SGD(lambda: 0.1),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=1.0
    ),
}


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_rate_is_multiplied(name: str, mode: str) -> None:
    optimizer, factor = OPTIMIZERS[name](), RateFactor(xla=mode == "xla")
    weight = keras.Variable(np.zeros(2, np.float32))

    def step() -> None:
        with tap(optimizer, lambda variables, missing: None, factor=factor):
            optimizer.apply([tf.ones(2)], [weight])

    run = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla")
    run()
    np.testing.assert_allclose(weight.numpy(), -0.1, rtol=1e-6)
    factor.assign(0.5)
    run()
    np.testing.assert_allclose(weight.numpy(), -0.15, rtol=1e-6)
    assert factor.value == 0.5
    # The optimizer's own rate is what it was, for whoever reads or sets it.
    assert float(tf.convert_to_tensor(optimizer.learning_rate)) == pytest.approx(0.1)
    assert "_get_current_learning_rate" not in vars(unwrapped(optimizer))


def test_a_rate_that_is_set_meanwhile_is_multiplied_too() -> None:
    optimizer, factor = keras.optimizers.SGD(0.1), RateFactor(xla=False)
    weight = keras.Variable(np.zeros(1, np.float32))

    @tf.function
    def step() -> None:
        with tap(optimizer, lambda variables, missing: None, factor=factor):
            optimizer.apply([tf.ones(1)], [weight])

    factor.assign(0.1)
    step()
    optimizer.learning_rate = 1.0
    step()
    np.testing.assert_allclose(weight.numpy(), [-0.11], rtol=1e-6)


def test_weight_decay_follows_the_rate() -> None:
    weights = []
    for rate, by in ((0.05, 1.0), (0.1, 0.5)):
        optimizer, factor = keras.optimizers.AdamW(rate, weight_decay=0.5), RateFactor(xla=False)
        factor.assign(by)
        weight = keras.Variable(np.ones(1, np.float32))
        with tap(optimizer, lambda variables, missing: None, factor=factor):
            optimizer.apply([tf.ones(1)], [weight])
        weights.append(weight.numpy())
    np.testing.assert_allclose(*weights, rtol=1e-6)
