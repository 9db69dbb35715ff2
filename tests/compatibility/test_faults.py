"""What is wrong with data, weights and folders: training goes on as without the monitor."""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from fits import assert_identical

from keras_vanish import GradientMonitor, read
from keras_vanish.cli import main
from keras_vanish.logs.interventions_log import read_interventions
from keras_vanish.logs.state import NAME

L = keras.layers


def data() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    return x, x[:, :1] * 2


def compiled(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(4, activation="tanh", name="first"),
            L.Dense(4, activation="tanh", name="second"),
            L.Dense(1, name="head"),
        ]
    )
    options.setdefault("optimizer", keras.optimizers.Adam(0.01))
    model.compile(loss="mse", **options)
    return model


def fit(model: Any, *callbacks: Any, x: Any = None, y: Any = None) -> Any:
    good = data()
    x, y = good[0] if x is None else x, good[1] if y is None else y
    return model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))


# Numbers that are none.


@pytest.mark.parametrize(
    ("where", "value", "jit_compile"),
    [
        ("data", math.nan, False),
        ("data", math.inf, False),
        # Takes XLA a minute to compile.
        pytest.param("data", math.inf, True, marks=pytest.mark.soak),
        ("labels", math.nan, True),
        ("labels", math.inf, False),
        ("weights", math.nan, False),
        ("weights", math.inf, False),
    ],
)
def test_nan_and_inf(where: str, value: float, jit_compile: bool) -> None:
    (x, y), spoiled = data(), 2
    plain, model = compiled(jit_compile=jit_compile), compiled(jit_compile=jit_compile)
    if where == "weights":
        spoiled = 0
        for one in (plain, model):
            kernel = one.get_layer("second").kernel
            kernel.assign(tf.tensor_scatter_nd_update(kernel.value, [[1, 2]], [value]))
    else:
        (x if where == "data" else y)[8 * spoiled + 3, 0] = value
    monitor = GradientMonitor(None, update_freq=1)
    losses = fit(plain, x=x, y=y).history["loss"]
    np.testing.assert_array_equal(fit(model, monitor, x=x, y=y).history["loss"], losses)
    for a, b in zip(plain.get_weights(), model.get_weights()):
        assert a.tobytes() == b.tobytes()

    assert [d.step for d in monitor.history] == [0, 1, 2, 3]
    # An infinite input to a tanh is as good as a large one, but for its own weights' gradient.
    bad = monitor.history[spoiled]
    assert bad.verdict == "nonfinite"
    assert {d.verdict for d in monitor.history[:spoiled]} <= {"healthy"}
    assert monitor.verdict == "nonfinite"
    sick = [layer for layer in bad.reading.layers if layer.nonfinite_count > 0]
    assert sick
    for layer in sick:
        if layer.nonfinite_count == layer.size:
            # Nothing is known of what no entry tells.
            for known in (layer.gradient_rms, layer.gradient_norm, layer.gradient_mean):
                assert math.isnan(known)
    if all(layer.nonfinite_count == layer.size for layer in bad.reading.layers):
        assert math.isnan(bad.components["weights"])


def hides_nan(x: Any) -> Any:
    """ReLU as some processors compute it: 0 of NaN, which others pass on."""
    return tf.where(x > 0, x, tf.zeros_like(x))


def hiding() -> Any:
    keras.utils.set_random_seed(0)
    layers = [L.Dense(8, activation=hides_nan, name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(1, name="head")])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("probe", ["auto", False])
def test_nan_in_weights_behind_finite_gradients(probe: Any) -> None:
    model = hiding()
    kernel = model.get_layer("first").kernel
    kernel.assign(tf.fill(kernel.shape, math.nan))
    monitor = GradientMonitor(None, update_freq=1, probe=probe)
    losses = fit(model, monitor).history["loss"]
    assert all(map(math.isfinite, losses))
    assert {d.reading.model.nonfinite_count for d in monitor.history} == {0.0}
    found = {(d.verdict, d.cause, d.blame) for d in monitor.history}
    assert found == {("nonfinite", "variables", ("first",))}
    assert monitor.verdict == "nonfinite"


def test_nan_in_weights_behind_finite_gradients_is_taken_back() -> None:
    x, y = data()
    # Only the gradient of the first kernel is NaN, and only in one batch.
    x[9] = math.nan
    plain, model = hiding(), hiding()
    losses = fit(plain, x=x, y=y).history["loss"]
    assert all(map(math.isfinite, losses))
    assert np.isnan(plain.get_weights()[0]).all()
    monitor = GradientMonitor(None, update_freq=1, auto_rollback=True)
    fit(model, monitor, x=x, y=y)
    assert [act.action for act in monitor.interventions] == ["roll_back"]
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


# Folders.


def test_any_file_system_that_tensorflow_knows(capsys: pytest.CaptureFixture[str]) -> None:
    log_dir = f"ram://{uuid.uuid4().hex}/logs"
    x, y = data()
    y[20] = np.nan
    monitor = GradientMonitor(log_dir, update_freq=1, auto_clip=True, auto_lr=True)
    model = compiled()
    fit(model, monitor, x=x, y=y)
    assert monitor.interventions
    assert read(log_dir) == monitor.history
    assert read_interventions(f"{log_dir}/gradients") == monitor.interventions
    assert tf.io.gfile.exists(f"{log_dir}/gradients/{NAME}")
    capsys.readouterr()
    assert main(["report", log_dir]) == 0
    assert "What was done:" in capsys.readouterr().out
    # And it is taken up there.
    again = GradientMonitor(log_dir, update_freq=1, auto_clip=True, auto_lr=True)
    fit(model, again)
    assert [d.step for d in again.history] == [d.step for d in read(log_dir)]
    assert len(again.history) == 8
    with pytest.raises(ValueError, match="a file stands there. Received: log_dir='ram://.*json'"):
        GradientMonitor(f"{log_dir}/gradients/{NAME}")


def test_the_address_of_a_bucket_is_passed_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def asks(path: str) -> bool:
        asked.append(path)
        raise tf.errors.FailedPreconditionError(None, None, "no network")

    monkeypatch.setattr(tf.io.gfile, "exists", asks)
    monkeypatch.setattr(tf.io.gfile, "makedirs", asks)
    monitor = GradientMonitor("gs://bucket/logs", update_freq=2)
    assert monitor.log_dir == "gs://bucket/logs"
    with pytest.warns(UserWarning, match="could not write to log_dir='gs://bucket/logs'"):
        fit(compiled(), monitor)
    assert len(monitor.history) == 2
    assert set(asked) <= {"gs://bucket/logs", "gs://bucket/logs/gradients"} | {
        f"gs://bucket/logs/gradients/{name}" for name in (NAME, "interventions.jsonl")
    }


def test_a_path_object(tmp_path: Path) -> None:
    monitor = GradientMonitor(tmp_path / "a b", update_freq=2)
    fit(compiled(), monitor)
    assert read(tmp_path / "a b") == monitor.history
    with pytest.raises(ValueError, match="turns :// into :/. Received: .*gs:/bucket.*as a string"):
        GradientMonitor(Path("gs://bucket/logs"))


def test_a_file_system_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="does not know the file system.*Received: log_dir='no://"):
        GradientMonitor("no://where")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
def test_a_folder_that_cannot_be_written_to() -> None:
    plain, model = compiled(), compiled()
    fit(plain)
    monitor = GradientMonitor("/proc/self/logs", update_freq=1, auto_clip=True)
    with pytest.warns(UserWarning, match="could not write to log_dir='/proc/self/logs'") as caught:
        fit(model, monitor)
    assert len(caught) == 1
    assert len(monitor.history) == 4
    assert_identical(plain.get_weights(), model.get_weights())
