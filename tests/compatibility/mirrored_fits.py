"""Fits under MirroredStrategy on two logical CPU devices; prints what came of them as JSON.

A process of its own, as the devices must be set up before TensorFlow's first operation.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish import GradientMonitor
from keras_vanish.records.statistics import COLUMNS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = (2 * X[:, :1]).astype("float32")
BATCH = 8


@functools.cache
def mirrored() -> Any:
    """One for all: the collective operations of two strategies get into each other's way."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def dense(hidden: Any = None) -> list[Any]:
    return [
        keras.Input((6,)),
        keras.layers.Dense(9, activation="tanh"),
        hidden or keras.layers.Dense(5),
        keras.layers.Dense(1, dtype="float32"),
    ]


def embedding() -> list[Any]:
    return [
        keras.Input((6,)),
        keras.layers.Embedding(11, 3),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]


CASES: dict[str, dict[str, Any]] = {
    "decay": {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)},
    "clipping": {
        "optimizer": lambda: keras.optimizers.SGD(0.05, global_clipnorm=0.1),
        "monitor": {"probe": True},
    },
    "half": {
        "policy": "mixed_float16",
        "optimizer": lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.05), initial_scale=64.0
        ),
    },
    "sparse": {
        "layers": embedding,
        "x": RNG.integers(0, 11, (32, 6)),
        "optimizer": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        "monitor": {"auto_clip": True, "auto_rollback": True},
    },
    # Each replica normalises by itself: there is nothing to compare it with.
    "normalised": {
        "layers": lambda: dense(keras.layers.BatchNormalization()),
        "monitor": {"update_freq": "epoch"},
        "fits": 2,
        "alone": False,
    },
    "eager": {"compile": {"run_eagerly": True}},
}


def fitted(case: dict[str, Any], strategy: Any, monitor: Any = None) -> tuple[Any, Any]:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(case.get("policy", "float32"))
    try:
        with strategy.scope():
            model = keras.Sequential(case.get("layers", dense)())
            optimizer = case.get("optimizer", lambda: keras.optimizers.SGD(0.05))()
            model.compile(optimizer, "mse", **case.get("compile", {}))
        history = keras.callbacks.History()
        for _ in range(case.get("fits", 1)):
            history = model.fit(
                case.get("x", X),
                Y,
                batch_size=BATCH,
                epochs=2,
                shuffle=False,
                verbose=0,
                callbacks=[] if monitor is None else [monitor],
            )
    finally:
        keras.config.set_dtype_policy("float32")
    return model, history.history if case.get("fits", 1) else {}


def numbers(model: Any) -> list[bytes]:
    """Every variable's bytes, on each replica."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [
        copy.numpy().tobytes()
        for variable in (*model.variables, *optimizer.variables)
        if "seed" not in variable.path
        for copy in getattr(variable.value, "values", [variable.value])
    ]


def readings(monitor: Any) -> list[dict[str, list[float]]]:
    return [dict(zip(COLUMNS, diagnosis.reading.table.T.tolist())) for diagnosis in monitor.history]


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    options = {"log_dir": None, "update_freq": 3, "probe": False, **case.get("monitor", {})}
    plain, _ = fitted(case, mirrored())
    monitor = GradientMonitor(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, logs = fitted(case, mirrored(), monitor)
    alone = GradientMonitor(**{**options, "auto_clip": False, "auto_rollback": False})
    if case.get("alone", True):
        fitted(case, tf.distribute.get_strategy(), alone)
    probed = monitor.history[0].reading.probed if monitor.history else None
    return {
        "identical": numbers(plain) == numbers(model),
        "warnings": [str(w.message) for w in caught if "GradientMonitor" in str(w.message)],
        "steps": [diagnosis.step for diagnosis in monitor.history],
        "steps_alone": [diagnosis.step for diagnosis in alone.history],
        "readings": readings(monitor),
        "readings_alone": readings(alone),
        "logged": logs.get("vanishing_score", [math.nan])[-1],
        "score": monitor.history[-1].vanishing_score if monitor.history else math.nan,
        "probed_loss": probed.loss if probed else math.nan,
        "interventions": len(monitor.interventions),
    }


def expected_probed_loss() -> float:
    """The loss of the first replica's share of the first batch, before the first step."""
    model, _ = fitted({"fits": 0}, tf.distribute.get_strategy())
    return float(model.evaluate(X[: BATCH // 2], Y[: BATCH // 2], verbose=0))


def expected_clipped() -> list[float]:
    """Norms by layer of the sum of what the replicas clip, each for itself, at the first step."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(dense())
    total = [np.zeros(variable.shape) for variable in model.trainable_variables]
    for share in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(X[share]) - Y[share])) / 2
        gradients = tape.gradient(loss, model.trainable_variables)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.1)
        total = [sum_ + gradient.numpy() for sum_, gradient in zip(total, clipped)]
    return [
        float(np.sqrt(np.sum(kernel**2) + np.sum(bias**2)))
        for kernel, bias in zip(total[::2], total[1::2])
    ]


def refusal_of_keras(monitor: Any) -> str:
    case = {"optimizer": lambda: keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)}
    try:
        fitted(case, mirrored(), monitor)
    except RuntimeError as error:
        return type(error).__name__ + str(error).partition("`merge_call`")[1]
    return ""


def main(names: list[str]) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, devices)
    found: dict[str, Any] = {name: outcome(CASES[name]) for name in names}
    found["expected_clipped"] = expected_clipped()
    found["expected_probed_loss"] = expected_probed_loss()
    found["accumulation"] = [refusal_of_keras(m) for m in (None, GradientMonitor(None))]
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
