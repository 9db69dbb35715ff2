from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models_to_reinitialize import SEQUENCES, X, before_activation, same, sequential, values

from keras_vanish.capture.tensorflow.layers import layer_paths
from keras_vanish.rescue.reinitialize.reinitialize import Reinitialized, reinitialize


@pytest.mark.smoke
@pytest.mark.parametrize("fused", [True, False])
def test_each_unit_of_a_sigmoid_layer_is_centred_and_scaled(fused: bool) -> None:
    inside = []
    for number in range(3):
        inside.append(layers.Dense(8, "sigmoid" if fused else None, name=f"dense{number}"))
        inside += [] if fused else [layers.Activation("sigmoid")]
    model = sequential((10,), *inside)
    done = reinitialize(model, X)
    assert done.names == ("dense0", "dense1", "dense2", "head")
    assert [layer.aim for layer in done.touched] == ["sigmoid"] * 3 + ["head"]
    for number in range(3):
        z = before_activation(model, model.get_layer(f"dense{number}"), X)
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(z.std(0), 2.5, rtol=1e-3)
        assert done.touched[number].after == pytest.approx(2.5, rel=1e-3)
    head = model(X).numpy()
    assert np.sqrt(np.mean(np.square(head))) == pytest.approx(0.3, rel=1e-3)


class Backwards(keras.Model):
    """Its layers were created in the opposite order."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = (
            layers.Dense(5, "tanh", name=name) for name in ("last", "middle", "first")
        )

    def call(self, x: Any) -> Any:
        return self.last(self.middle(self.first(x)))


def test_the_order_is_that_of_the_data() -> None:
    model = Backwards()
    model(X)
    done = reinitialize(model, X)
    assert done.names == ("first", "middle", "last")
    assert [layer.aim for layer in done.touched] == ["tanh", "tanh", "head"]
    np.testing.assert_allclose([layer.after for layer in done.touched], [1, 1, 0.3], rtol=1e-3)


def test_what_is_not_to_be_touched_is_not() -> None:
    keras.utils.set_random_seed(0)
    inputs = layers.Input((6,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(9, 4, name="embedding")(inputs))
    h = layers.Dense(8, name="frozen", trainable=False)(h)
    h = layers.BatchNormalization(name="norm")(h)
    h = layers.Dropout(0.5, name="dropout")(layers.Activation("relu")(h))
    h = layers.Dense(8, "relu", name="guarded")(h)
    zero = layers.Dense(8, kernel_initializer="zeros", name="zero")(h)
    model = keras.Model(inputs, layers.Dense(2, name="head")(h + zero))
    untouched = ("embedding", "frozen", "norm", "dropout", "guarded", "zero")
    before = {name: values(model.get_layer(name)) for name in untouched}
    x = np.random.default_rng(0).integers(0, 9, (16, 6))
    done = reinitialize(model, x, protect=["guarded"])
    assert done.names == ("head",)
    assert not done.whole
    for name in untouched:
        assert same(before[name], values(model.get_layer(name))), name
    assert done.left_alone == {
        "embedding": "not a layer with a kernel",
        "frozen": "frozen",
        "norm": "not a layer with a kernel",
        "guarded": "protected",
        "zero": "it starts at zero by intention",
        "dropout": "not a layer with a kernel",
    }
    assert done.variables == {id(v) for v in model.get_layer("head").variables}


def test_protect_takes_layers_and_what_is_in_them() -> None:
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([layers.Input((10,)), layers.Dense(4, name="deep")], name="inner")
    model = sequential((10,), inner)
    before = values(inner)
    done = reinitialize(model, X, protect=[inner])
    assert done.names == ("head",)
    assert done.left_alone == {"inner/deep": "protected"}
    assert same(before, values(inner))
    assert reinitialize(model, X, protect=["inner/deep", "head"]).names == ()


def test_protect_is_checked() -> None:
    model = sequential((10,))
    with pytest.raises(ValueError, match=r"Received: 'nowhere'. Its layers are \['head'\]"):
        reinitialize(model, X, protect=["nowhere"])
    with pytest.raises(ValueError, match="Received: 'head'. Put it into a tuple"):
        reinitialize(model, X, protect="head")


def test_a_model_that_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match="Call it on a batch first"):
        reinitialize(Backwards(), X)


def test_nothing_is_left_on_the_layers() -> None:
    model = sequential(
        (20, 4),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(3, "tanh")),
        layers.Dropout(0.1),
        layers.GRU(4, activity_regularizer="l2"),
    )
    everything = list(model._flatten_layers())
    before = [dict(vars(layer)) for layer in everything]
    losses = [list(layer._losses) for layer in everything]
    reinitialize(model, SEQUENCES)
    for layer, attributes, own in zip(everything, before, losses):
        now = vars(layer)
        assert now.keys() == attributes.keys()
        assert [key for key in now if now[key] is not attributes[key]] == []
        assert list(layer._losses) == own


def test_all_is_as_before_if_the_model_raises() -> None:
    class Broken(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(4, name="dense")
            self.broken = False

        def call(self, x: Any) -> Any:
            x = self.dense(x)
            if self.broken:
                raise RuntimeError("no")
            return x

    model = Broken()
    model(X)
    model.broken = True
    before = values(model)
    with pytest.raises(RuntimeError, match="no"):
        reinitialize(model, X)
    assert same(before, values(model))
    assert "call" not in vars(model.dense)


def test_the_seed_makes_it_deterministic() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        model = sequential((10,), layers.Dense(6, "relu"), layers.Dense(6, "relu"))
        reinitialize(model, X, seed=seed)
        return values(model)

    assert same(weights(3), weights(3))
    assert not same(weights(3), weights(4))


def test_a_shared_layer_is_set_by_its_first_call() -> None:
    keras.utils.set_random_seed(0)
    inputs = [layers.Input((10,)), layers.Input((10,))]
    shared = layers.Dense(5, "tanh", name="shared")
    both = layers.Concatenate()([shared(inputs[0]), shared(inputs[1])])
    model = keras.Model(inputs, layers.Dense(1, name="head")(both))
    done = reinitialize(model, [X, 100 * X])
    assert done.names == ("shared", "head")
    given = X @ shared.kernel.numpy() + shared.bias.numpy()
    assert given.std() == pytest.approx(1.0, rel=1e-3)


def test_inputs_may_be_a_dictionary() -> None:
    keras.utils.set_random_seed(0)
    inputs = {"a": layers.Input((10,), name="a"), "b": layers.Input((4,), name="b")}
    h = [layers.Dense(5, "tanh", name=f"of_{name}")(inputs[name]) for name in ("a", "b")]
    model = keras.Model(inputs, layers.Dense(1, name="head")(layers.Concatenate()(h)))
    done = reinitialize(model, {"a": X, "b": 50 * X[:, :4]})
    assert set(done.names) == {"of_a", "of_b", "head"}
    for layer in done.touched:
        assert layer.after == pytest.approx(0.3 if layer.name == "head" else 1.0, rel=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Bidirectional(layers.GRU(4)),
        lambda: layers.RNN([layers.LSTMCell(4), layers.SimpleRNNCell(5)]),
        lambda: layers.RNN(layers.GRUCell(4), unroll=True),
    ],
)
def test_cells_within_other_layers(layer: Any) -> None:
    model = sequential((20, 4), layer())
    cells = [w for w in model._flatten_layers() if hasattr(w, "recurrent_kernel")]
    before = [cell.recurrent_kernel.numpy() for cell in cells]
    done = reinitialize(model, SEQUENCES)
    assert len(cells) in (1, 2)
    for cell, old in zip(cells, before):
        assert not np.allclose(cell.recurrent_kernel.numpy(), old)
        assert id(cell.recurrent_kernel) in done.variables


class Own(layers.Layer):
    """A cell of one's own."""

    units = state_size = 4

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x: Any, states: Any) -> Any:
        return x @ self.kernel + states[0], [states[0]]


def test_a_cell_that_is_not_known_is_left_alone() -> None:
    model = sequential((20, 4), layers.RNN(Own(), name="own"))
    before = values(model.get_layer("own"))
    done = reinitialize(model, SEQUENCES)
    assert same(before, values(model.get_layer("own")))
    assert "its kind of cell is not known" in done.left_alone.values()
    assert not done.whole


def test_normalisation_layers_and_embeddings_are_no_kernels_left_alone() -> None:
    model = sequential((6,), layers.Embedding(9, 4), layers.LayerNormalization(), layers.LSTM(4))
    done = reinitialize(model, np.ones([8, 6], np.int32))
    assert len(done.left_alone) == 2
    assert done.whole


def test_a_layer_applied_at_each_time_step_sees_all_of_them() -> None:
    inner = layers.Dense(6, "sigmoid", name="inner")
    model = sequential((20, 4), layers.TimeDistributed(inner), layers.Flatten())
    reinitialize(model, SEQUENCES)
    z = SEQUENCES @ inner.kernel.numpy() + inner.bias.numpy()
    np.testing.assert_allclose(z.std((0, 1)), 2.5, rtol=1e-3)


def test_attention() -> None:
    keras.utils.set_random_seed(0)
    inputs = layers.Input((20, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    h = attention(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(1, name="head")(layers.Flatten()(h)))
    done = reinitialize(model, SEQUENCES)
    assert set(done.names) == {
        *(f"attention/{role}" for role in ("query", "key", "value", "attention_output")),
        "head",
    }
    query, key = attention._query_dense, attention._key_dense
    np.testing.assert_allclose(query.kernel.numpy(), key.kernel.numpy(), rtol=1e-5)
    assert query(SEQUENCES).numpy().std() == pytest.approx(1.0, rel=1e-3)


def test_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = sequential((10,), layers.Dense(8, "sigmoid", kernel_initializer="ones"))
        done = reinitialize(model, X)
        assert model.layers[0].kernel.dtype == "float32"
        np.testing.assert_allclose([w.after for w in done.touched], [2.5, 0.3], rtol=0.05)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_call_within_a_compiled_function_is_not_reached() -> None:
    class Compiled(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = layers.Dense(4, name="inner"), layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            return self.head(tf.function(self.inner)(x))

    model = Compiled()
    model(X)
    done = reinitialize(model, X)
    assert done.names == ("head",)
    assert done.left_alone == {"inner": "the forward pass did not reach it"}


def test_names_are_those_of_the_topology() -> None:
    model = sequential((20, 4), layers.Bidirectional(layers.LSTM(3), name="both"))
    done = reinitialize(model, SEQUENCES)
    assert isinstance(done, Reinitialized)
    assert set(done.names) <= set(layer_paths(model).values())


def test_twelve_sigmoid_layers_learn() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = sequential((64,), *(layers.Dense(32, "sigmoid") for _ in range(12)))
    model = keras.Model(model.inputs, layers.Dense(10)(model.layers[-2].output))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), loss, metrics=["accuracy"])
    assert model.evaluate(x, y, verbose=0)[1] < 0.2
    reinitialize(model, x[:32])
    model.fit(x, y, epochs=6, batch_size=32, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9
