"""However a train step is compiled, and whatever the optimizer does with a gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from digit_images import digits
from fits import fitting, steps
from modes import COMPILED

from keras_vanish import GradientMonitor
from keras_vanish.records.readings import LayerReading

L = keras.layers

SOAK = pytest.mark.soak


def mostly_soak(cases: Iterable[tuple[Any, ...]], quick: Container[tuple[Any, ...]]) -> list[Any]:
    """Cases of which `make test` runs only the quick ones."""
    return [pytest.param(*case, marks=() if case in quick else SOAK) for case in cases]


def sgd() -> Any:
    return keras.optimizers.SGD(0.05)


def mlp(
    optimizer: Callable[[], Any] = sgd, constraint: Any = None, **options: Any
) -> Callable[[], Any]:
    """A function that gives a small compiled model."""

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((64,)),
                L.Dense(12, activation="relu", kernel_constraint=constraint, name="first"),
                L.Dense(10, activation="softmax", name="head"),
            ]
        )
        model.compile(optimizer(), "sparse_categorical_crossentropy", **options)
        return model

    return make


def weights_of(layer: Any) -> list[Any]:
    weights = [v for v in layer.trainable_variables if not v.overwrite_with_gradient]
    return [weight.value for weight in weights]


def first_norms(make: Callable[[], Any], x: Any, y: Any) -> list[float]:
    """The norm of each layer's gradient in the first step, by a tape of its own."""
    keras.utils.set_random_seed(1)
    model = make()
    layers = [layer for layer in model.layers if layer.trainable_variables]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    gradients = tape.gradient(loss, [weights_of(layer) for layer in layers])
    return [float(tf.linalg.global_norm(g)) for g in gradients]


def check_first(layers: tuple[LayerReading, ...], norms: list[float], rtol: float = 1e-4) -> None:
    assert [layer.name for layer in layers] == ["first", "head"]
    np.testing.assert_allclose([layer.gradient_norm for layer in layers], norms, rtol)


# Several steps in one execution.

#: 40 batches an epoch, two epochs: 7 and 32 do not divide 40.
CADENCES: dict[int | str, list[int]] = {
    1: list(range(80)),
    5: list(range(0, 80, 5)),
    10: list(range(0, 80, 10)),
}


@pytest.mark.usefixtures("op_determinism")
def test_op_determinism(twice: Any) -> None:
    assert len(twice(mlp(), fitting(*digits())).monitor.history) == 8


# Keras 3.4 says so of an epoch that ends within an execution, with a monitor or without.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    ("execution", "last_call", "mode"),
    mostly_soak(
        [
            (1, 39, "graph"),
            (7, 35, "graph"),
            (32, 32, "graph"),
            (1, 39, "xla"),
            (7, 35, "xla"),
            (32, 32, "xla"),
            (1, 39, "eager"),
        ],
        quick={(7, 35, "graph")},
    ),
)
def test_no_recorded_step_is_lost_in_an_execution(
    execution: int,
    last_call: int,
    mode: str,
    run_once: Any,
    check_same: Any,
) -> None:
    x, y = digits(160)
    make = mlp(steps_per_execution=execution, **COMPILED[mode])
    fit = fitting(x, y, batch_size=4, epochs=2)
    plain = run_once(make, fit)
    # With several steps a call, "epoch" is the first step of the epoch's last call.
    for update_freq, expected in {**CADENCES, "epoch": [last_call, 40 + last_call]}.items():
        monitor = GradientMonitor(None, update_freq=update_freq, probe=update_freq == 10)
        check_same(plain, run_once(make, fit, [monitor]))
        if plain.model.optimizer.iterations.numpy() == 80:
            assert steps(monitor) == expected
        else:  # Keras 3.4 counts its attempt to read past the end of an epoch as an update.
            assert len(monitor.history) == len(expected)
            assert steps(monitor)[: len(expected) // 2] == expected[: len(expected) // 2]
        norms = [d.reading.model.gradient_norm for d in monitor.history]
        assert len(set(norms)) == len(norms)
        assert all(norm > 0 for norm in norms)


# Optimizers.


def classes() -> list[str]:
    """The classes in `keras.optimizers`, whatever the release, that can train by themselves."""
    base = keras.optimizers.Optimizer
    found = {n for n, c in vars(keras.optimizers).items() if isinstance(c, type)}
    found = {n for n in found if issubclass(getattr(keras.optimizers, n), base)}
    return sorted(found - {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"})


@pytest.mark.parametrize(
    ("name", "mode"),
    mostly_soak(
        itertools.product(classes(), ["graph", "xla"]),
        quick={("Adafactor", "graph")},
    ),
)
def test_every_optimizer_of_keras(name: str, mode: str, twice: Any) -> None:
    x, y = digits(32)
    x = x + 0.1  # Of a row of zeros, Adafactor makes NaN.
    make = mlp(lambda: getattr(keras.optimizers, name)(0.01), **COMPILED[mode])
    pair = twice(make, fitting(x, y), probe=False)
    assert steps(pair.monitor) == [0, 1, 2, 3]
    first, last = (pair.monitor.history[i].reading.layers for i in (0, -1))
    # Whatever the optimizer makes of it, the gradient is that of the loss.
    check_first(first, first_norms(make, x[:8], y[:8]))
    assert all(layer.update_rms > 0 for layer in last)


def several() -> Any:
    parts = keras.optimizers.OptimizerMap(sgd(), {".*first/.*": keras.optimizers.Adam(0.01)})
    return keras.optimizers.MultiOptimizer(parts)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras had none before 3.15."
)
def test_an_optimizer_made_of_several(twice: Any) -> None:
    x, y = digits(32)
    pair = twice(mlp(several), fitting(x, y), probe=False)
    assert steps(pair.monitor) == [0, 1, 2, 3]
    check_first(pair.monitor.history[0].reading.layers, first_norms(mlp(), x[:8], y[:8]))


# What an optimizer does with a gradient, and with the weights after it.

TREATMENTS: dict[str, dict[str, Any]] = {
    "averaged": {"use_ema": True, "ema_momentum": 0.9},
    "averaged_and_overwritten": {"use_ema": True, "ema_overwrite_frequency": 2},
    "decayed": {"weight_decay": 0.1},
    "clipped": {"global_clipnorm": 0.1},
    "accumulated": {"gradient_accumulation_steps": 3},
    "all": {
        "use_ema": True,
        "ema_overwrite_frequency": 2,
        "weight_decay": 0.1,
        "clipvalue": 0.5,  # Keras 3.4 clips each part before it is added up, were it larger.
        "gradient_accumulation_steps": 2,
        "loss_scale_factor": 128.0,
    },
}


class KernelOfEachStep(keras.callbacks.Callback):
    """Keeps the first layer's kernel as it is before each step, and at the end."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.kernels: list[Any] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.kernels.append(self.model.get_layer("first").kernel.numpy())


@pytest.mark.parametrize(
    ("treatment", "mode"),
    mostly_soak(
        itertools.product([*TREATMENTS, "constrained"], COMPILED), quick={("all", "graph")}
    ),
)
def test_what_the_optimizer_does_after_the_gradient(treatment: str, mode: str, twice: Any) -> None:
    x, y = digits(96)
    options = TREATMENTS.get(treatment, {})
    bound = keras.constraints.MaxNorm(0.5) if treatment == "constrained" else None
    make = mlp(lambda: keras.optimizers.SGD(0.05, momentum=0.9, **options), bound, **COMPILED[mode])
    kept = KernelOfEachStep()
    plain = fitting(x, y)
    fit: Callable[..., Any] = lambda model, callbacks: plain(model, [*callbacks, kept])  # noqa: E731
    pair = twice(make, fit, probe=False)
    parts = options.get("gradient_accumulation_steps", 1)
    assert steps(pair.monitor) == list(range(12 // parts))
    for diagnosis in pair.monitor.history[: 11 // parts]:
        # Keras constrains weights in each call, also in those that only accumulate.
        before = kept.kernels[parts * diagnosis.step + parts - 1]
        after = kept.kernels[parts * (diagnosis.step + 1)]
        layer = diagnosis.reading.layers[0]
        # The bias is a part of the layer, and one thousandth of its size.
        moved = math.sqrt(np.mean(np.square(after.astype(np.float64) - before)))
        assert layer.update_rms == pytest.approx(moved, rel=0.05)
        assert layer.weight_rms == pytest.approx(math.sqrt(np.mean(before**2)), rel=0.05)
    # Of equal batches, the mean gradient of those accumulated is that of all.
    norms = first_norms(mlp(constraint=bound), x[: 8 * parts], y[: 8 * parts])
    # Keras 3.4 decays weights in each call, too.
    rtol = 0.01 if treatment == "all" else 1e-4
    check_first(pair.monitor.history[0].reading.layers, norms, rtol)


@pytest.mark.soak
def test_a_constraint_on_each_kind_of_variable(twice: Any) -> None:
    x, y = digits(32)

    def make() -> Any:
        inputs = keras.Input((64,), dtype="int32")
        table = L.Embedding(17, 4, embeddings_constraint="unit_norm", name="table")(inputs)
        z = L.Dense(
            6, bias_constraint="non_neg", kernel_constraint=keras.constraints.MinMaxNorm(0.5, 1.0)
        )(L.Flatten()(table))
        model = keras.Model(inputs, L.Dense(10, activation="softmax")(z))
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        return model

    pair = twice(make, fitting((16 * x).astype("int32"), y), probe=False)
    assert steps(pair.monitor) == [0, 1, 2, 3]
    table = pair.monitor.history[0].reading.layers[0]
    assert table.name == "table"
    assert table.update_rms > 0


# Variables that are no weights.


@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=SOAK)])
def test_float8_scales_are_overwritten_and_not_read(mode: str, twice: Any) -> None:
    x, y = digits(32)

    def make() -> Any:
        model = mlp(**COMPILED[mode])()
        for name in ("first", "head"):
            model.get_layer(name).quantize("float8")
        model.compile(sgd(), "sparse_categorical_crossentropy", **COMPILED[mode])
        return model

    pair = twice(make, fitting(x, y), probe=False)
    assert steps(pair.monitor) == [0, 1, 2, 3]
    model = pair.monitored.model
    overwriting = [v for v in model.trainable_variables if v.overwrite_with_gradient]
    assert len(overwriting) >= 6
    for layer in pair.monitor.history[-1].reading.layers:
        owner = model.get_layer(layer.name)
        read = [v for v in owner.trainable_variables if not v.overwrite_with_gradient]
        assert layer.size == sum(math.prod(v.shape) for v in read)
        assert layer.gradient_rms > 0
    check_first(pair.monitor.history[0].reading.layers, first_norms(mlp(), x[:8], y[:8]), rtol=0.1)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_quantised_layer_trains_what_is_left_of_it(twice: Any) -> None:
    x, y = digits(32)

    def make() -> Any:
        model = mlp()()
        first = model.get_layer("first")
        first.enable_lora(2)
        first.quantize("int8")
        model.compile(sgd(), "sparse_categorical_crossentropy")
        return model

    pair = twice(make, fitting(x, y))
    assert steps(pair.monitor) == [0, 1, 2, 3]
    first, head = pair.monitor.history[-1].reading.layers
    assert (first.name, head.name) == ("first", "head")
    owner = pair.monitored.model.get_layer("first")
    assert first.size == sum(math.prod(v.shape) for v in owner.trainable_variables)
    assert 0 < first.size < 64 * 12
    assert head.gradient_rms > 0


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras had none before 3.15."
)
def test_the_flags_need_one_learning_rate(run_once: Any, check_same: Any) -> None:
    x, y = digits(32)
    fit = fitting(x, y)
    plain = run_once(mlp(several), fit)
    flags = dict.fromkeys(("auto_clip", "auto_lr", "auto_rollback", "auto_init"), True)
    monitor = GradientMonitor(None, update_freq=1, probe=False, **flags)
    with pytest.warns(UserWarning, match="one learning rate") as caught:
        check_same(plain, run_once(mlp(several), fit, [monitor]))
    ours = [str(w.message) for w in caught if "GradientMonitor" in str(w.message)]
    assert len(ours) == 1
    assert "Received: a model that holds a MultiOptimizer." in ours[0]
    assert steps(monitor) == [0, 1, 2, 3]
    assert monitor.interventions == []
