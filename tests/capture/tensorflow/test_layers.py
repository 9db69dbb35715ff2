from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.graph.data_flow import data_flow_ranks
from keras_vanish.capture.tensorflow.layers import layer_paths, layers_of
from keras_vanish.records.layers import LayerInfo, layout


def trace(function: Callable[..., Any], *inputs: tf.Tensor) -> Any:
    """The graph of a forward pass."""
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in inputs]
    return tf.function(function).get_concrete_function(*specs).graph


def infos(model: Any, *inputs: tf.Tensor, one_list: bool = False) -> list[LayerInfo]:
    """The layers of a model that is called on `inputs`."""

    def forward(*x: tf.Tensor) -> Any:
        return model(list(x) if one_list else x[0], training=True)

    forward(*inputs)
    variables = model.trainable_variables
    graph = trace(forward, *inputs)
    return layers_of(model, variables, data_flow_ranks(graph, [v.value.handle for v in variables]))


def names(model: Any, *inputs: tf.Tensor, one_list: bool = False) -> list[str]:
    return [info.name for info in infos(model, *inputs, one_list=one_list)]


def dense(name: str, units: int = 4) -> Any:
    return layers.Dense(units, name=name)


@pytest.mark.smoke
def test_a_sequential_model() -> None:
    model = keras.Sequential(
        [layers.Input((6,)), dense("a", 5), layers.ReLU(), dense("b", 3)], name="model"
    )
    a, b = infos(model, tf.zeros((2, 6)))
    assert a == LayerInfo("a", ("kernel", "bias"), (0, 1), (30, 5), 5)
    assert b == LayerInfo("b", ("kernel", "bias"), (2, 3), (15, 3), 3)


@pytest.mark.smoke
def test_a_wide_branch_stands_beside_the_end_of_the_deep_one() -> None:
    deep_input, wide_input = layers.Input((6,)), layers.Input((5,))
    wide = dense("wide")(wide_input)
    deep = deep_input
    for i in range(4):
        deep = dense(f"deep{i}")(deep)
    model = keras.Model([deep_input, wide_input], dense("out", 1)(layers.Add()([wide, deep])))
    order = names(model, tf.zeros((2, 6)), tf.zeros((2, 5)), one_list=True)
    assert [name for name in order if name != "wide"] == ["deep0", "deep1", "deep2", "deep3", "out"]
    assert set(order[3:5]) == {"wide", "deep3"}


class Branches(keras.Model):
    """A wide branch that is called before the deep one, and an exit half way."""

    def __init__(self) -> None:
        super().__init__(name="branches")
        self.late_exit, self.early_exit = dense("late_exit", 1), dense("early_exit", 1)
        self.deep = [dense(f"deep{i}") for i in range(4)]
        self.wide = dense("wide")

    def call(self, x: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        wide = self.wide(x)
        for block in self.deep[:2]:
            x = block(x)
        early = self.early_exit(x)
        for block in self.deep[2:]:
            x = block(x)
        return [early, self.late_exit(x + wide)]


@pytest.mark.smoke
def test_branches_are_aligned_at_their_ends_whatever_is_called_first() -> None:
    order = names(Branches(), tf.zeros((2, 4)))
    assert order[:3] == ["deep0", "deep1", "deep2"]
    assert set(order[3:5]) == {"wide", "deep3"}
    assert set(order[5:]) == {"early_exit", "late_exit"}


class Parallel(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="parallel")
        self.out, self.third, self.second, self.first = map(dense, ("out", "c", "b", "a"))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.out(self.first(x) + self.second(x) + self.third(x))


def test_what_is_equally_deep_keeps_the_order_of_use() -> None:
    assert names(Parallel(), tf.zeros((2, 4))) == ["a", "b", "c", "out"]


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


class HeadFirst(keras.Model):
    """Creates its layers in the reverse of the order in which data flows."""

    def __init__(self) -> None:
        super().__init__(name="head_first")
        self.head = dense("head", 3)
        self.normalisation = layers.BatchNormalization(name="bn")
        self.blocks = [dense(f"block{i}") for i in range(3)]
        self.by_name = {"first": dense("stem")}

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.by_name["first"](x)
        for block in reversed(self.blocks):
            x = block(x)
        return self.head(self.normalisation(x, training=training))


@pytest.mark.smoke
def test_a_subclassed_model_is_ordered_by_its_call() -> None:
    order = names(HeadFirst(), tf.zeros((2, 4)))
    assert order == ["stem", "block2", "block1", "block0", "bn", "head"]


@pytest.mark.smoke
def test_a_whole_train_step_is_ordered_as_its_forward_pass() -> None:
    model = HeadFirst()
    x = tf.zeros((2, 4))
    forward = names(model, x)
    optimizer = keras.optimizers.Adam()
    variables = model.trainable_variables
    optimizer.build(variables)

    def step(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    ranks = data_flow_ranks(trace(step, x), [v.value.handle for v in variables])
    assert [info.name for info in layers_of(model, variables, ranks)] == forward


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


def test_attention_with_residuals() -> None:
    inputs = layers.Input((5, 8))
    x = inputs
    for i in range(2):
        attended = layers.MultiHeadAttention(2, 4, name=f"attention{i}")(x, x)
        x = layers.LayerNormalization(name=f"norm{i}a")(layers.Add()([x, attended]))
        fed = dense(f"down{i}", 8)(dense(f"up{i}", 16)(x))
        x = layers.LayerNormalization(name=f"norm{i}b")(layers.Add()([x, fed]))
    model = keras.Model(inputs, dense("out", 1)(layers.GlobalAveragePooling1D()(x)))
    order = names(model, tf.zeros((2, 5, 8)))
    for i in range(2):
        start = 8 * i
        parts = {f"attention{i}/{part}" for part in ("query", "key", "value", "attention_output")}
        assert set(order[start : start + 4]) == parts
        assert order[start + 3] == f"attention{i}/attention_output"
        assert order[start + 4 : start + 8] == [f"norm{i}a", f"up{i}", f"down{i}", f"norm{i}b"]
    assert order[16:] == ["out"]


def test_a_layer_used_twice_stands_where_it_is_first_used() -> None:
    inputs = layers.Input((4,))
    shared = dense("shared")
    x = dense("between")(shared(dense("first")(inputs)))
    model = keras.Model(inputs, dense("out", 1)(shared(x)))
    assert names(model, tf.zeros((2, 4))) == ["first", "shared", "between", "out"]


class Tied(keras.Model):
    """An embedding whose table is the output layer's kernel too."""

    def __init__(self) -> None:
        super().__init__(name="tied")
        self.hidden = dense("hidden", 8)
        self.embedding = layers.Embedding(20, 8, name="embedding")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        hidden = self.hidden(self.embedding(x))
        return tf.matmul(hidden, tf.convert_to_tensor(self.embedding.embeddings), transpose_b=True)


def test_tied_weights_stand_at_the_input() -> None:
    assert names(Tied(), tf.zeros((2, 3), tf.int32)) == ["embedding", "hidden"]


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


class WithUnused(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="with_unused")
        self.unused = dense("unused")
        self.unused.build((None, 4))
        self.hidden, self.out = dense("hidden"), dense("out")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.out(self.hidden(x))


@pytest.mark.smoke
def test_what_the_forward_pass_does_not_use_comes_last() -> None:
    assert names(WithUnused(), tf.zeros((2, 4))) == ["hidden", "out", "unused"]


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


def test_convolutions_and_normalisation_between_branches() -> None:
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for i in range(3):
        y = layers.Conv2D(4, 3, padding="same", name=f"conv{i}")(x)
        y = layers.BatchNormalization(name=f"bn{i}")(y)
        x = layers.Add()([x, layers.ReLU()(y)])
    model = keras.Model(inputs, dense("out", 2)(layers.Flatten()(x)))
    found = infos(model, tf.zeros((2, 8, 8, 3)))
    blocks = [name for i in range(3) for name in (f"conv{i}", f"bn{i}")]
    assert [info.name for info in found] == ["stem", *blocks, "out"]
    assert found[0].units == 4
    assert found[2].variables == ("gamma", "beta")


def test_two_hundred_layers_are_in_order() -> None:
    wanted = [f"layer{i}" for i in range(200)]
    x = inputs = layers.Input((2,))
    for name in wanted:
        x = dense(name, 2)(x)
    assert names(keras.Model(inputs, x), tf.zeros((1, 2))) == wanted


@pytest.mark.smoke
def test_a_graph_without_any_of_the_variables_ranks_them_alike() -> None:
    stranger = tf.Variable(1.0)
    graph = trace(lambda x: x + 1.0, tf.zeros(()))
    assert data_flow_ranks(graph, [stranger.handle, stranger.handle]) == [1.0, 1.0]


@pytest.mark.smoke
def test_the_variables_of_layers_follow_each_other() -> None:
    early = LayerInfo("early", ("kernel", "bias"), (3, 1), (30, 5), 5)
    late = LayerInfo("late", ("kernel",), (0,), (15,), 3)
    found = layout((early, late))
    assert found.layers == ("early", "early", "late")
    assert found.variables == ("kernel", "bias", "kernel")
    assert found.sizes == (30, 5, 15)
    assert found.indices.tolist() == [3, 1, 0]
    assert found.starts.tolist() == [0, 2]
