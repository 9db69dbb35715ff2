from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numerics import rms
from small_models import RNG, compiled, numbers, sequential

from keras_vanish.capture.tensorflow.activations.probe import SAMPLES, Probe
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed


def probed(model: Any, *batch: Any, probe: Probe | None = None) -> Probed:
    """What an eager probe of a batch finds."""
    probe = probe or Probe(model)
    return probe.parse(probe.trace(tf.nest.map_structure(tf.convert_to_tensor, batch)).numpy())


def column(found: Probed, name: str) -> np.ndarray:
    return found.table[:, ACTIVATION_COLUMNS.index(name)]


def mlp() -> Any:
    return sequential(
        layers.Input((6,)),
        layers.Dense(8, activation="relu", name="a"),
        layers.Dense(5, activation="tanh", name="b"),
        layers.Dense(3, name="c"),
    )


def in_a_branch(probe: Probe, *batch: Any, jit_compile: bool) -> np.ndarray:
    """What the probe gives in a branch of a compiled step that knows no batch size."""
    signature = [
        tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batch),
        tf.TensorSpec((), tf.bool),
    ]

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def step(data: Any, due: Any) -> Any:
        return tf.cond(due, lambda: probe.trace(data), lambda: tf.zeros([probe.size]))

    assert not step(batch, False).numpy().any()
    return step(batch, True).numpy()


@pytest.mark.smoke
def test_activation_gradients_are_those_of_back_propagation_by_hand() -> None:
    model, x, y = mlp(), numbers(20, 6), numbers(20, 3)
    found = probed(model, x, y)
    w1, b1, w2, b2, w3, b3 = (variable.numpy() for variable in model.weights)
    z1 = x @ w1 + b1
    h1 = np.maximum(z1, 0)
    h2 = np.tanh(h1 @ w2 + b2)
    out = h2 @ w3 + b3
    d_out = 2 * (out - y) / out.size
    d_h2 = d_out @ w3.T
    d_h1 = (d_h2 * (1 - h2**2)) @ w2.T
    np.testing.assert_allclose(
        column(found, "gradient_rms"), [rms(d) for d in (d_h1, d_h2, d_out)], rtol=1e-4
    )
    np.testing.assert_allclose(
        column(found, "output_rms"), [rms(h) for h in (h1, h2, out)], rtol=1e-4
    )
    assert column(found, "preactivation_mean")[0] == pytest.approx(z1.mean(), rel=1e-4)
    assert column(found, "preactivation_std")[0] == pytest.approx(z1.std(), rel=1e-4)


def test_what_is_measured_is_named_as_in_the_topology() -> None:
    inner = keras.Sequential([layers.Dense(4, name="a"), layers.ReLU(name="r")], name="block")
    model = sequential(
        layers.Input((5, 3)),
        inner,
        layers.Dropout(0.5),
        layers.TimeDistributed(layers.Dense(2, name="d"), name="t"),
        layers.Bidirectional(layers.LSTM(3, name="l"), name="bi"),
        layers.Flatten(),
        layers.Dense(1, name="end"),
    )
    probe = Probe(model)
    assert (probe.activations, probe.recurrent, probe.size) == ([], [], 0)
    found = probed(model, numbers(4, 5, 3), numbers(4, 1), probe=probe)
    assert [(info.name, info.kind, info.units) for info in probe.activations] == [
        ("block/a", "Dense", 4),
        ("block/r", "ReLU", 4),
        ("t/d", "TimeDistributed", 2),
        ("bi/forward_l", "LSTM", 3),
        ("bi/backward_l", "LSTM", 3),
        ("end", "Dense", 1),
    ]
    assert [info.name for info in probe.recurrent] == ["bi/forward_l", "bi/backward_l"]
    assert np.isfinite(column(found, "gradient_rms")).all()


@pytest.mark.parametrize(
    ("function", "loss"),
    [("softmax", "categorical_crossentropy"), ("sigmoid", "binary_crossentropy")],
)
def test_a_loss_that_is_computed_from_logits_gives_their_gradient(function: str, loss: str) -> None:
    model = sequential(layers.Input((4,)), layers.Dense(3, activation=function), loss=loss)
    x, y = numbers(10, 4), np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 10)]
    found = probed(model, x, y)
    difference = (model(x).numpy() - y) / (10 if function == "softmax" else y.size)
    assert column(found, "gradient_rms")[0] == pytest.approx(rms(difference), rel=1e-4)


@pytest.mark.smoke
@pytest.mark.parametrize("jit_compile", [False, True])
def test_eager_graph_and_xla_agree(jit_compile: bool) -> None:
    model = sequential(
        layers.Input((6, 3)),
        layers.Dense(4, activation="relu"),
        layers.LayerNormalization(),
        layers.LSTM(4, return_sequences=True),
        layers.SimpleRNN(3),
        layers.Dense(1),
    )
    x, y = tf.constant(numbers(40, 6, 3)), tf.constant(numbers(40, 1))
    expected = Probe(model).trace((x, y)).numpy()
    found = in_a_branch(Probe(model, xla=jit_compile), x, y, jit_compile=jit_compile)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_only_the_first_samples_are_probed() -> None:
    model, x, y, weight = mlp(), numbers(50, 6), numbers(50, 3), np.abs(numbers(50))
    x[SAMPLES:] = np.nan
    whole, part = probed(model, x, y, weight), probed(model, *(a[:SAMPLES] for a in (x, y, weight)))
    np.testing.assert_array_equal(whole.table, part.table)
    assert np.isfinite(column(whole, "gradient_rms")).all()
    assert not np.allclose(whole.table, probed(model, x, y).table, equal_nan=True)


def test_a_batch_of_one() -> None:
    assert np.isfinite(column(probed(mlp(), numbers(1, 6), numbers(1, 3)), "gradient_rms")).all()


def test_structured_and_ragged_batches_are_sliced() -> None:
    a, b = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    joined = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    model = compiled(keras.Model({"a": a, "b": b}, {"o": layers.Dense(1, name="o")(joined)}))
    found = probed(model, {"a": numbers(40, 3), "b": numbers(40, 2)}, {"o": numbers(40, 1)})
    assert np.isfinite(column(found, "gradient_rms")).all()

    class Ragged(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(tf.reduce_mean(x, 1) if isinstance(x, tf.RaggedTensor) else x)

    ragged = compiled(Ragged())
    ragged(numbers(2, 2))
    x = tf.RaggedTensor.from_row_lengths(numbers(120, 2), [2, 4] * 20)
    probe = Probe(ragged)
    vector = probe.trace((x, tf.constant(numbers(40, 1))))
    whole = tf.reduce_mean(x, 1)[:SAMPLES]
    output = probe.parse(vector.numpy()).table[0, ACTIVATION_COLUMNS.index("output_rms")]
    assert output == pytest.approx(rms(ragged(whole)), rel=1e-4)


def test_a_batch_that_cannot_be_sliced_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Received: a SparseTensor of shape \(4, 6\).*probe=False"):
        Probe(mlp()).trace((tf.sparse.eye(4, 6), tf.zeros((4, 3))))
    with pytest.raises(
        TypeError, match=r"Received: a Tensor of shape \(\), which is .*has no first axis"
    ):
        Probe(mlp()).trace((tf.zeros((4, 6)), tf.constant(1.0)))


def test_a_model_without_a_layer_to_see_is_refused() -> None:
    model = sequential(layers.Input((3,)), layers.Flatten())
    with pytest.raises(ValueError, match="Received: a model of Sequential.*probe=False"):
        Probe(model).trace((tf.zeros((2, 3)), tf.zeros((2, 3))))


class Noisy(layers.Layer):
    """Keeps count in Python, in a variable and in its losses."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.counter = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.calls += 1
        self.counter.assign_add(1.0)
        self.add_loss(3 * keras.ops.mean(x * x))
        return x


def noisy_model() -> Any:
    model = sequential(
        layers.Input((6, 4)),
        layers.Dense(4, activation="relu", kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        Noisy(),
        layers.Activation("tanh"),
        layers.LSTM(3, dropout=0.5, recurrent_dropout=0.2),
        layers.Dense(1),
    )
    model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mse"])
    model.train_on_batch(numbers(8, 6, 4), numbers(8, 1))
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind_in_the_model(fails: bool, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("broken")

    model = noisy_model()
    everything = [model, *model._flatten_layers()]
    attributes = [dict(vars(layer)) for layer in everything]
    variables = [variable.numpy().copy() for variable in model.variables]
    optimizer = [variable.numpy().copy() for variable in model.optimizer.variables]
    losses = [list(layer._losses) for layer in everything]
    metrics = model.get_metrics_result()
    batch = (tf.constant(numbers(8, 6, 4)), tf.constant(numbers(8, 1)))
    if fails:
        monkeypatch.setattr(layers.LSTMCell, "call", broken)
    for jit_compile in (None, False):
        probe = Probe(model)
        if fails:
            with pytest.raises(ValueError, match="broken"):
                probe.trace(batch)
        elif jit_compile is None:
            probe.trace(batch)
        else:
            in_a_branch(probe, *batch, jit_compile=jit_compile)
        for layer, before, own in zip(everything, attributes, losses):
            now = vars(layer)
            assert now.keys() == before.keys()
            assert [k for k in now if now[k] is not before[k]] == []
            assert [id(x) for x in layer._losses] == [id(x) for x in own]
        for variable, before in zip(model.variables, variables):
            np.testing.assert_array_equal(variable.numpy(), before)
        for variable, before in zip(model.optimizer.variables, optimizer):
            np.testing.assert_array_equal(variable.numpy(), before)
        assert model.get_metrics_result() == metrics


def test_losses_that_layers_add_count() -> None:
    model = sequential(layers.Input((4,)), layers.Dense(4), Noisy())
    x, y = numbers(8, 4), numbers(8, 4)
    h = model.layers[0](x).numpy()
    expected = 2 * (h - y) / h.size + 6 * h / h.size
    found = column(probed(model, x, y), "gradient_rms")
    assert found[0] == pytest.approx(rms(expected), rel=1e-4)


def test_half_precision_gradients_are_scaled_as_training_scales_them() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    full = mlp()
    full.set_weights(model.get_weights())
    x, y = numbers(64, 6), numbers(64, 3)

    def small(y_true: Any, y_pred: Any) -> Any:
        return 1e-7 * keras.ops.mean(keras.ops.square(y_true - y_pred))

    for each in (model, full):
        compiled(each, small)
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.0))
    model.compile(optimizer, small)
    model.train_on_batch(x, y)
    expected, found = probed(full, x, y), probed(model, x, y)
    np.testing.assert_allclose(
        column(found, "gradient_rms"), column(expected, "gradient_rms"), rtol=0.02
    )


def test_tiny_gradients_are_not_rounded_to_zero() -> None:
    def faint(y_true: Any, y_pred: Any) -> Any:
        return 1e-30 * keras.ops.mean(keras.ops.square(y_true - y_pred))

    model, x, y = mlp(), numbers(10, 6), numbers(10, 3)
    expected = column(probed(model, x, y), "gradient_rms") * 1e-30
    compiled(model, faint)
    found = column(probed(model, x, y), "gradient_rms")
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_layer_that_the_loss_does_not_depend_on_has_no_gradient() -> None:
    class Idle(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = layers.Dense(1), layers.Dense(2)

        def call(self, x: Any) -> Any:
            self.idle(x)
            return self.used(x)

    model = compiled(Idle())
    model(numbers(2, 3))
    found = probed(model, numbers(4, 3), numbers(4, 1))
    assert np.isnan(column(found, "gradient_rms")).tolist() == [True, False]
    assert np.isfinite(column(found, "output_rms")).all()


def through(model: Any, *batch: Any) -> np.ndarray:
    """The profile of a model's only recurrent layer."""
    (profile,) = probed(model, *batch).profiles.values()
    return profile


def test_a_later_trace_fits_into_the_width_of_the_first() -> None:
    model = sequential(layers.Input((None, 2)), layers.SimpleRNN(3, name="r"), layers.Dense(1))
    probe = Probe(model)
    y = numbers(4, 1)
    longer, shorter = numbers(4, 9, 2), numbers(4, 3, 2)
    probed(model, numbers(4, 6, 2), y, probe=probe)
    size = probe.size
    cropped = probed(model, longer, y, probe=probe).profiles["r"]
    assert (len(cropped), probe.size) == (6, size)
    np.testing.assert_allclose(cropped, through(model, longer, y)[-6:], rtol=1e-5)
    padded = probe.trace((tf.constant(shorter), tf.constant(y))).numpy()
    assert np.isnan(padded[-6:-3]).all()
    profile = probe.parse(padded).profiles["r"]
    np.testing.assert_allclose(profile, through(model, shorter, y), rtol=1e-5)


def test_what_a_later_trace_does_not_see_is_missing() -> None:
    class Optional(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.skip = layers.Dense(2), layers.Dense(2), False

        def call(self, x: Any) -> Any:
            return self.second(x) if self.skip else self.second(self.first(x))

    model = compiled(Optional())
    model(numbers(2, 2))
    probe = Probe(model)
    probed(model, numbers(4, 2), numbers(4, 2), probe=probe)
    model.skip = True
    rows = probed(model, numbers(5, 2), numbers(5, 2), probe=probe).table
    assert np.isnan(rows[0]).all()
    assert rows[1, ACTIVATION_COLUMNS.index("gradient_rms")] > 0


def test_a_stateful_model_is_given_the_whole_batch() -> None:
    model = sequential(
        layers.Input((5, 2), batch_size=40), layers.SimpleRNN(3, stateful=True), layers.Dense(1)
    )
    model.train_on_batch(numbers(40, 5, 2), numbers(40, 1))
    state = [variable.numpy() for variable in model.layers[0].states]
    assert state[0].any()
    profile = through(model, numbers(40, 5, 2), numbers(40, 1))
    assert profile.shape == (5,)
    np.testing.assert_array_equal(model.layers[0].states[0].numpy(), state[0])


@pytest.mark.smoke
def test_the_loss_and_the_size_of_the_outputs() -> None:
    model = sequential(layers.Input((5, 3)), layers.Dense(4), layers.Flatten(), layers.Dense(2))
    x, y = np.ones((40, 5, 3), np.float32), np.arange(80, dtype=np.float32).reshape(40, 2)
    model.compile("sgd", "mse")
    probe = Probe(model)
    found = probe.parse(probe.trace((tf.constant(x), tf.constant(y))).numpy())
    expected = model.evaluate(x[:32], y[:32], verbose=0)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.names == tuple(layer.name for layer in (model.layers[0], model.layers[2]))
    assert found.table[:, ACTIVATION_COLUMNS.index("size")].tolist() == [20, 2]


@pytest.mark.smoke
def test_a_model_that_draws_past_keras_is_refused() -> None:
    class Noise(layers.Layer):
        def call(self, x: Any) -> Any:
            return x + tf.random.normal([])

    model = sequential(layers.Input((3,)), layers.Dense(4), Noise(), layers.Dense(2))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Received: the operation RandomStandardNormal"):
        Probe(model).trace((tf.ones((4, 3)), tf.ones((4, 2))))


@pytest.mark.smoke
def test_a_model_of_one_hidden_batch_size_is_refused_before_it_fails() -> None:
    class Fixed(layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.reshape(tf.reshape(x, [64, 2, 3]), [64, 6])

    model = sequential(layers.Input((6,)), Fixed(), layers.Dense(3))
    model.compile("sgd", "mse")
    probe = Probe(model)
    before = [dict(vars(layer)) for layer in model.layers]

    @tf.function(
        input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([None, 3])], autograph=False
    )
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return probe.trace((x, y))

    with pytest.raises(ValueError, match="reshape"):
        step.get_concrete_function()
    assert [dict(vars(layer)) for layer in model.layers] == before
