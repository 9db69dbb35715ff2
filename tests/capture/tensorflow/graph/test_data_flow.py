"""The order in which data flows, whatever a model is made of."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from keras import layers
from layers_in_order import dense, infos, names, trace

from keras_vanish.capture.tensorflow.graph.data_flow import data_flow_ranks
from keras_vanish.capture.tensorflow.layers import layers_of


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
