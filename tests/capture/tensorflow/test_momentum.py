"""What an optimizer carries from one update to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.momentum import correct_momentum, momentum

optimizers = keras.optimizers


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: optimizers.SGD(0.1), 0.0),
        (lambda: optimizers.SGD(0.1, momentum=0.99), 0.99),
        (lambda: optimizers.RMSprop(0.1, momentum=0.5), 0.5),
        (lambda: optimizers.Adam(0.1), 0.9),
        (lambda: optimizers.Adagrad(0.1), 0.0),
        (lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.8)), 0.8),
    ],
)
def test_what_is_repeated(make: Callable[[], Any], expected: float) -> None:
    assert momentum(make()) == expected


@pytest.mark.parametrize("odd", [None, "much", lambda: 0.9, 1.0, -0.1, float("nan")])
def test_what_is_not_known_is_none(odd: Any) -> None:
    optimizer = optimizers.SGD(0.1)
    optimizer.momentum = odd
    assert momentum(optimizer) == 0.0


@pytest.mark.smoke
@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9),
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: optimizers.RMSprop(0.1, momentum=0.9),
        lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9), initial_scale=1.0),
    ],
)
def test_the_velocity_goes_with_the_rate(make: Callable[[], Any]) -> None:
    def moved(share: float) -> Any:
        """How far the weight goes on without a gradient, once the rate has changed."""
        optimizer, weight = make(), keras.Variable(np.zeros(2, np.float32))
        optimizer.apply([tf.constant([1.0, -2.0])], [weight])
        before = weight.numpy()
        correct_momentum(optimizer, share)
        optimizer.apply([tf.zeros(2)], [weight])
        return weight.numpy() - before

    assert np.all(moved(1.0) != 0)
    for share in (0.01, 3.0):
        np.testing.assert_allclose(moved(share), share * moved(1.0), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: optimizers.SGD(0.1), lambda: optimizers.Adam(0.1), lambda: optimizers.Adagrad(0.1)],
)
def test_slots_without_a_rate_in_them_stay(make: Callable[[], Any]) -> None:
    optimizer, weight = make(), keras.Variable(np.zeros(2, np.float32))
    optimizer.apply([tf.ones(2)], [weight])
    before = [v.numpy() for v in optimizer.variables]
    correct_momentum(optimizer, 0.01)
    for one, other in zip(before, optimizer.variables):
        np.testing.assert_array_equal(one, other.numpy())


def test_an_optimizer_that_is_not_built_has_none() -> None:
    correct_momentum(optimizers.SGD(0.1, momentum=0.9), 0.5)
