"""A monitored run ends bit for bit as the same run without the monitor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from digit_images import digits
from fits import assert_identical

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow import installation

L = keras.layers
Array = npt.NDArray[Any]

#: Each with another of the things that change a gradient on its way to the update.
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "sgd_clipped": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, clipvalue=0.01),
    "momentum_only": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam_accumulating": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, loss_scale_factor=1024.0),
    "rmsprop": lambda: keras.optimizers.RMSprop(
        0.01, momentum=0.5, clipnorm=0.05, use_ema=True, ema_overwrite_frequency=3
    ),
}


@keras.saving.register_keras_serializable("keras_vanish_tests")
class Noise(L.Layer):
    """Noise from TensorFlow's own generator, which counts the operations of a graph."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + 0.1 * tf.random.normal(tf.shape(x))


def dense() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(24, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)),
            L.BatchNormalization(),
            L.Activation("relu"),
            L.Dropout(0.3),
            L.Dense(24, activation="gelu", kernel_constraint=keras.constraints.MaxNorm(1.0)),
            L.ActivityRegularization(l1=1e-3, l2=1e-3),
            L.LayerNormalization(),
            L.GaussianNoise(0.1),
            L.Dense(10, activation="softmax", bias_regularizer="l1"),
        ]
    )


def noisy() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            Noise(),
            L.Dense(24, activation="selu"),
            Noise(),
            L.Dense(10, activation="softmax"),
        ]
    )


FLAGS = ("auto_clip", "auto_lr", "auto_rollback", "auto_init")


def normalised() -> Any:
    layers = [keras.Input((64,)), L.Reshape((8, 8, 1))]
    for _ in range(2):
        layers += [L.Conv2D(8, 3), L.BatchNormalization(), L.Activation("sigmoid")]
    return keras.Sequential([*layers, L.Flatten(), L.Dense(10, activation="softmax")])


def convolutional() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Reshape((8, 8, 1)),
            L.Conv2D(6, 3, activation="relu", padding="same"),
            L.BatchNormalization(),
            L.MaxPooling2D(),
            L.Conv2D(8, 3, activation="sigmoid"),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ]
    )


def recurrent() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Reshape((8, 8)),
            L.LSTM(6, dropout=0.2, recurrent_dropout=0.2),
            L.Dense(10, activation="softmax"),
        ]
    )


def attentive() -> Any:
    inputs = keras.Input((64,))
    x = L.Reshape((16, 16))(L.Embedding(17, 4)(L.Rescaling(16)(inputs)))
    y = L.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    x = L.LayerNormalization()(L.Add()([x, y]))
    x = L.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x))


def small() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(24, activation="relu"),
            L.Dropout(0.3),
            L.Dense(10, activation="softmax"),
        ]
    )


class Run(NamedTuple):
    """What a run leaves: weights and seeds, the optimizer's variables, the history."""

    weights: list[Array]
    state: list[Array]
    logs: dict[str, list[float]]


def run(
    build: Callable[[], Any],
    optimizer: str,
    mode: str,
    monitor: GradientMonitor | None = None,
    samples: int = 128,
) -> Run:
    keras.utils.set_random_seed(3)
    model = build()
    model.compile(
        OPTIMIZERS[optimizer](),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=mode == "xla",
        run_eagerly=mode == "eager",
    )
    callbacks = [monitor] if monitor else []
    history = model.fit(*digits(samples), epochs=2, verbose=0, callbacks=callbacks)
    return Run(
        weights=[v.numpy() for v in model.variables],
        state=[v.numpy() for v in model.optimizer.variables],
        logs={k: v for k, v in history.history.items() if not k.endswith("_score")},
    )


def check_same(plain: Run, monitored: Run) -> None:
    assert_identical(plain.weights, monitored.weights)
    assert_identical(plain.state, monitored.state)
    assert plain.logs == monitored.logs


@pytest.fixture(autouse=True, params=[2])
def short_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of as many steps runs the model's own function where it records nothing."""
    monkeypatch.setattr(installation, "SHORT_RUN", request.param)


# What takes XLA longest to compile.
XLA = pytest.param("xla", marks=pytest.mark.soak)
# One model and one optimizer stay; so does what is in test_rescue.py.
SLOW = [
    (build, "xla")
    for build in (
        *(dense, recurrent, attentive),
        *("sgd", "momentum", "adamw", "rmsprop", "adam_accumulating", "sgd_clipped"),
    )
]


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        pytest.param(build, mode, marks=[pytest.mark.soak] * ((build, mode) in SLOW))
        for build in (dense, convolutional, recurrent, attentive)
        for mode in ("graph", "xla", "eager")
        if mode != "eager" or build is dense
    ]
    # XLA does not seed TensorFlow's generator: two plain runs differ there.
    + [(noisy, "graph"), (noisy, "eager")],
)
def test_every_model_is_bit_identical(build: Callable[[], Any], mode: str) -> None:
    plain = run(build, "adam", mode)
    # The probe would draw from TensorFlow's own generator, and refuses to.
    monitor = GradientMonitor(None, update_freq=1, probe=build is not noisy)
    check_same(plain, run(build, "adam", mode, monitor))
    assert len(monitor.history) == 8
    for diagnosis in monitor.history:
        assert (diagnosis.reading.probed is None) == (build is noisy)


@pytest.mark.parametrize("flags", [False, pytest.param(True, marks=pytest.mark.smoke)])
def test_reordered_products_are_bit_identical(flags: bool) -> None:
    # Momentum's gradient of a convolution's normalisation is a product of factors of different
    # shapes, whose order TensorFlow's graph optimizer chooses where nobody else reads it.
    plain = run(normalised, "momentum_only", "graph")
    options = dict.fromkeys(FLAGS, True) if flags else {}
    for update_freq in (1, 5):
        monitor = GradientMonitor(None, update_freq=update_freq, **options)
        check_same(plain, run(normalised, "momentum_only", "graph", monitor))


@pytest.mark.parametrize("mode", ["graph", XLA])
def test_the_probe_now_and_then_is_bit_identical(mode: str) -> None:
    plain = run(dense, "adamw", mode)
    monitor = GradientMonitor(None, update_freq=3)
    check_same(plain, run(dense, "adamw", mode, monitor))
    assert [len(d.reading.activations) for d in monitor.history] == [6, 6, 6]


def test_a_generator_that_counts_within_a_graph_is_bit_identical() -> None:
    # TensorFlow's own generator begins anew in each function that is made of a step.
    plain = run(noisy, "adam", "graph", samples=144)
    monitor = GradientMonitor(None, update_freq=7, probe=False)
    check_same(plain, run(noisy, "adam", "graph", monitor, samples=144))
    assert len(monitor.history) == 2
    # All steps run as one function: it must not record them all.
    (run_,) = monitor._session.runs.values()
    assert run_.recording._recorder is not None
    assert not run_.recording._recorder.always


def test_a_model_that_cannot_be_probed_is_warned_about_and_not_changed() -> None:
    plain = run(noisy, "adam", "graph")
    monitor = GradientMonitor(None, update_freq=3)
    with pytest.warns(UserWarning, match="cannot probe this model.*RandomStandardNormal"):
        check_same(plain, run(noisy, "adam", "graph", monitor))
    assert len(monitor.history) == 3
    assert monitor.history[-1].reading.probed is None


@pytest.mark.parametrize(
    ("optimizer", "mode"),
    [
        pytest.param(name, mode, marks=[pytest.mark.soak] * ((name, mode) in SLOW))
        for name in OPTIMIZERS
        if name != "adam"
        for mode in ("graph", "xla")
    ],
)
def test_every_optimizer_is_bit_identical(optimizer: str, mode: str) -> None:
    plain = run(small, optimizer, mode)
    monitor = GradientMonitor(None, update_freq=3, probe=False)
    check_same(plain, run(small, optimizer, mode, monitor))
    assert len(monitor.history) >= 2


@pytest.mark.parametrize(
    ("mode", "short_run"),
    [
        pytest.param("graph", 2, marks=pytest.mark.smoke),
        ("graph", installation.SHORT_RUN),
        pytest.param("xla", 2, marks=pytest.mark.soak),
        ("eager", 2),
    ],
    indirect=["short_run"],
)
def test_every_cadence_is_bit_identical(mode: str, tmp_path: Path) -> None:
    # 144 = 4 * 32 + 16: the last batch of each epoch is partial, and is traced anew.
    plain = run(small, "adam", mode, samples=144)
    for update_freq, readings in ((1, 10), (7, 2), ("epoch", 2)):
        monitor = GradientMonitor(tmp_path / str(update_freq), update_freq=update_freq)
        check_same(plain, run(small, "adam", mode, monitor, samples=144))
        assert len(monitor.history) == readings


# The model afterwards.


def compiled_small() -> Any:
    keras.utils.set_random_seed(3)
    model = small()
    model.compile(OPTIMIZERS["adam"](), "sparse_categorical_crossentropy")
    return model


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_monitored_model_is_saved_loaded_and_cloned(tmp_path: Path) -> None:
    x, y = digits(64)
    model = compiled_small()
    model.fit(x, y, verbose=0, callbacks=[GradientMonitor(None, update_freq=1)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    assert type(clone) is type(loaded) is type(model)
    # Keras saves weights, and not the state of seed generators.
    ours, theirs = (m.weights + m.optimizer.variables for m in (model, loaded))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert "keras_vanish" not in json.dumps(model.get_compile_config()) + model.to_json()
    for other in (loaded, clone):
        if other is clone:
            other.compile("adam", "sparse_categorical_crossentropy")
        monitor = GradientMonitor(None, update_freq=1)
        other.fit(x, y, verbose=0, callbacks=[monitor])
        assert len(monitor.history) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_checkpoint_within_a_monitored_fit_holds_nothing_of_ours(tmp_path: Path) -> None:
    model = compiled_small()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    monitor = GradientMonitor(None, update_freq=1)
    model.fit(*digits(64), epochs=2, verbose=0, callbacks=[monitor, checkpoint])
    loaded = keras.models.load_model(tmp_path / "1.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert b"keras_vanish" not in (tmp_path / "2.keras").read_bytes()
    loaded.fit(*digits(64), verbose=0)


def test_a_second_fit_with_the_same_another_and_no_monitor_is_bit_identical() -> None:
    first = GradientMonitor(None, update_freq=1)
    second = GradientMonitor(None, update_freq=2)
    weights = []
    for monitors in ([None] * 4, [first, first, second, None]):
        model = compiled_small()
        for monitor in monitors:
            callbacks = [monitor] if monitor else []
            model.fit(*digits(64), verbose=0, callbacks=callbacks)
        weights.append([v.numpy() for v in model.variables + model.optimizer.variables])
    assert_identical(*weights)
    assert [d.step for d in first.history] == [0, 1, 2, 3]
    assert [d.step for d in second.history] == [4]
