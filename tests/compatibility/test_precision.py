"""Half, brain and double precision, in the whole model or in a part of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from digit_images import digits
from fits import fitting
from modes import COMPILED

from keras_vanish import Diagnosis, GradientMonitor
from keras_vanish.records.readings import Reading

L = keras.layers

SOAK = pytest.mark.soak
EACH_MODE = ["graph", pytest.param("eager", marks=SOAK), pytest.param("xla", marks=SOAK)]

#: Significant bits: 24, 11, 8 and 53.
TOLERANCE = {"float32": 1e-4, "mixed_float16": 5e-3, "mixed_bfloat16": 0.05, "float64": 1e-6}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def mlp(optimizer: Callable[[], Any] | None = None, **options: Any) -> Callable[[], Any]:
    """A function that gives a small compiled model, the same in every precision."""

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((64,)),
                L.Dense(24, activation="relu", name="first"),
                L.BatchNormalization(name="norm"),
                L.Dense(24, activation="tanh", name="second"),
                L.Dense(10, activation="softmax", dtype=last_dtype(), name="head"),
            ]
        )
        made = keras.optimizers.SGD(0.1) if optimizer is None else optimizer()
        model.compile(made, "sparse_categorical_crossentropy", **options)
        return model

    return make


def last_dtype() -> str:
    return "float64" if keras.config.floatx() == "float64" else "float32"


def set_policy(policy: str) -> None:
    if policy == "float64":
        keras.config.set_floatx("float64")
    keras.config.set_dtype_policy(policy)


def reference(x: Any, y: Any) -> dict[str, float]:
    """The norm of each layer's gradient for a batch, in float32, by a tape of its own."""
    keras.utils.set_random_seed(1)
    model = mlp()()
    layers = [layer for layer in model.layers if layer.trainable_variables]
    variables = [[v.value for v in layer.trainable_variables] for layer in layers]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    gradients = tape.gradient(loss, variables)
    return {l.name: float(tf.linalg.global_norm(g)) for l, g in zip(layers, gradients)}  # noqa: E741


def norms(reading: Reading) -> dict[str, float]:
    return {layer.name: layer.gradient_norm for layer in reading.layers}


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("mixed_float16", "graph"),
        pytest.param("float64", "graph", marks=SOAK),
        pytest.param("mixed_float16", "xla", marks=SOAK),
        pytest.param("mixed_float16", "eager", marks=SOAK),
        pytest.param("mixed_bfloat16", "graph", marks=SOAK),
        pytest.param("mixed_bfloat16", "xla", marks=SOAK),
        pytest.param("float64", "xla", marks=SOAK),
    ],
)
def test_readings_are_those_of_single_precision(policy: str, mode: str, twice: Any) -> None:
    x, y = digits(64)
    if policy == "float64":  # Its weights are drawn anew.
        set_policy(policy)
    expected = reference(x[:16], y[:16])
    set_policy(policy)
    pair = twice(mlp(**COMPILED[mode]), fitting(x, y, batch_size=16))
    model = pair.monitored.model
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert [d.step for d in pair.monitor.history] == [0, 1, 2, 3]
    first = pair.monitor.history[0]
    assert norms(first.reading) == pytest.approx(expected, rel=TOLERANCE[policy])
    for diagnosis in pair.monitor.history:
        assert diagnosis.verdict == "healthy"
        assert diagnosis.reading.model.nonfinite_count == 0
        assert diagnosis.advice == ()
        assert all(layer.update_rms > 0 for layer in diagnosis.reading.layers)
        activations = diagnosis.reading.activations
        assert [a.name for a in activations] == ["first", "norm", "second", "head"]
        assert all(0 < a.gradient_rms < 1 for a in activations)


@pytest.mark.soak
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_one_layer_in_half_precision(policy: str, twice: Any) -> None:
    x, y = digits(64)

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((64,)),
                L.Dense(24, activation="relu", name="first"),
                L.Dense(24, activation="relu", dtype=policy, name="half"),
                L.Dense(10, activation="softmax", dtype="float32", name="head"),
            ]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    pair = twice(make, fitting(x, y, batch_size=16))
    assert [layer.name for layer in pair.monitor.history[0].reading.layers] == [
        "first",
        "half",
        "head",
    ]
    assert {d.verdict for d in pair.monitor.history} == {"healthy"}


@pytest.mark.soak
def test_weights_in_half_precision(twice: Any) -> None:
    x, y = digits(64)
    keras.config.set_dtype_policy("float16")
    pair = twice(mlp(), fitting(x, y, batch_size=16))
    first = pair.monitored.model.get_layer("first")
    assert first.kernel.dtype == "float16"
    for layer in pair.monitor.history[0].reading.layers:
        assert layer.gradient_rms > 0
        assert layer.weight_rms > 0


@pytest.mark.parametrize("mode", EACH_MODE)
def test_an_overflow_that_the_scaler_handles_is_no_step_and_no_explosion(
    mode: str, twice: Any
) -> None:
    x, y = digits(128)
    set_policy("mixed_float16")

    def optimizer() -> Any:
        inner = keras.optimizers.SGD(0.1)
        # After two good steps it doubles: it overflows again and again.
        return keras.optimizers.LossScaleOptimizer(inner, 2.0**20, dynamic_growth_steps=2)

    pair = twice(mlp(optimizer, **COMPILED[mode]), fitting(x, y, batch_size=16, epochs=3))
    applied = int(pair.monitored.model.optimizer.inner_optimizer.iterations.numpy())
    assert 6 < applied < 22
    history = pair.monitor.history
    assert [d.step for d in history] == list(range(applied))
    assert {d.reading.model.nonfinite_count for d in history} == {0.0}
    assert all(d.reading.model.gradient_norm < 10 for d in history)
    assert all(0 < a.gradient_rms < 1 for d in history for a in d.reading.activations)
    assert pair.monitor.verdict == "healthy"


@pytest.mark.soak
@pytest.mark.parametrize("update_freq", [2, 5])
def test_skipped_steps_shift_no_recorded_one(update_freq: int, twice: Any) -> None:
    x, y = digits(128)
    set_policy("mixed_float16")

    def optimizer() -> Any:
        inner = keras.optimizers.Adam(0.01)
        return keras.optimizers.LossScaleOptimizer(inner, 2.0**20, dynamic_growth_steps=2)

    pair = twice(
        mlp(optimizer), fitting(x, y, batch_size=16, epochs=3), update_freq=update_freq, probe=False
    )
    applied = int(pair.monitored.model.optimizer.inner_optimizer.iterations.numpy())
    assert [d.step for d in pair.monitor.history] == list(range(0, applied, update_freq))


# Underflow.


def faint(scaled: bool) -> Callable[[], Any]:
    """A model whose loss is so small that float16 needs it scaled."""
    return mlp(auto_scale_loss=scaled)


def test_what_float16_would_round_to_zero_is_reported(run_once: Any) -> None:
    x, y = digits(64)
    weights = np.full(64, 3e-6, np.float32)
    fit = fitting(x, y, batch_size=16, sample_weight=weights)

    def first(scaled: bool) -> Diagnosis:
        monitor = GradientMonitor(None, probe=False)
        run_once(faint(scaled), fit, [monitor])
        return monitor.history[0]

    single = first(True)
    set_policy("mixed_float16")
    scaled, unscaled = first(True), first(False)
    for a, b in zip(single.reading.layers, scaled.reading.layers):
        # Thanks to the scale nothing of it is lost: it is what would be, without one.
        assert a.float16_underflow > 0.01
        assert b.float16_underflow == pytest.approx(a.float16_underflow, abs=0.02)
        assert b.zero_fraction == pytest.approx(a.zero_fraction, abs=0.02)
    assert single.advice == scaled.advice == ()
    (whole,), (lost,) = (
        [layer for layer in d.reading.layers if layer.name == "second"] for d in (single, unscaled)
    )
    assert lost.float16_underflow == 0.0
    assert lost.zero_fraction > whole.zero_fraction + 0.02
    assert unscaled.advice[0].startswith("float16 rounds gradients below 6e-8 to zero, here in")
    assert "second" in unscaled.advice[0]
    assert "auto_scale_loss=True" in unscaled.advice[0]


@pytest.mark.soak
def test_a_deep_stack_vanishes_in_half_precision_as_in_single(twice: Any) -> None:
    x, y = digits(64)

    def make(scaled: bool) -> Any:
        hidden = [L.Dense(32, activation="sigmoid", name=f"hidden_{i}") for i in range(12)]
        head = L.Dense(10, activation="softmax", dtype="float32", name="head")
        model = keras.Sequential([keras.Input((64,)), *hidden, head])
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.SGD(0.1), loss, auto_scale_loss=scaled)
        return model

    single = twice(lambda: make(True), fitting(x, y, batch_size=16)).monitor.history[0]
    set_policy("mixed_float16")
    scaled = twice(lambda: make(True), fitting(x, y, batch_size=16)).monitor.history[0]
    unscaled = twice(lambda: make(False), fitting(x, y, batch_size=16)).monitor.history[0]
    assert single.verdict == scaled.verdict == unscaled.verdict == "vanishing"
    assert scaled.blame == single.blame
    assert norms(scaled.reading) == pytest.approx(norms(single.reading), rel=0.05)
    # Here the first layers have no gradient at all any more.
    assert math.isclose(unscaled.reading.layers[0].zero_fraction, 1.0)
    assert "float16 rounds" in unscaled.advice[0]


def test_a_stack_whose_gradients_float16_rounds_to_zero_is_called_vanishing() -> None:
    def make() -> Any:
        stack = [L.Dense(16, activation="relu", kernel_initializer="he_normal") for _ in range(4)]
        model = keras.Sequential([keras.Input((64,)), *stack, L.Dense(10, dtype="float32")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, loss_weights=1e-6, auto_scale_loss=False)
        return model

    set_policy("mixed_float16")
    monitor = GradientMonitor(None, update_freq=4)
    keras.utils.set_random_seed(0)
    make().fit(*digits(256), batch_size=32, epochs=3, verbose=0, callbacks=[monitor])
    last = monitor.history[-1]
    assert (monitor.verdict, last.cause) == ("vanishing", "silent")
    assert len(last.blame) == 4
    assert "auto_scale_loss=True" in last.advice[0]
