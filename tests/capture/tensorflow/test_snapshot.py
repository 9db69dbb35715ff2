"""Copies of a training's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from digit_images import digits
from fits import state_of

from keras_vanish.capture.tensorflow.snapshot import Snapshot

L = keras.layers
X, Y = digits(128)

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def model(optimizer: Any, jit_compile: bool) -> Any:
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(16),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.Dense(10, activation="softmax"),
        ]
    )
    net.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return net


@pytest.mark.smoke
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_everything_but_time_is_restored(name: str, jit_compile: bool) -> None:
    net = model(OPTIMIZERS[name](), jit_compile)
    net.fit(X, Y, verbose=0)
    before = state_of(net)
    snapshot = Snapshot(net, net.optimizer)
    net.fit(X, Y, verbose=0)
    assert not np.array_equal(net.get_weights()[0], before[0])
    net.optimizer.learning_rate = 0.5
    steps = int(net.optimizer.iterations.numpy())
    snapshot.restore()
    after = state_of(net)
    names = [v.path for v in [*net.variables, *net.optimizer.variables]]
    for path, was, now in zip(names, before, after):
        if path.endswith(("iteration", "learning_rate")):
            continue
        np.testing.assert_array_equal(was, now, err_msg=path)
    assert int(net.optimizer.iterations.numpy()) == steps
    assert net.optimizer.learning_rate.numpy() == 0.5


@pytest.mark.smoke
def test_it_may_be_restored_twice() -> None:
    net = model(keras.optimizers.Adam(0.01), False)
    snapshot = Snapshot(net, net.optimizer)
    start = net.get_weights()
    for _ in range(2):
        net.fit(X, Y, verbose=0)
        snapshot.restore()
        for was, now in zip(start, net.get_weights()):
            np.testing.assert_array_equal(was, now)


def test_the_seed_of_dropout_is_part_of_it() -> None:
    net = model(keras.optimizers.SGD(0.0), False)
    snapshot = Snapshot(net, net.optimizer)
    first = np.asarray(net(X, training=True))
    assert not np.array_equal(first, np.asarray(net(X, training=True)))
    snapshot.restore()
    np.testing.assert_array_equal(first, np.asarray(net(X, training=True)))


def test_a_state_with_nan_is_known() -> None:
    net = model(keras.optimizers.Adam(0.01), False)
    assert Snapshot(net, net.optimizer).finite()
    net.layers[0].kernel.assign(np.full((64, 16), np.nan, np.float32))
    assert not Snapshot(net, net.optimizer).finite()
