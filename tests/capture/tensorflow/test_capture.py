"""Readings of `fit` against an independent GradientTape computation of the same step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from digit_images import digits
from modes import MODES
from numerics import rms

from keras_vanish import GradientMonitor, LayerReading, Reading
from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.capture.tensorflow.capture import Capture
from keras_vanish.capture.tensorflow.recorder import Recorder
from keras_vanish.records.statistics import Statistics

L = keras.layers
Array = npt.NDArray[Any]


#: A GPU may multiply in fewer bits, and each computation in another order.
RTOL = 1e-4 if tf.config.list_physical_devices("GPU") else 2e-5

#: Where another test compiles the same with XLA, which takes it long.
XLA = pytest.param("xla", marks=pytest.mark.soak)


def compiled(model: Any, mode: str, optimizer: Any = "sgd", **options: Any) -> Any:
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        jit_compile=mode == "xla",
        run_eagerly=mode == "eager",
        **options,
    )
    return model


def reference_gradients(model: Any, x: Array, y: Array) -> list[Array]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in gradients]


def weights_of(model: Any) -> list[Array]:
    return [v.numpy().astype(np.float64) for v in model.trainable_variables]


def joined(arrays: list[Array], indices: list[int]) -> Array:
    return np.concatenate([arrays[i].reshape(-1) for i in indices])


def check_statistics(
    got: Statistics, gradient: Array, before: Array, after: Array, rtol: float = RTOL
) -> None:
    expected = {
        "size": float(gradient.size),
        "gradient_rms": rms(gradient),
        "gradient_norm": float(np.linalg.norm(gradient)),
        "gradient_min": float(gradient.min()),
        "gradient_max": float(gradient.max()),
        "nan_count": 0.0,
        "inf_count": 0.0,
        "weight_rms": rms(before),
    }
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(value, rel=rtol, abs=1e-12), name
    assert got.gradient_mean == pytest.approx(gradient.mean(), abs=rtol * rms(gradient))
    # Rounding of the gradient may turn a zero into 1e-10 and back.
    assert got.zero_fraction == pytest.approx(np.mean(gradient == 0), abs=0.01)
    assert got.float16_underflow == pytest.approx(
        np.mean((gradient != 0) & (np.abs(gradient) < 2**-25)), abs=0.01
    )
    assert got.update_ratio == pytest.approx(rms(after - before) / rms(before), rel=1e-3)


def check_reading(
    reading: Reading,
    model: Any,
    gradients: list[Array],
    before: list[Array],
    rtol: float = RTOL,
) -> None:
    after = weights_of(model)
    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    owners = {layer.name: layer for layer in model.layers if layer.trainable_variables}
    assert [layer.name for layer in reading.layers] == list(owners)
    for layer in reading.layers:
        indices = [places[id(v)] for v in owners[layer.name].trainable_variables]
        parts = [joined(arrays, indices) for arrays in (gradients, before, after)]
        check_statistics(layer, *parts, rtol=rtol)
    every = list(range(len(before)))
    parts = [joined(arrays, every) for arrays in (gradients, before, after)]
    check_statistics(reading.model, *parts, rtol=rtol)


def first_step(model: Any, x: Array, y: Array) -> tuple[Reading, list[Array], list[Array]]:
    """The reading of one step on one batch, the true gradients, the weights before it."""
    before = weights_of(model)
    gradients = reference_gradients(model, x, y)
    monitor = GradientMonitor(None, update_freq=1)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[monitor])
    (diagnosis,) = monitor.history
    return diagnosis.reading, gradients, before


def mlp(**options: Any) -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(15, activation="sigmoid", name="first", **options),
            L.Dense(12, activation="relu", name="second", bias_initializer="ones"),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


def convolutional() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Reshape((8, 8, 1)),
            L.Conv2D(6, 3, activation="relu", name="conv", kernel_regularizer="l2"),
            L.BatchNormalization(name="norm"),
            L.Conv2D(4, 3, activation="tanh", name="deeper"),
            L.Flatten(),
            L.ActivityRegularization(l2=0.01),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


def recurrent() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Reshape((8, 8)),
            L.LSTM(6, name="lstm"),
            L.LayerNormalization(name="norm"),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


def embedded() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Rescaling(16),
            L.Embedding(40, 3, name="table"),
            L.GlobalAveragePooling1D(),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


SLOW = [(convolutional, "xla"), (embedded, "xla"), (recurrent, "xla")]


def _marks(build: Callable[[], Any], mode: str) -> list[Any]:
    if (build, mode) in SLOW:
        return [pytest.mark.soak]
    return [pytest.mark.smoke] * (build is mlp or (build, mode) == (recurrent, "graph"))


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        pytest.param(build, mode, marks=_marks(build, mode))
        for build in (mlp, convolutional, recurrent, embedded)
        for mode in MODES
    ],
)
def test_readings_equal_gradient_tape(build: Callable[[], Any], mode: str) -> None:
    model = compiled(build(), mode, keras.optimizers.Adam(0.01))
    x, y = digits(32)
    check_reading(*(lambda r, g, b: (r, model, g, b))(*first_step(model, x, y)))


@pytest.mark.parametrize("mode", ["graph", XLA])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5),
        lambda: keras.optimizers.Adam(0.1, clipnorm=0.01),
        lambda: keras.optimizers.RMSprop(0.1, loss_scale_factor=1024.0),
    ],
)
def test_updates_are_measured(optimizer: Callable[[], Any], mode: str) -> None:
    model = compiled(mlp(kernel_constraint=keras.constraints.MaxNorm(0.5)), mode, optimizer())
    reading, gradients, before = first_step(model, *digits(32))
    check_reading(reading, model, gradients, before)


def test_later_steps_are_right_too() -> None:
    model = compiled(mlp(), "graph", keras.optimizers.SGD(0.1))
    x, y = digits(96)
    monitor = GradientMonitor(None, update_freq=1)
    snapshots: list[list[Array]] = []

    class Snapshots(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            snapshots.append(weights_of(self.model))

    model.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor, Snapshots()])
    snapshots.append(weights_of(model))
    assert [d.step for d in monitor.history] == [0, 1, 2]
    for step, diagnosis in enumerate(monitor.history):
        for variable, weight in zip(model.trainable_variables, snapshots[step]):
            variable.assign(weight)
        batch = slice(32 * step, 32 * step + 32)
        gradients = reference_gradients(model, x[batch], y[batch])
        for variable, weight in zip(model.trainable_variables, snapshots[step + 1]):
            variable.assign(weight)
        check_reading(diagnosis.reading, model, gradients, snapshots[step])


@pytest.mark.parametrize("mode", ["graph", XLA])
def test_clipping_shows_before_and_after(mode: str) -> None:
    model = compiled(mlp(), mode, keras.optimizers.SGD(0.1, global_clipnorm=0.05))
    reading, gradients, _ = first_step(model, *digits(32))
    norm = math.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert reading.model.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert reading.model.gradient_norm_after_clipping == pytest.approx(0.05, rel=1e-4)
    for layer in reading.layers:
        ratio = layer.gradient_norm_after_clipping / layer.gradient_norm
        assert ratio == pytest.approx(0.05 / norm, rel=1e-4)


@pytest.fixture
def mixed_float16() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.usefixtures("mixed_float16")
def test_mixed_precision_is_unscaled(mode: str) -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=512.0)
    model = compiled(mlp(), mode, optimizer)
    reading, gradients, before = first_step(model, *digits(32))
    assert [layer.name for layer in reading.layers] == ["first", "second", "head"]
    norm = math.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert reading.model.gradient_norm == pytest.approx(norm, rel=0.02)
    after = weights_of(model)
    moved = rms(joined(after, [0, 1]) - joined(before, [0, 1]))
    assert reading.layers[0].update_rms == pytest.approx(moved, rel=1e-3)


@pytest.mark.usefixtures("mixed_float16")
def test_a_step_that_the_loss_scaler_skips_is_no_explosion() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=2.0**60
    )
    model = compiled(mlp(), "graph", optimizer)
    monitor = GradientMonitor(None, update_freq=1)
    x, y = digits(96)
    model.fit(x, y, batch_size=1, epochs=1, verbose=0, callbacks=[monitor])
    skipped = 96 - int(optimizer.inner_optimizer.iterations.numpy())
    assert 10 < skipped < 90
    assert [d.step for d in monitor.history] == list(range(96 - skipped))
    assert {d.reading.model.nonfinite_count for d in monitor.history} == {0.0}


@pytest.mark.parametrize("mode", ["eager", "graph", XLA])
def test_a_frozen_layer_is_absent(mode: str) -> None:
    model = mlp()
    model.layers[0].trainable = False
    compiled(model, mode)
    reading, gradients, before = first_step(model, *digits(32))
    assert [layer.name for layer in reading.layers] == ["second", "head"]
    assert len(gradients) == 4


class HeadFirst(keras.Model):
    """Creates its layers against the flow of data, and one that it does not call."""

    def __init__(self, builds: bool = False, unused: bool = False) -> None:
        super().__init__()
        self.head = L.Dense(10, activation="softmax", name="head")
        self.middle = L.Dense(12, activation="relu", name="middle")
        self.stem = L.Dense(15, activation="tanh", name="stem")
        self.builds = builds
        self.unused = L.Dense(3, name="unused") if unused else None

    def build(self, input_shape: Any) -> None:
        if self.unused is not None:
            self.unused.build((None, 4))
        if self.builds:
            self.head.build((None, 12))
            self.middle.build((None, 15))
            self.stem.build(input_shape)
            self.built = True
        else:
            super().build(input_shape)

    def call(self, x: Any) -> Any:
        return self.head(self.middle(self.stem(x)))


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["eager", "graph", XLA])
@pytest.mark.parametrize("builds", [False, True])
def test_layers_stand_in_the_order_in_which_data_flow(builds: bool, mode: str) -> None:
    keras.utils.set_random_seed(0)
    monitor = GradientMonitor(None, update_freq=1)
    model = compiled(HeadFirst(builds), mode)
    model.fit(*digits(32), verbose=0, callbacks=[monitor])
    layers = monitor.history[0].reading.layers
    assert [layer.name for layer in layers] == ["stem", "middle", "head"]
    assert [layer.depth for layer in layers] == [0, 1, 2]
    assert [layer.units for layer in layers] == [15, 12, 10]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.filterwarnings("ignore:.*does not have a `build\\(\\)` method")
@pytest.mark.parametrize("mode", ["eager", "graph", XLA])
def test_without_a_gradient_a_layer_is_nan(mode: str) -> None:
    keras.utils.set_random_seed(0)
    monitor = GradientMonitor(None, update_freq=1)
    model = compiled(HeadFirst(unused=True), mode)
    model.fit(*digits(32), verbose=0, callbacks=[monitor])
    layers = monitor.history[0].reading.layers
    assert [layer.name for layer in layers] == ["stem", "middle", "head", "unused"]
    unused: LayerReading = layers[-1]
    assert unused.size == 15
    for name in ("gradient_rms", "gradient_norm", "zero_fraction", "nan_count", "update_ratio"):
        assert math.isnan(getattr(unused, name)), name
    assert math.isfinite(monitor.history[0].reading.model.gradient_rms)
    assert math.isfinite(monitor.history[0].vanishing_score)


def nested() -> Any:
    keras.utils.set_random_seed(1)
    block = keras.Sequential(
        [keras.Input((15,)), L.Dense(12, activation="relu", name="dense")], name="block"
    )
    inputs = keras.Input((64,))
    x = block(L.Dense(15, activation="relu", name="stem")(inputs))
    return keras.Model(inputs, L.Dense(10, activation="softmax", name="head")(x))


def test_nested_models_and_the_optimizer_of_a_loaded_model(tmp_path: Any) -> None:
    model = compiled(nested(), "graph", "adam")
    x, y = digits(32)
    model.fit(x, y, verbose=0)
    with warnings.catch_warnings():
        # NumPy 2 about what Keras does to variables when it saves them.
        warnings.simplefilter("ignore", DeprecationWarning)
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, gradients = weights_of(loaded), reference_gradients(loaded, x, y)
    monitor = GradientMonitor(None, update_freq=1)
    loaded.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
    (diagnosis,) = monitor.history
    assert diagnosis.step == 1
    assert [layer.name for layer in diagnosis.reading.layers] == ["stem", "block/dense", "head"]
    parts = [joined(a, list(range(6))) for a in (gradients, before, weights_of(loaded))]
    check_statistics(diagnosis.reading.model, *parts)


# The probe.


def captured(model: Any, probe: Probe | None, steps: int, slots: int, every: int = 1) -> Any:
    """What a capture has recorded after some steps on `digits(32)`."""
    capture = Capture(model, model.optimizer, every, slots, probe=probe)
    capture.arm()
    step = capture.wrap(model.train_step)
    if not model.run_eagerly:
        step = tf.function(step)
    batch = tuple(map(tf.constant, digits(32)))
    for _ in range(steps):
        step(batch)
        capture.count(1)
    return capture.read()


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_a_probe_finds_is_that_of_the_weights_before_the_update(mode: str) -> None:
    model = compiled(mlp(), mode, keras.optimizers.SGD(1.0))
    batch = tuple(map(tf.constant, digits(32)))
    probe = Probe(model)
    expected = probe.parse(probe.trace(batch).numpy())
    found = captured(model, Probe(model), steps=4, slots=4)
    assert [row.update for row in found] == [0, 1, 2, 3]
    assert [row.probed.names for row in found] == [("first", "second", "head")] * 4
    assert found[0].probed.loss == pytest.approx(expected.loss, rel=1e-5)
    np.testing.assert_allclose(found[0].probed.table, expected.table, rtol=1e-4)
    later = probe.parse(probe.trace(batch).numpy())
    losses = [row.probed.loss for row in found]
    assert len(set(losses)) == 4
    assert later.loss not in losses


def test_each_slot_keeps_what_its_probe_found() -> None:
    every, few = (
        captured(compiled(mlp(), "graph", keras.optimizers.SGD(1.0)), None, 5, slots)
        for slots in (5, 2)
    )
    assert [row.probed for row in every + few] == [None] * 7
    models = [compiled(mlp(), "graph", keras.optimizers.SGD(1.0)) for _ in range(2)]
    every = captured(models[0], Probe(models[0]), steps=5, slots=5)
    few = captured(models[1], Probe(models[1]), steps=5, slots=2)
    assert [row.update for row in few] == [3, 4]
    for a, b in zip(every[3:], few):
        assert a.probed.loss == b.probed.loss
        np.testing.assert_array_equal(a.probed.table, b.probed.table)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_probe_that_fails_is_one_warning_and_the_tap_goes_on(mode: str) -> None:
    class Broken(Probe):
        def trace(self, data: Any) -> Any:
            raise ArithmeticError("broken")

    model = compiled(mlp(), mode)
    with pytest.warns(UserWarning, match="cannot probe this model") as caught:
        found = captured(model, Broken(model), steps=3, slots=3)
    assert len([w for w in caught if "GradientMonitor" in str(w.message)]) == 1
    assert "ArithmeticError('broken')" in str(caught[0].message)
    assert [row.update for row in found] == [0, 1, 2]
    assert [row.probed for row in found] == [None] * 3
    assert all(np.isfinite(row.floats).all() for row in found)


def test_the_host_reads_nothing_on_steps_that_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[int] = []
    reads: list[int] = []
    variable = type(tf.Variable(0.0))
    numpy, read = variable.numpy, Recorder.read

    class Batches(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            batches.append(batch)

    def watched(self: Any) -> Any:
        waits.append(batches[-1] if batches else -1)
        return numpy(self)

    def counted(self: Recorder, count: int) -> Any:
        reads.append(batches[-1])
        return read(self, count)

    waits: list[int] = []
    model = compiled(mlp(), "graph")
    monkeypatch.setattr(variable, "numpy", watched)
    monkeypatch.setattr(Recorder, "read", counted)
    monitor = GradientMonitor(None, update_freq=10)
    x, y = digits(100)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[monitor, Batches()])
    assert batches == list(range(25))
    assert reads == [0, 10, 20]
    assert set(waits) - {-1} <= {0, 10, 20}
    assert [d.step for d in monitor.history] == [0, 10, 20]


def test_a_second_set_of_variables_is_not_monitored_and_said_so() -> None:
    class Alternating(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape(persistent=True) as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            for layer in (self.layers[0], self.layers[-1]):
                variables = layer.trainable_variables
                gradients = tape.gradient(loss, variables)
                self.optimizer.apply(gradients, variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Alternating([keras.Input((64,)), L.Dense(12, name="a"), L.Dense(10, name="b")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.warns(UserWarning, match="Received: a second call of `apply` with 2 variables"):
        model.fit(*digits(32), verbose=0, callbacks=[monitor])
    assert {layer.name for d in monitor.history for layer in d.reading.layers} == {"a"}
