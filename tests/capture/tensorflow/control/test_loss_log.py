"""The loss of every step, noted without a look at the step's code."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.control.loss_log import LossLog

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
Y = np.ones((6, 1), np.float32)


def model() -> Any:
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    net.compile(keras.optimizers.SGD(0.1), "mse")
    return net


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_the_loss_of_each_step(mode: str) -> None:
    net, log = model(), LossLog()
    expected = [net.evaluate(X, Y, verbose=0)]

    def step() -> None:
        with log.noting(net):
            net.train_step((tf.constant(X), tf.constant(Y)))

    run = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla")
    run()
    expected.append(net.evaluate(X, Y, verbose=0))
    run()
    np.testing.assert_allclose(log.read(), expected, rtol=1e-5)
    assert log.read().size == 0
    assert "compute_loss" not in vars(net)


def test_a_step_that_computes_its_loss_otherwise_leaves_nothing() -> None:
    log, net = LossLog(), model()
    with log.noting(net):
        pass
    assert log.read().size == 0


def test_a_loss_within_a_loop_is_not_known_outside() -> None:
    log, net = LossLog(), model()

    @tf.function
    def step() -> None:
        with log.noting(net):
            for _ in tf.range(2):
                net.compute_loss(y=Y, y_pred=net(X))

    step()
    assert log.read().size == 0


def test_a_method_of_the_model_itself_stays() -> None:
    net = model()
    own = net.compute_loss
    vars(net)["compute_loss"] = own
    with LossLog().noting(net):
        assert net.compute_loss is not own
    assert vars(net)["compute_loss"] is own
