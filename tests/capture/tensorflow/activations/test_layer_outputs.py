from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput, intercepted

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return tf.constant(RNG.normal(size=shape).astype(np.float32))


def dense(name: str, units: int = 4, **options: Any) -> Any:
    return layers.Dense(units, name=name, **options)


def seen_in(model: Any, *inputs: Any) -> list[LayerOutput]:
    """What is seen in one eager call."""
    with tf.GradientTape(watch_accessed_variables=False) as tape, intercepted(model, tape) as seen:
        model(*inputs, training=True)
    return seen


@pytest.mark.smoke
def test_what_is_seen_is_named_as_in_the_topology() -> None:
    inner = keras.Sequential([dense("a"), layers.ReLU(name="r")], name="block")
    model = keras.Sequential(
        [
            layers.Input((5, 3)),
            inner,
            layers.Dropout(0.5),
            layers.TimeDistributed(dense("d", 2), name="t"),
            layers.Bidirectional(layers.LSTM(3, name="l"), name="bi"),
            layers.Flatten(),
            dense("end", 1),
        ]
    )
    seen = seen_in(model, numbers(4, 5, 3))
    names = ["block/a", "block/r", "t/d", "bi/forward_l", "bi/backward_l", "end"]
    assert [entry.name for entry in seen] == names
    assert [type(entry.layer).__name__ for entry in seen] == [
        *("Dense", "ReLU", "TimeDistributed", "LSTM", "LSTM", "Dense")
    ]
    assert [entry.through is not None for entry in seen] == [False] * 3 + [True] * 2 + [False]
    assert all(len(entry.outputs) == 1 for entry in seen)


@pytest.mark.smoke
def test_layers_are_in_the_order_of_the_calls_and_a_shared_one_is_its_first_call() -> None:
    class Backwards(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.shared = dense("z", 2), dense("s", activation="tanh")

        def call(self, x: Any) -> Any:
            return self.last(self.shared(self.shared(x)))

    model, x = Backwards(), numbers(8, 4)
    model(x)
    shared, last = seen_in(model, x)
    assert (shared.name, last.name) == ("s", "z")
    np.testing.assert_allclose(shared.outputs[0], model.shared(x), rtol=1e-5)
    np.testing.assert_allclose(shared.before, x @ model.shared.kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.smoke
def test_what_an_activation_function_is_given_and_gives() -> None:
    model = keras.Sequential(
        [
            layers.Input((6,)),
            dense("fused", 8, activation="relu"),
            dense("linear", 5),
            layers.Activation("tanh", name="apart"),
        ]
    )
    x = numbers(10, 6)
    xla, linear, apart = seen_in(model, x)
    kernel = model.layers[0].kernel
    np.testing.assert_allclose(xla.before, x @ kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(xla.after, tf.nn.relu(x @ kernel), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(xla.after, xla.outputs[0])
    assert xla.function is keras.activations.relu
    np.testing.assert_array_equal(linear.before, linear.after)
    np.testing.assert_array_equal(apart.before, linear.outputs[0])
    np.testing.assert_allclose(apart.after, tf.tanh(linear.outputs[0]), rtol=1e-5)


def test_attention_weights() -> None:
    inputs = layers.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3, name="heads")(inputs, inputs)
    model = keras.Model(inputs, layers.Attention(name="plain")([attended, attended]))
    heads, plain = seen_in(model, numbers(3, 5, 4))
    for entry, shape in ((heads, (3, 2, 5, 5)), (plain, (3, 5, 5))):
        assert entry.attention is not None
        weights, mask, axes = entry.attention
        assert weights.shape == shape
        assert (mask, axes) == (None, 1)
        np.testing.assert_allclose(tf.reduce_sum(weights, -1), np.ones(shape[:-1]), rtol=1e-5)


def test_outputs_are_watched() -> None:
    model = keras.Sequential([layers.Input((3,)), dense("a"), dense("b", 2)])
    with tf.GradientTape(watch_accessed_variables=False) as tape, intercepted(model, tape) as seen:
        loss = tf.reduce_sum(model(numbers(2, 3)))
    (gradient,) = tape.gradient(loss, seen[0].outputs)
    expected = np.tile(model.layers[1].kernel.numpy().sum(1), (2, 1))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_layer_in_the_body_of_a_loop_is_left_out() -> None:
    class Looping(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = dense("inside"), dense("outside")

        def call(self, x: Any) -> Any:
            (x,) = tf.while_loop(lambda x: tf.reduce_sum(x) < 0, lambda x: (self.inside(x),), (x,))
            return self.outside(x)

    model, x = Looping(), numbers(2, 4)
    model.inside.build((None, 4))
    model(x)
    names: list[str] = []

    @tf.function
    def step(x: Any) -> None:
        names.extend(entry.name for entry in seen_in(model, x))

    step(x)
    assert names == ["outside"]


class Adding(layers.Layer):
    def call(self, x: Any) -> Any:
        self.called = True
        self.add_loss(keras.ops.mean(x))
        return x


@pytest.mark.smoke
@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_every_layer_is_as_it_was(fails: bool) -> None:
    fails_now = False

    class Failing(layers.Layer):
        def call(self, x: Any) -> Any:
            if fails_now:
                raise ArithmeticError("broken")
            return x

    stack = [dense("a", activation="relu"), Adding(), layers.LSTM(3), layers.ReLU(), Failing()]
    model = keras.Sequential([layers.Input((6, 4)), *stack, dense("b")])
    x = numbers(2, 6, 4)
    model(x)
    everything = [model, *model._flatten_layers()]
    attributes = [dict(vars(layer)) for layer in everything]
    losses = [list(layer._losses) for layer in everything]
    fails_now = fails
    if fails:
        with pytest.raises(ArithmeticError, match="broken"):
            seen_in(model, x)
    else:
        assert len(seen_in(model, x)) == 4
    for layer, before, own in zip(everything, attributes, losses):
        now = vars(layer)
        assert now.keys() == before.keys()
        assert [key for key in now if now[key] is not before[key]] == []
        assert [id(loss) for loss in layer._losses] == [id(loss) for loss in own]
