"""Layers are given back as they were."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.layer_state import given_back


def test_layers_have_their_attributes_and_losses_again() -> None:
    layer: Any = keras.layers.Dense(2, activity_regularizer="l2")
    layer(tf.ones((1, 3)))
    before, losses = dict(vars(layer)), list(layer._losses)
    with contextlib.suppress(KeyError), given_back([layer]):
        vars(layer)["call"] = lambda x: x
        vars(layer)["activation"] = None
        del vars(layer)["use_bias"]
        layer.add_loss(tf.constant(1.0))
        raise KeyError
    assert vars(layer).keys() == before.keys()
    assert all(vars(layer)[name] is value for name, value in before.items())
    assert len(losses) == len(layer._losses)
    assert all(now is was for now, was in zip(layer._losses, losses))
