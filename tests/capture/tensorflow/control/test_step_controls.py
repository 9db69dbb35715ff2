"""What is built into a train step besides the recording."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.capture.tensorflow.control.loss_log import LossLog
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.tap import tap

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
Y = np.ones((6, 1), np.float32)


class Own(keras.Model):
    """A model with a train step of its own, which returns what is no metric."""

    def train_step(self, data: Any) -> Any:
        super().train_step(data)
        return {"seven": 7}


def model(own: bool = False) -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    net = (Own if own else keras.Model)(inputs, keras.layers.Dense(1)(inputs))
    net.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    net.train_on_batch(X, Y)  # So that its metrics exist.
    net.reset_metrics()
    return net


def test_nothing_is_asked_for() -> None:
    assert StepControls().empty
    assert not StepControls(losses=LossLog()).empty
    assert StepControls().run(None, lambda x, y: x + y, [1], {"y": 2}) == 3


@pytest.mark.smoke
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_a_skipped_step_leaves_the_metrics_as_they_were(mode: str, own: bool) -> None:
    net, guard = model(own), Guard(xla=mode == "xla")
    step_controls = StepControls(guard=guard)

    def step(x: tf.Tensor) -> Any:
        with tap(net.optimizer, lambda variables, missing: None, guard=guard):
            return step_controls.run(net, net.train_step, [(x, Y)], {})

    run = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla")
    logs = [run(tf.constant(X)), run(tf.constant(X * math.nan))]
    if own:
        assert [int(found["seven"]) for found in logs] == [7, 7]
    else:
        first, second = ({k: float(v) for k, v in found.items()} for found in logs)
        assert first == second
        assert math.isfinite(first["loss"])
    assert math.isfinite(float(net.get_metrics_result()["loss"]))
    before = float(net.get_metrics_result()["loss"])
    run(tf.constant(X))
    assert float(net.get_metrics_result()["loss"]) != before
