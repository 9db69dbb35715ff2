"""Hard models: named right, read right, and trained as without the monitor."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from fits import assert_identical, state_of

from keras_vanish import GradientMonitor

L = keras.layers
Array = npt.NDArray[Any]
#: The layers that a reading names, in the order of the data, and their variables.
Owners = Mapping[str, Sequence[Any]]

BATCH, SAMPLES = 8, 24


def numbers(*shape: int) -> Array:
    generator = np.random.default_rng(sum(shape))
    return generator.normal(size=(SAMPLES, *shape)).astype("float32")


def tokens(length: int, vocabulary: int) -> Array:
    return np.random.default_rng(length).integers(0, vocabulary, (SAMPLES, length))


def batches(x: Any, y: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def compiled(build: Callable[[], Any], **options: Any) -> Any:
    keras.utils.set_random_seed(5)
    model = build()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        **{"loss": "mse", "jit_compile": False, **options},
    )
    return model


def check(
    build: Callable[[], Any],
    data: Any,
    owners: Callable[[Any], Owners],
    probe: bool = True,
    losses: Callable[[Any, Any], tf.Tensor] | None = None,
    **options: Any,
) -> GradientMonitor:
    """Fits a model with and without a monitor, and compares with what a tape says.

    Args:
        build: Makes the model.
        data: Batches of `(x, y)`.
        owners: Of a model that is built, the layers to be read, in order.
        probe: Whether the probe is to run, too.
        losses: The loss of a model and a batch, where `compile` does not say.
        **options: Of `compile`.
    """
    plain, monitored, reference = (compiled(build, **options) for _ in range(3))
    plain.fit(data, epochs=2, verbose=0, shuffle=False)
    monitor = GradientMonitor(None, update_freq=1, probe=probe)
    monitored.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=[monitor])
    assert_identical(state_of(plain), state_of(monitored))
    assert [d.step for d in monitor.history] == list(range(6))
    check_first(monitor, reference, next(iter(data)), owners, losses or keras_loss)
    return monitor


def keras_loss(model: Any, batch: Any) -> tf.Tensor:
    x, y = batch
    return model.compute_loss(x=x, y=y, y_pred=model(x, training=True))


def check_first(
    monitor: GradientMonitor,
    model: Any,
    batch: Any,
    owners: Callable[[Any], Owners],
    losses: Callable[[Any, Any], tf.Tensor],
) -> None:
    with tf.GradientTape() as tape:
        loss = losses(model, batch)
    first = monitor.history[0].reading
    expected = owners(model)
    assert [layer.name for layer in first.layers] == list(expected)
    sources = [[variable.value for variable in variables] for variables in expected.values()]
    for layer, gradients in zip(first.layers, tape.gradient(loss, sources)):
        found = [g for g in gradients if g is not None]
        norm = tf.linalg.global_norm([tf.convert_to_tensor(g) for g in found]) if found else np.nan
        np.testing.assert_allclose(layer.gradient_norm, norm, rtol=1e-4, err_msg=layer.name)


def flat(*names: str) -> Callable[[Any], Owners]:
    return lambda model: {name: model.get_layer(name).trainable_variables for name in names}


# Several inputs, several outputs, and layers that are used more than once.


def branches() -> Any:
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    x, y = L.Dense(5, name="a")(left), L.Dense(5, "tanh", name="b")(right)
    joined = L.Dense(6, "tanh", name="joined")(L.Concatenate()([x, y]))
    outputs = {"up": L.Dense(2, name="up")(joined), "down": L.Dense(1, name="down")(joined)}
    return keras.Model({"left": left, "right": right}, outputs)


def test_several_inputs_and_outputs() -> None:
    x = {"left": numbers(3), "right": numbers(4)}
    y = {"up": numbers(2), "down": numbers(1)}
    names = flat("a", "b", "joined", "up", "down")
    weights = {"up": 1.0, "down": 0.5}
    losses = {"up": "mse", "down": "mae"}
    check(branches, batches(x, y), names, loss=losses, loss_weights=weights)


def shared() -> Any:
    inputs = [keras.Input((4,)) for _ in range(2)]
    layers = [L.Dense(12, "relu", name="in"), L.Dense(12, "tanh", name="out")]
    tower = keras.Sequential(layers, name="tower")
    head = L.Dense(1, name="head")
    return keras.Model(inputs, L.Subtract()([head(tower(each)) for each in inputs]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_shared_layers(jit_compile: bool) -> None:
    # A shared layer's gradient is a sum of products. XLA computes the two in one, where nobody
    # else reads the products, and rounds once.
    def owners(model: Any) -> Owners:
        tower = {f"tower/{v.name}": v.trainable_variables for v in model.get_layer("tower").layers}
        return {**tower, **flat("head")(model)}

    data = batches((numbers(4), -numbers(4)[::-1]), numbers(1))
    check(shared, data, owners, probe=not jit_compile, jit_compile=jit_compile)


class Tied(keras.Model):
    """Predicts the next token with the matrix that embeds the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = L.Embedding(11, 4, name="embedding")
        self.middle = L.Dense(4, "tanh", name="middle")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        hidden = self.middle(self.embedding(x))
        return tf.matmul(hidden, self.embedding.embeddings, transpose_b=True)


def test_tied_weights() -> None:
    data = batches(tokens(6, 11), tokens(6, 11)[:, ::-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    check(Tied, data, flat("embedding", "middle"), loss=loss)


# Train steps of the user's own.


class Distilled(keras.Model):
    """A student that learns from a teacher, which is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = keras.Sequential([L.Dense(6, "relu"), L.Dense(3)], name="teacher")
        self.teacher.trainable = False
        self.student = keras.Sequential([L.Dense(3, name="only")], name="student")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.student(x)

    def loss_of(self, batch: Any) -> tf.Tensor:
        x, y = batch
        hard = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        return hard + tf.reduce_mean(tf.square(self.student(x) - self.teacher(x)))

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = self.loss_of(batch)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return {"loss": loss}


def test_knowledge_distillation() -> None:
    def build() -> Any:
        model = Distilled()
        model.student.build((None, 4))
        model.teacher.build((None, 4))
        return model

    data = batches(numbers(4), numbers(3))
    names = lambda model: {"student/only": model.student.trainable_variables}  # noqa: E731
    check(build, data, names, losses=lambda model, batch: model.loss_of(batch))


class Penalised(keras.Sequential):
    """A critic whose gradient's norm is held near 1 (Gulrajani et al. 2017)."""

    def loss_of(self, batch: Any) -> tf.Tensor:
        x, y = batch
        with tf.GradientTape() as inner:
            inner.watch(x)
            score = self(x, training=True)
        slopes = inner.gradient(score, x)
        norms = tf.sqrt(tf.reduce_sum(tf.square(slopes), 1) + 1e-6)
        return tf.reduce_mean(score * y) + 10 * tf.reduce_mean(tf.square(norms - 1))

    train_step = Distilled.train_step


def test_a_gradient_penalty_with_nested_tapes() -> None:
    def build() -> Any:
        layers = [L.Dense(5, "tanh", name="a"), L.Dense(5, "tanh", name="b"), L.Dense(1, name="c")]
        return Penalised([keras.Input((4,)), *layers])

    data = batches(numbers(4), numbers(1))
    check(build, data, flat("a", "b", "c"), losses=lambda model, batch: model.loss_of(batch))


# Where layers and variables are kept.


class Kept(keras.Model):
    """Layers in a dict of lists, made in another order than that of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {
            "late": [L.Dense(2, name="last")],
            "early": [L.Dense(5, "tanh", name="first"), L.Dense(5, "tanh", name="second")],
        }

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.parts["early"] + self.parts["late"]:
            x = layer(x)
        return x


def test_layers_in_lists_and_dicts() -> None:
    check(Kept, batches(numbers(3), numbers(2)), flat("first", "second", "last"))


class Scaled(keras.layers.Layer):
    """One number that all is multiplied by, and one that nothing needs."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.unused = self.add_weight(shape=(2,), name="unused")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.scale


class Spared(keras.Model):
    """A model with a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled, self.used = Scaled(name="scaled"), L.Dense(2, name="used")
        self.spare = L.Dense(2, name="spare")

    def build(self, shape: Any) -> None:
        for layer in self.layers:
            layer.build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.used(self.scaled(x))


def test_a_scalar_parameter_and_variables_that_the_loss_does_not_need() -> None:
    def build() -> Any:
        model = Spared()
        model.build((None, 3))
        return model

    def owners(model: Any) -> Owners:
        return {layer.name: layer.trainable_variables for layer in model.layers}

    with unused_variables():
        monitor = check(build, batches(numbers(3), numbers(2)), owners)
    scaled, _, spare = monitor.history[-1].reading.layers
    assert (scaled.size, spare.size) == (1, 8)
    assert np.isnan(spare.gradient_rms)
    assert monitor.verdict != "vanishing"


@contextlib.contextmanager
def unused_variables() -> Any:
    """Keras says itself that there are some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gradients do not exist for variables")
        yield


def test_layers_that_are_frozen_and_thawed_between_fits() -> None:
    def build() -> Any:
        layers = [L.Dense(4, "tanh", name="a"), L.Dense(4, "tanh", name="b"), L.Dense(2, name="c")]
        return keras.Sequential([keras.Input((3,)), *layers])

    monitor, ends = GradientMonitor(None, update_freq=1), []
    for callbacks in ([], [monitor]):
        model = compiled(build)
        for frozen in (["a"], ["a", "b"], []):
            for layer in model.layers:
                layer.trainable = layer.name not in frozen
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
            model.fit(numbers(3), numbers(2), BATCH, verbose=0, callbacks=callbacks)
        ends.append(state_of(model))
    assert_identical(*ends)
    seen = ["bc"] * 3 + ["c"] * 3 + ["abc"] * 3
    assert ["".join(d.reading.names) for d in monitor.history] == seen
    assert [d.step for d in monitor.history] == list(range(9))


def test_low_rank_adaptation() -> None:
    def build() -> Any:
        layers = [L.Embedding(7, 4, name="a"), L.Flatten(), L.Dense(4, name="b")]
        model = keras.Sequential([keras.Input((3,)), *layers, L.Dense(2, name="c")])
        for layer in (model.layers[0], model.layers[2]):
            layer.enable_lora(2)
        return model

    check(build, batches(tokens(3, 7), numbers(2)), flat("a", "b", "c"))


# Sequences.


class Cell(L.Layer):
    """A recurrent cell with a gate on what it remembers."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.state_size = units
        self.inner = L.Dense(units, "tanh", name="inner")
        self.gate = L.Dense(units, "sigmoid", name="gate")

    def build(self, shape: Any) -> None:
        width = shape[-1] + self.state_size
        self.inner.build((None, width))
        self.gate.build((None, width))

    def call(self, x: tf.Tensor, states: Any, training: bool = False) -> tuple[tf.Tensor, Any]:
        both = tf.concat([x, states[0]], -1)
        open_by = self.gate(both)
        new = open_by * self.inner(both) + (1 - open_by) * states[0]
        return new, [new]


def test_a_custom_cell_in_a_recurrent_layer() -> None:
    def build() -> Any:
        layers = [L.RNN(Cell(4), name="rnn"), L.Dense(2, name="head")]
        return keras.Sequential([keras.Input((5, 3)), *layers])

    def owners(model: Any) -> Owners:
        cell = model.get_layer("rnn").cell
        inner = {f"rnn/{part.name}": part.trainable_variables for part in (cell.gate, cell.inner)}
        return {**inner, **flat("head")(model)}

    check(build, batches(numbers(5, 3), numbers(2)), owners)


def test_masked_sequences() -> None:
    def build() -> Any:
        layers = [L.Embedding(7, 4, mask_zero=True, name="embedding"), L.GRU(4, name="gru")]
        return keras.Sequential([keras.Input((5,)), *layers, L.Dense(2, name="head")])

    check(build, batches(tokens(5, 7), numbers(2)), flat("embedding", "gru", "head"))


class Ragged(keras.Model):
    """Fills sequences up by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = L.Embedding(7, 4, mask_zero=True, name="embedding")
        self.recurrent = L.SimpleRNN(4, name="rnn")
        self.head = L.Dense(2, name="head")

    def call(self, x: tf.RaggedTensor) -> tf.Tensor:
        return self.head(self.recurrent(self.embedding(x.to_tensor())))


def test_ragged_sequences() -> None:
    lengths = np.random.default_rng(0).integers(1, 6, SAMPLES)
    rows = [row[:length] for row, length in zip(1 + tokens(5, 6), lengths)]
    data = batches(tf.ragged.constant(rows), numbers(2))
    check(Ragged, data, flat("embedding", "rnn", "head"))


def test_sparse_inputs() -> None:
    def build() -> Any:
        inputs = keras.Input((9,), sparse=True)
        hidden = L.Dense(4, "tanh", name="hidden")(inputs)
        return keras.Model(inputs, L.Dense(2, name="head")(hidden))

    dense = numbers(9) * (numbers(9) > 1)
    data = batches(tf.sparse.from_dense(dense), numbers(2))
    with pytest.warns(UserWarning, match="cannot probe this model.*sparse"):
        check(build, data, flat("hidden", "head"))


# Many layers.


def stack(depth: int, residual: bool = False) -> Any:
    def build() -> Any:
        inputs = x = keras.Input((4,))
        for index in range(depth):
            y = L.Dense(4, "tanh", name=f"layer_{index}")(x)
            x = L.Add()([x, y]) if residual else y
        return keras.Model(inputs, x)

    return build


def of_stack(depth: int) -> Callable[[Any], Owners]:
    return flat(*(f"layer_{index}" for index in range(depth)))


@pytest.mark.soak
def test_two_hundred_layers() -> None:
    # To trace and to optimise so many takes Keras itself a minute.
    data = batches(numbers(4), numbers(4))
    check(stack(200, residual=True), data, of_stack(200), probe=False, run_eagerly=True)


@pytest.mark.soak
@pytest.mark.parametrize("residual", [False, True])
def test_two_hundred_layers_in_a_graph(residual: bool) -> None:
    data = batches(numbers(4), numbers(4))
    check(stack(200, residual), data, of_stack(200), probe=False)


class Tower(keras.Model):
    """A thousand layers in a loop: Keras's functional models meet Python's recursion limit."""

    def __init__(self) -> None:
        super().__init__()
        self.all = [L.Dense(4, "tanh", name=f"layer_{index}") for index in range(1000)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.all:
            x = x + layer(x)
        return x


@pytest.mark.soak
def test_a_thousand_layers() -> None:
    check(Tower, batches(numbers(4), numbers(4)), of_stack(1000), probe=False)


class Chain(L.Layer):
    """As many elementwise operations as there may be layers, on the way to one weight."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        scale = self.scale * 1.0
        for _ in range(1500):
            scale = tf.tanh(scale) + 0.5
        return x * scale


@pytest.mark.soak
def test_a_long_chain_of_elementwise_operations() -> None:
    def build() -> Any:
        return keras.Sequential([keras.Input((4,)), Chain(name="chain"), L.Dense(2, name="head")])

    check(build, batches(numbers(4), numbers(2)), flat("chain", "head"), probe=False)


# Models of others.


@pytest.mark.soak
def test_a_model_of_keras_applications() -> None:
    def build() -> Any:
        shape = (32, 32, 3)
        return keras.applications.MobileNetV3Small(
            shape, weights=None, classes=3, alpha=0.35, minimalistic=True, dropout_rate=0.0
        )

    def owners(model: Any) -> Owners:
        weighty = [layer for layer in model.layers if layer.trainable_variables]
        return {layer.name: layer.trainable_variables for layer in weighty}

    data = batches(numbers(32, 32, 3), numbers(3))
    check(build, data, owners, probe=False, run_eagerly=True)


@pytest.mark.soak
def test_a_large_model_of_keras_applications() -> None:
    ends, monitor = [], GradientMonitor(None, update_freq=1)
    for callbacks in ([], [monitor]):
        model = compiled(
            lambda: keras.applications.ResNet50(
                weights=None, classes=3, input_shape=(32, 32, 3), classifier_activation=None
            )
        )
        data = batches(numbers(32, 32, 3), numbers(3))
        model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
        ends.append(state_of(model))
    assert_identical(*ends)
    names = monitor.history[0].reading.names
    assert set(names) == {layer.name for layer in model.layers if layer.trainable_variables}
    assert (names[0], names[-1]) == ("conv1_conv", "predictions")


def hub() -> Any:
    """keras_hub, where it is installed with what it imports; it warns by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras_hub")


SIZES: dict[str, Any] = {"vocabulary_size": 20, "num_layers": 2, "num_heads": 2}
SIZES |= {"hidden_dim": 8, "intermediate_dim": 8, "max_sequence_length": 6}


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["BertBackbone", "GPT2Backbone"])
def test_a_transformer_of_keras_hub(kind: str) -> None:
    models = hub().models

    def build() -> Any:
        backbone = getattr(models, kind)(**SIZES, dropout=0.0, name="backbone")
        output = backbone.output
        output = output["pooled_output"] if isinstance(output, dict) else output[:, -1]
        return keras.Model(backbone.input, L.Dense(1, name="head")(output))

    ids = tokens(6, 20)
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    ends, monitor = [], GradientMonitor(None, update_freq=1)
    for callbacks in ([], [monitor]):
        model = compiled(build)
        data = batches({name: x[name] for name in model.input}, numbers(1))
        model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
        ends.append(state_of(model))
    assert_identical(*ends)
    names = monitor.history[0].reading.names
    assert names[-1] == "head"
    assert "embedding" in names[0]
    first, second = (next(i for i, n in enumerate(names) if f"layer_{k}" in n) for k in (0, 1))
    assert first < second
