"""Attributes that are replaced for a while."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import given_back, replaced


class Owner:
    def method(self) -> int:
        return 1


def test_a_method_of_the_class_shows_again() -> None:
    owner = Owner()
    with replaced(owner, "method", lambda: 2):
        assert owner.method() == 2
    assert owner.method() == 1
    assert vars(owner) == {}


def test_an_attribute_of_the_object_itself_is_given_back() -> None:
    owner = Owner()
    own = vars(owner)["method"] = lambda: 3
    with pytest.raises(KeyError), replaced(owner, "method", lambda: 2):
        raise KeyError
    assert owner.method is own  # type: ignore[comparison-overlap]


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
