"""Which layer is given what another one computed, and what its pre-activations are for."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models_to_reinitialize import SEQUENCES, X, sequential

from keras_vanish.rescue.reinitialize.layer_roles import eager, follow, function, rms


def aims(model: Any, x: Any = X) -> dict[str, str]:
    """What follow says of each layer with a kernel, in the order of the forward pass."""
    return {
        role.layer.name: role.aim for role in follow(model, tf.constant(x)).values() if role.aim
    }


def consumers(model: Any, x: Any = X) -> dict[str, list[str]]:
    seen = follow(model, tf.constant(x)).values()
    return {role.layer.name: [layer.name for layer in role.consumers] for role in seen}


def dense(name: str, activation: Any = None) -> Any:
    return layers.Dense(10, activation, name=name)


# Which layer feeds which.


def test_the_layers_that_are_given_an_output() -> None:
    inputs = keras.Input((10,))
    h = dense("first")(inputs)
    a, b = dense("a")(h), layers.ReLU(name="b")(h)
    model = keras.Model(inputs, dense("head")(layers.Add(name="sum")([a, b])))
    found = consumers(model)
    assert sorted(found["first"]) == ["a", "b"]
    assert found["a"] == found["b"] == ["sum"]
    assert found["sum"] == ["head"]
    assert found["head"] == []


def test_the_innermost_is_the_first() -> None:
    inner = keras.Sequential([keras.Input((10,)), dense("deep")], name="inner")
    model = sequential((10,), dense("first"), inner)
    assert consumers(model)["first"] == ["deep", "inner"]
    # What the inner model gives is what its last layer gave.
    assert consumers(model)["deep"] == ["head"]


def test_the_order_is_that_in_which_calls_end() -> None:
    inner = keras.Sequential([keras.Input((10,)), dense("deep")], name="inner")
    model = sequential((10,), inner, dense("last"))
    assert list(consumers(model)) == ["deep", "inner", "last", "head"]


def test_a_shared_layer_is_seen_once_with_all_that_its_first_output_feeds() -> None:
    inputs = keras.Input((10,))
    shared = dense("shared")
    h = dense("next")(shared(inputs))
    model = keras.Model(inputs, dense("head")(shared(h)))
    found = consumers(model)
    assert list(found) == ["shared", "next", "head"]
    assert found["shared"] == ["next"]


# What pre-activations are for.


@pytest.mark.parametrize(
    ("following", "aim"),
    [
        ([layers.Activation("tanh")], "tanh"),
        ([layers.ReLU()], "relu"),
        ([layers.LeakyReLU()], "leakyrelu"),
        ([layers.Dropout(0.1), layers.Activation("sigmoid")], "sigmoid"),
        ([layers.Reshape((5, 2)), layers.Flatten(), layers.Activation("gelu")], "gelu"),
        # What is normalised need not be scaled.
        ([layers.LayerNormalization(), layers.Activation("tanh")], "linear"),
        ([], "linear"),
    ],
)
def test_the_aim_is_the_activation_that_follows(following: list[Any], aim: str) -> None:
    assert aims(sequential((10,), dense("dense"), *following)) == {"dense": aim, "head": "head"}


def test_an_activation_of_its_own_comes_first() -> None:
    model = sequential((10,), dense("dense", "tanh"), layers.ReLU())
    assert aims(model)["dense"] == "tanh"


def test_what_is_added_is_a_branch() -> None:
    inputs = keras.Input((10,))
    h = layers.Add()([inputs, dense("branch")(inputs)])
    h = layers.Add()([h, layers.Dropout(0.1)(dense("behind_dropout")(h))])
    model = keras.Model(inputs, dense("head")(h))
    assert aims(model) == {"branch": "branch", "behind_dropout": "branch", "head": "head"}


def test_where_nothing_is_seen_to_follow_it_is_a_branch() -> None:
    class Adds(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = dense("inner"), dense("head")

        def call(self, x: Any) -> Any:
            return self.head(x + self.inner(x))

    model = Adds()
    model(X)
    assert aims(model) == {"inner": "branch", "head": "head"}


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_what_the_model_gives_is_a_head(activation: str | None) -> None:
    inputs = keras.Input((10,))
    h = dense("trunk", "relu")(inputs)
    first, second = dense("first", activation)(h), layers.Activation("sigmoid")(dense("second")(h))
    model = keras.Model(inputs, [first, second])
    assert aims(model) == {"trunk": "relu", "first": "head", "second": "head"}


def test_the_last_kernel_is_the_head_of_a_model_that_ends_in_something_else() -> None:
    class Sums(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = dense("first", "relu"), dense("last")

        def call(self, x: Any) -> Any:
            return keras.ops.sum(self.last(self.first(x)), -1)

    model = Sums()
    model(X)
    assert aims(model) == {"first": "relu", "last": "head"}


def test_projections_of_attention_keep_their_spread() -> None:
    inputs = keras.Input((20, 4))
    h = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    h = layers.Add()([inputs, h])
    model = keras.Model(inputs, layers.Dense(1, name="head")(h))
    found = aims(model, SEQUENCES)
    assert {name: found[name] for name in ("query", "key", "value")} == dict.fromkeys(
        ("query", "key", "value"), "linear"
    )
    assert found["attention_output"] == "branch"


# What is measured, and what is left behind.


def test_the_size_before() -> None:
    keras.utils.set_random_seed(0)
    model = sequential((10,), dense("dense", "tanh"))
    layer = model.get_layer("dense")
    z = X @ layer.kernel.numpy() + layer.bias.numpy()
    (role, *_) = follow(model, tf.constant(X)).values()
    assert role.before == pytest.approx(math.sqrt(np.mean(np.square(z))), rel=1e-5)


def test_the_size_of_a_recurrent_layer_is_that_of_its_outputs() -> None:
    lstm = layers.LSTM(5, name="lstm")
    model = sequential((20, 4), lstm)
    found = {role.layer.name: role for role in follow(model, tf.constant(SEQUENCES)).values()}
    outputs = lstm(SEQUENCES).numpy()
    assert found["lstm"].before == pytest.approx(math.sqrt(np.mean(outputs**2)), rel=1e-5)
    assert found["lstm"].aim == ""


def test_nothing_is_left_on_the_layers_and_no_output_is_kept() -> None:
    model = sequential((10,), dense("dense", "tanh"), layers.Dropout(0.1))
    before = [dict(vars(layer)) for layer in model.layers]
    found = follow(model, tf.constant(X))
    assert all(role.output is None for role in found.values())
    for layer, attributes in zip(model.layers, before):
        assert all(vars(layer)[name] is value for name, value in attributes.items())


def test_names_of_activations() -> None:
    assert function(layers.Dense(1)) == "linear"
    assert function(layers.Dense(1, "relu")) == "relu"
    assert function(layers.Dense(1, activation=layers.LeakyReLU())) == "leakyrelu"
    assert function(layers.ELU()) == "elu"
    assert function(layers.Activation("swish")) == "silu"
    assert function(layers.Flatten()) == "linear"


def test_what_holds_numbers() -> None:
    traced: list[bool] = []

    @tf.function
    def run(x: Any) -> Any:
        traced.append(eager([None, x]))
        return x

    run(tf.constant(1.0))
    assert traced == [False]
    assert eager({"a": None, "b": tf.constant(1.0)})
    assert not eager([None, "text"])


def test_a_size_that_is_not_finite_is_nan() -> None:
    assert rms(tf.constant([3.0, 4.0, 0.0, 0.0])) == 2.5
    assert math.isnan(rms(tf.constant([1.0, math.inf])))
    assert math.isnan(rms(tf.constant([math.nan])))
