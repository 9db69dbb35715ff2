from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import layers
from layers_in_order import dense, infos, names

from keras_vanish.capture.tensorflow.layers import layer_paths, layers_of
from keras_vanish.records.layers import LayerInfo


@pytest.mark.smoke
def test_a_sequential_model() -> None:
    model = keras.Sequential(
        [layers.Input((6,)), dense("a", 5), layers.ReLU(), dense("b", 3)], name="model"
    )
    a, b = infos(model, tf.zeros((2, 6)))
    assert a == LayerInfo("a", ("kernel", "bias"), (0, 1), (30, 5), 5)
    assert b == LayerInfo("b", ("kernel", "bias"), (2, 3), (15, 3), 3)


def test_nested_models_have_paths() -> None:
    base = keras.Sequential([layers.Input((4,)), dense("one"), dense("two")], name="base")
    outer = keras.Sequential([layers.Input((4,)), base, dense("top", 1)], name="outer")
    whole = keras.Sequential([layers.Input((4,)), dense("stem"), outer], name="whole")
    assert names(outer, tf.zeros((2, 4))) == ["base/one", "base/two", "top"]
    assert names(whole, tf.zeros((2, 4))) == [
        "stem",
        "outer/base/one",
        "outer/base/two",
        "outer/top",
    ]


def test_recurrent_layers_hide_the_name_of_their_cell() -> None:
    model = keras.Sequential(
        [
            layers.Input((7,), dtype="int32"),
            layers.Embedding(20, 8, name="embedding"),
            layers.Bidirectional(
                layers.LSTM(4, return_sequences=True, name="lstm"), name="both_ways"
            ),
            layers.GRU(5, return_sequences=True, name="gru"),
            layers.SimpleRNN(3, name="rnn"),
            dense("out", 1),
        ]
    )
    found = {info.name: info for info in infos(model, tf.zeros((2, 7), tf.int32))}
    assert list(found) == [
        "embedding",
        "both_ways/forward_lstm",
        "both_ways/backward_lstm",
        "gru",
        "rnn",
        "out",
    ]
    assert found["embedding"].sizes == (160,)
    assert found["embedding"].units == 8
    assert found["gru"].variables == ("kernel", "recurrent_kernel", "bias")
    assert found["rnn"].units == 3


class TwoOwners(keras.Model):
    """One layer, reached through two others."""

    def __init__(self) -> None:
        super().__init__(name="two_owners")
        shared = dense("shared")
        self.one = keras.Sequential([shared, dense("a")], name="one")
        self.two = keras.Sequential([shared, dense("b")], name="two")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.two(self.one(x))


def test_a_layer_of_two_owners_is_listed_once_under_the_first() -> None:
    assert names(TwoOwners(), tf.zeros((2, 4))) == ["one/shared", "one/a", "two/b"]


class SameNames(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="same_names")
        self.first, self.second, self.third = dense("dense"), dense("dense"), dense("dense")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.third(self.second(self.first(x)))


def test_layers_of_one_name_are_made_distinct() -> None:
    model = SameNames()
    assert names(model, tf.zeros((2, 4))) == ["dense", "dense_1", "dense_2"]


class Confusing(keras.Model):
    """Names of which one looks like another's number."""

    def __init__(self) -> None:
        super().__init__(name="confusing")
        self.parts = [dense("dense"), dense("dense"), dense("dense_1")]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for part in self.parts:
            x = part(x)
        return x


def test_a_number_never_makes_a_name_of_another_layer() -> None:
    order = names(Confusing(), tf.zeros((2, 4)))
    assert len(order) == len(set(order)) == 3


class Scale(layers.Layer):
    """Variables of its own, two of one name, and of a layer inside."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(), name="gain", initializer="ones")
        self.shift = self.add_weight(shape=(3,), name="gain", initializer="zeros")
        self.inner = dense("inner", 3)
        self.inner.build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.gain * self.inner(x) + self.shift


def test_a_layer_may_own_variables_beside_those_of_its_parts() -> None:
    model = keras.Sequential([layers.Input((4,)), Scale(name="scale")])
    inner, scale = infos(model, tf.zeros((2, 4)))
    assert (inner.name, inner.units) == ("scale/inner", 3)
    assert (scale.name, scale.variables) == ("scale", ("gain", "gain_1"))
    assert (scale.sizes, scale.units) == ((1, 3), 3)


class Bare(keras.Model):
    """Owns a variable itself, with no layer."""

    def __init__(self) -> None:
        super().__init__(name="bare")
        self.out = dense("out", 1)

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(4,), name="gain", initializer="ones")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.out(x * self.gain)


def test_a_variable_of_the_model_itself_has_the_name_of_the_model() -> None:
    assert names(Bare(), tf.zeros((2, 4))) == ["bare", "out"]


@pytest.mark.smoke
def test_variables_that_no_layer_owns_are_grouped_by_their_path() -> None:
    model = keras.Sequential([layers.Input((4,)), dense("mine")], name="model")
    other = keras.Sequential([layers.Input((4,)), dense("other")], name="stranger")
    lonely = tf.Variable([1.0], name="lonely")
    variables = [*other.trainable_variables, lonely, *model.trainable_variables]
    found = layers_of(model, variables, [3.0, 3.0, 4.0, 1.0, 1.0])
    assert [info.name for info in found][0] == "mine"
    assert found[1].name.endswith("other")
    assert found[2] == LayerInfo("variables", ("lonely",), (2,), (1,), 1)


def test_frozen_layers_are_absent() -> None:
    model = keras.Sequential([layers.Input((4,)), dense("a"), dense("b"), dense("c")])
    model.layers[1].trainable = False
    found = infos(model, tf.zeros((2, 4)))
    assert [(info.name, info.indices) for info in found] == [("a", (0, 1)), ("c", (2, 3))]


def paths(model: Any) -> dict[str, Any]:
    """The layers below a model, by name."""
    found = layer_paths(model)
    return {found[id(x)]: x for x in model._flatten_layers(include_self=False) if id(x) in found}


@pytest.mark.smoke
def test_every_layer_has_the_path_of_its_variables() -> None:
    shared = dense("shared")
    block = keras.Sequential([dense("a"), layers.ReLU(name="r"), shared], name="block")
    model = keras.Sequential(
        [
            layers.Input((3, 4)),
            block,
            shared,
            layers.Dropout(0.5, name="drop"),
            layers.Bidirectional(layers.LSTM(3, name="l"), name="bi"),
            dense("end"),
        ]
    )
    found = paths(model)
    below = ["block", "block/a", "block/r", "block/shared", "drop", "end"]
    assert set(below) <= set(found)
    assert found["block/shared"] is shared
    assert found["block/r"] is block.layers[1]
    assert {"bi", "bi/forward_l", "bi/backward_l"} <= set(found)
    with_variables = [i.name for i in layers_of(model, model.trainable_variables, [0.0] * 16)]
    assert sorted(with_variables) == sorted(
        ["block/a", "block/shared", "bi/forward_l", "bi/backward_l", "end"]
    )
    for info in layers_of(model, model.trainable_variables, [0.0] * 16):
        owned = {id(variable) for variable in found[info.name].variables}
        assert {id(model.trainable_variables[index]) for index in info.indices} <= owned


def test_layers_without_variables_do_not_rename_those_that_have_some() -> None:
    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="twins")
            self.relu, self.dense = layers.ReLU(name="same"), dense("same")

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.dense(self.relu(x))

    model = Twins()
    model(tf.zeros((2, 4)))
    assert paths(model) == {"same": model.dense, "same_1": model.relu}


def test_equal_ranks_keep_the_given_order() -> None:
    model = keras.Sequential([layers.Input((4,)), dense("a"), dense("b")])
    assert [i.name for i in layers_of(model, model.trainable_variables, [0.0] * 4)] == ["a", "b"]


def test_a_layer_stands_where_its_earliest_variable_does() -> None:
    model = keras.Sequential([layers.Input((4,)), dense("a"), dense("b")])
    found = layers_of(model, model.trainable_variables, [1.0, 9.0, 2.0, 0.0])
    assert [(info.name, info.indices) for info in found] == [("b", (2, 3)), ("a", (0, 1))]
    found = layers_of(model, model.trainable_variables, [1.0, 9.0, 2.0, 3.0])
    assert [info.name for info in found] == ["a", "b"]
