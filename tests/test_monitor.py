"""The callback in real fits on scikit-learn's digits."""

from __future__ import annotations

import copy
import csv
import errno
import functools
import math
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_vanish import Diagnosis, GradientMonitor, read
from keras_vanish.capture.tensorflow import installation
from keras_vanish.diagnosis.progress import PATIENCE
from keras_vanish.logs.event_writer import EventWriter

L = keras.layers
Array = npt.NDArray[Any]


@functools.cache
def data(n: int = 64) -> tuple[Array, Array]:
    digits = load_digits()
    return digits.data[:n].astype("float32") / 16, digits.target[:n]


def mlp() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(12, activation="relu", name="first"),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


def compiled(model: Any = None, **options: Any) -> Any:
    model = model or mlp()
    options.setdefault("optimizer", keras.optimizers.SGD(0.05))
    model.compile(loss="sparse_categorical_crossentropy", **options)
    return model


def fit(
    model: Any, *callbacks: Any, batches: int = 8, epochs: int = 1, batch_size: int = 8
) -> dict[str, list[float]]:
    x, y = data(batches * batch_size)
    callbacks = list(callbacks)
    history = model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks)
    return history.history


def steps(monitor: GradientMonitor) -> list[int]:
    return [diagnosis.step for diagnosis in monitor.history]


# Which steps are recorded.


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("update_freq", "expected"),
    [
        (1, list(range(16))),
        ("batch", list(range(16))),
        (5, [0, 5, 10, 15]),
        (100, [0]),
        ("epoch", [7, 15]),
    ],
)
def test_update_freq(update_freq: int | str, expected: list[int]) -> None:
    monitor = GradientMonitor(None, update_freq=update_freq)
    fit(compiled(), monitor, epochs=2)
    assert steps(monitor) == expected


@pytest.mark.parametrize("eager", [True, False])
def test_a_partial_last_batch_is_recorded(eager: bool) -> None:
    x, y = data(20)
    monitor = GradientMonitor(None, update_freq=1)
    compiled(run_eagerly=eager).fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[monitor])
    assert steps(monitor) == list(range(6))


def generator(batches: int) -> Iterator[tuple[Array, Array]]:
    x, y = data(8)
    for _ in range(batches):
        yield x, y


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    ("update_freq", "expected"), [(1, list(range(6))), (4, [0, 4]), ("epoch", [0])]
)
def test_one_epoch_of_unknown_length(update_freq: int | str, expected: list[int]) -> None:
    monitor = GradientMonitor(None, update_freq=update_freq)
    compiled().fit(generator(6), shuffle=False, verbose=0, callbacks=[monitor])
    assert steps(monitor) == expected


def unknown_length() -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        lambda: generator(6),
        output_signature=(tf.TensorSpec((8, 64)), tf.TensorSpec((8,), tf.int64)),
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("eager", [True, False])
def test_epochs_of_unknown_length_are_read_at_their_end_once_it_is_known(eager: bool) -> None:
    monitor = GradientMonitor(None, update_freq="epoch")
    model = compiled(run_eagerly=eager)
    model.fit(unknown_length(), epochs=3, shuffle=False, verbose=0, callbacks=[monitor])
    # In graph mode Keras may count the attempt to read past the end as an update.
    assert steps(monitor) == [0, 11, 17] or (not eager and steps(monitor) == [0, 12, 19])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_end_of_an_epoch_is_no_step(jit_compile: bool) -> None:
    monitor = GradientMonitor(None, update_freq=1)
    model = compiled(jit_compile=jit_compile)
    model.fit(unknown_length(), epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
    assert len(monitor.history) == 12
    assert all(d.reading.model.gradient_rms > 0 for d in monitor.history)


@pytest.mark.smoke
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("update_freq", "expected"), [(1, list(range(12))), (3, [0, 3, 6, 9]), (8, [0, 8])]
)
def test_no_step_is_lost_where_several_run_in_one_call(
    update_freq: int, expected: list[int], jit_compile: bool
) -> None:
    monitor = GradientMonitor(None, update_freq=update_freq)
    fit(compiled(steps_per_execution=4, jit_compile=jit_compile), monitor, batches=12)
    assert steps(monitor) == expected


class Counting(L.Layer):
    """Counts how often it is traced, or called eagerly."""

    calls = 0

    def call(self, x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            self.calls += 1
        return x


class Drawing(Counting):
    def call(self, x: Any) -> Any:
        return super().call(x) + 0.01 * tf.random.normal([])


@pytest.mark.parametrize(
    ("counting", "options", "short", "update_freq", "traced"),
    [
        # A short run is one function, a long one has another for what is not recorded.
        (Counting, {}, 25, 5, 1),
        (Counting, {}, 24, 5, 2),
        (Counting, {"steps_per_execution": 2}, 24, 5, 2),
        # There is none that is not recorded.
        (Counting, {}, 24, 1, 1),
        # Each function would draw the same numbers again.
        (Drawing, {}, 24, 5, 1),
        # XLA would copy what is read.
        (Counting, {"jit_compile": True}, 25, 5, 2),
    ],
)
def test_a_long_run_goes_on_with_the_models_own_function(
    counting: type[Counting],
    options: dict[str, Any],
    short: int,
    update_freq: int,
    traced: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "SHORT_RUN", short)
    monitor = GradientMonitor(None, update_freq=update_freq, probe=False)
    layer = counting()
    head = L.Dense(10, activation="softmax")
    model = compiled(keras.Sequential([keras.Input((64,)), layer, head]), **options)
    layer.calls = 0
    fit(model, monitor, batches=12, epochs=2)
    assert layer.calls == traced
    assert steps(monitor) == list(range(0, 24, update_freq))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_copy_knows_how_long_an_epoch_is() -> None:
    def read_steps(copied: Callable[[Any], Any]) -> list[int]:
        monitor = GradientMonitor(None, update_freq="epoch", probe=False)
        model = compiled()
        for _ in range(2):
            model.fit(unknown_length(), shuffle=False, verbose=0, callbacks=[monitor])
            monitor = copied(monitor)
        return steps(monitor)

    first, second = read_steps(lambda monitor: monitor)
    # The length of the first epoch is not known: its first step is read, and later the last one.
    assert first == 0
    assert second > 9
    for copied in (copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))):
        assert read_steps(copied) == [first, second]


def test_what_is_set_before_the_first_fit_counts(tmp_path: Path) -> None:
    monitor = GradientMonitor(tmp_path / "old", update_freq=1, probe=False)
    monitor.log_dir, monitor.histograms = str(tmp_path / "new"), False
    monitor.history, monitor.interventions = [], []
    fit(compiled(), monitor)
    assert monitor.history == read(tmp_path / "new")
    assert not (tmp_path / "old").exists()
    (path,) = (tmp_path / "new" / "gradients").glob("*tfevents*")
    assert b"/kernel" not in path.read_bytes()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_fit_of_unknown_length_may_be_long() -> None:
    layer, head = Counting(), L.Dense(10, activation="softmax")
    model = compiled(keras.Sequential([keras.Input((64,)), layer, head]))
    layer.calls = 0
    monitor = GradientMonitor(None, update_freq=5, probe=False)
    model.fit(unknown_length(), shuffle=False, verbose=0, callbacks=[monitor])
    assert layer.calls == 2


def test_what_a_callback_sets_later_is_as_unseen_as_without_a_monitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Keras sees it when it traces the step, which it does once: so must the second function be.
    monkeypatch.setattr(installation, "SHORT_RUN", 2)

    class Unfreeze(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.get_layer("first").trainable = True

    weights = []
    for monitors in ([], [GradientMonitor(None, update_freq=100)]):
        model = mlp()
        model.get_layer("first").trainable = False
        fit(compiled(model), *monitors, Unfreeze(), epochs=2)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_array_equal(a, b)


# Keras 3.4 says so, with a monitor or without.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    ("update_freq", "expected"), [(1, list(range(10))), (3, [0, 3, 6, 9]), ("epoch", [8])]
)
def test_the_last_call_of_an_epoch_may_run_fewer(
    update_freq: int | str, expected: list[int]
) -> None:
    monitor = GradientMonitor(None, update_freq=update_freq)
    fit(compiled(steps_per_execution=4), monitor, batches=10)
    assert steps(monitor) == expected


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=pytest.mark.soak), "eager"])
def test_with_accumulation_steps_are_real_updates_and_gradients_their_mean(mode: str) -> None:
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=4)
    model = compiled(optimizer=optimizer, run_eagerly=mode == "eager", jit_compile=mode == "xla")
    x, y = data(64)
    with tf.GradientTape() as tape:  # Of equal batches, the mean gradient is that of all.
        loss = model.compute_loss(x=x[:32], y=y[:32], y_pred=model(x[:32], training=True))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    norm = float(tf.linalg.global_norm(gradients))
    before = model.layers[0].kernel.numpy()
    kernels = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: kernels.append(model.layers[0].kernel.numpy())
    )
    monitor = GradientMonitor(None, update_freq=1)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor, keep])
    assert steps(monitor) == [0, 1]
    reading = monitor.history[0].reading
    assert reading.model.gradient_norm == pytest.approx(norm, rel=1e-4)
    np.testing.assert_array_equal(kernels[3], before)
    assert reading.layers[0].update_rms > 0


@pytest.mark.parametrize(("update_freq", "expected"), [(2, [0, 2]), (3, [0, 3]), ("epoch", [1, 3])])
def test_cadence_with_accumulation(update_freq: int | str, expected: list[int]) -> None:
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=4)
    monitor = GradientMonitor(None, update_freq=update_freq)
    fit(compiled(optimizer=optimizer), monitor, epochs=2)
    assert steps(monitor) == expected


def test_the_step_axis_goes_on_over_fits_and_compilations(tmp_path: Path) -> None:
    model = compiled()
    monitor = GradientMonitor(tmp_path, update_freq=3)
    fit(model, monitor)
    assert steps(monitor) == [0, 3, 6]
    fit(model, monitor)
    assert steps(monitor) == [0, 3, 6, 8, 11, 14]
    fit(model)  # Updates that no monitor saw count too.
    fit(model, monitor)
    assert steps(monitor)[6:] == [24, 27, 30]
    compiled(model)
    fit(model, monitor)
    assert len(monitor.history) == 12
    assert steps(monitor) == sorted(set(steps(monitor)))
    assert steps(monitor)[9:] == [31, 34, 37]
    other = compiled()
    fit(other, monitor, batches=1)
    assert steps(monitor)[12:] == [38]
    assert [d.step for d in read(tmp_path)] == steps(monitor)


def test_one_model_with_several_monitors_in_turn() -> None:
    model = compiled()
    first, second = (GradientMonitor(None, update_freq=4) for _ in range(2))
    fit(model, first)
    fit(model, second)
    fit(model, first)
    assert steps(first) == [0, 4, 16, 20]
    assert steps(second) == [8, 12]


# Errors before the first step.


@pytest.mark.smoke
@pytest.mark.parametrize("update_freq", [0, -1, 1.5, True, "weekly", None])
def test_a_wrong_update_freq(update_freq: Any) -> None:
    with pytest.raises(ValueError, match="update_freq must be a whole number") as caught:
        GradientMonitor(None, update_freq=update_freq)
    assert f"Received: update_freq={update_freq!r}." in str(caught.value)


@pytest.mark.smoke
def test_a_log_dir_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "logs"
    file.write_text("mine")
    with pytest.raises(ValueError, match="log_dir must be a directory") as caught:
        GradientMonitor(file)
    assert f"Received: log_dir={os.fspath(file)!r}. Remove the file" in str(caught.value)
    assert file.read_text() == "mine"


def test_nothing_is_written_before_the_first_recorded_step(tmp_path: Path) -> None:
    GradientMonitor(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


@pytest.mark.smoke
def test_an_on_diagnosis_that_cannot_be_called() -> None:
    with pytest.raises(ValueError, match="Received: on_diagnosis='print'"):
        GradientMonitor(None, on_diagnosis="print")  # type: ignore[arg-type]


@pytest.mark.smoke
def test_a_model_that_is_not_compiled() -> None:
    model = mlp()
    with pytest.raises(RuntimeError, match="needs a compiled model") as caught:
        GradientMonitor(None).set_model(model)
    assert f"Received: {model.name!r} without an optimizer. Call model.compile" in str(caught.value)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_model_without_trainable_weights_warns_before_the_first_step() -> None:
    model = mlp()
    model.trainable = False
    compiled(model)
    begun: list[int] = []
    first = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(1))
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.warns(UserWarning, match="nothing to show") as caught:
        monitor.set_model(model)
    assert not begun
    assert f"Received: {model.name!r}. Set layer.trainable = True before compile" in str(
        caught[0].message
    )
    with pytest.warns(UserWarning, match="nothing to show|saw no gradient"):
        fit(model, first, monitor)
    assert monitor.history == []


@pytest.mark.smoke
@pytest.mark.parametrize("probe", ["yes", None, 2, "True"])
def test_a_wrong_probe(probe: Any) -> None:
    with pytest.raises(ValueError, match='probe must be "auto", True or False') as caught:
        GradientMonitor(None, probe=probe)
    assert f"Received: probe={probe!r}." in str(caught.value)


def test_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Received: Keras backend 'jax'"):
        GradientMonitor(None)


def test_a_train_step_that_applies_nothing_is_one_warning() -> None:
    class Idle(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            x, y = batch
            return {"loss": self.compute_loss(x=x, y=y, y_pred=self(x))}

    model = compiled(Idle(mlp().layers))
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.warns(UserWarning, match="saw no gradient") as caught:
        fit(model, monitor, epochs=3)
    ours = [w for w in caught if "GradientMonitor" in str(w.message)]
    assert len(ours) == 1
    assert "Received: Idle, SGD." in str(ours[0].message)
    assert monitor.history == []


# What goes wrong while training goes on.


def test_an_exception_in_on_diagnosis_is_one_warning() -> None:
    seen: list[int] = []

    def fail(diagnosis: Diagnosis) -> None:
        seen.append(diagnosis.step)
        raise ZeroDivisionError("alert")

    monitor = GradientMonitor(None, update_freq=1, on_diagnosis=fail)
    model = compiled()
    with pytest.warns(UserWarning, match="on_diagnosis raised ZeroDivisionError") as caught:
        losses = fit(model, monitor, epochs=2)["loss"]
    assert len([w for w in caught if "on_diagnosis" in str(w.message)]) == 1
    assert seen == list(range(16))
    assert steps(monitor) == seen
    np.testing.assert_array_equal(losses, fit(compiled(), epochs=2)["loss"])


def test_a_keyboard_interrupt_in_on_diagnosis_ends_the_fit() -> None:
    def stop(diagnosis: Diagnosis) -> None:
        raise KeyboardInterrupt

    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(model, GradientMonitor(None, update_freq=1, on_diagnosis=stop))
    assert "apply" not in vars(model.optimizer)
    assert len(fit(model)["loss"]) == 1


def remove_folder(log_dir: Path) -> None:
    shutil.rmtree(log_dir)


def folder_to_file(log_dir: Path) -> None:
    shutil.rmtree(log_dir)
    log_dir.write_text("in the way")


@pytest.mark.parametrize("harm", [remove_folder, folder_to_file])
def test_a_log_dir_that_disappears_is_one_warning(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    log_dir = tmp_path / "logs"
    at_step = 3

    def on_diagnosis(diagnosis: Diagnosis) -> None:
        if diagnosis.step == at_step:
            harm(log_dir)

    monitor = GradientMonitor(log_dir, update_freq=1, on_diagnosis=on_diagnosis)
    with pytest.warns(UserWarning, match="could not write") as caught:
        fit(compiled(), monitor)
    ours = [str(w.message) for w in caught if "GradientMonitor" in str(w.message)]
    assert len(ours) == 1
    assert f"log_dir={os.fspath(log_dir)!r}" in ours[0]
    assert "Training goes on; readings stay in monitor.history." in ours[0]
    assert steps(monitor) == list(range(8))
    if harm is remove_folder:  # Step 4 is lost, and a new file begins.
        assert [d.step for d in read(log_dir)] == [5, 6, 7]


def test_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = EventWriter.write

    def full(self: EventWriter, diagnosis: Diagnosis, *rest: Any) -> None:
        if 2 <= diagnosis.step < 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, diagnosis, *rest)

    monkeypatch.setattr(EventWriter, "write", full)
    monitor = GradientMonitor(tmp_path, update_freq=1)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        fit(compiled(), monitor)
    assert len([w for w in caught if "GradientMonitor" in str(w.message)]) == 1
    assert steps(monitor) == list(range(8))
    assert [d.step for d in read(tmp_path)] == [0, 1, 6, 7]


def test_each_fit_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[EventWriter] = []
    close = EventWriter.close
    monkeypatch.setattr(EventWriter, "close", lambda self: (closed.append(self), close(self))[1])
    model = compiled()
    monitor = GradientMonitor(tmp_path, update_freq=1)
    fit(model, monitor, batches=2)
    assert len(set(map(id, closed))) == 1
    fit(model, monitor, batches=2)
    assert len(set(map(id, closed))) == 2
    assert [d.step for d in read(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.smoke
def test_files_hold_what_the_history_holds(tmp_path: Path) -> None:
    monitor = GradientMonitor(tmp_path, update_freq=2)
    fit(compiled(), monitor)
    assert read(tmp_path) == monitor.history
    assert "first" in monitor.summary(width=100)


def test_without_a_log_dir_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(compiled(), GradientMonitor(None, update_freq=1))
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, signal, sys
    import keras, numpy as np
    from keras_vanish import GradientMonitor

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile("sgd", "mse")

    def kill(diagnosis):
        if diagnosis.step == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    monitor = GradientMonitor(sys.argv[1], update_freq=5, on_diagnosis=kill)
    x = np.ones((1000, 4), "float32")
    model.fit(x, x[:, :2], batch_size=10, verbose=0, callbacks=[monitor])
"""


def test_a_killed_process_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.fspath(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), os.fspath(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert [d.step for d in read(tmp_path)] == [0, 5, 10, 15, 20]


# The probe.


def by_pixels() -> Any:
    """A model that reads the 64 pixels of a digit one after another."""
    keras.utils.set_random_seed(0)
    block = keras.Sequential(
        [L.Dense(12, activation="tanh", name="inner"), L.ReLU(name="relu")], name="block"
    )
    return keras.Sequential(
        [
            keras.Input((64,)),
            L.Reshape((64, 1), name="pixels"),
            L.LSTM(6, name="lstm"),
            block,
            L.Dropout(0.1, name="drop"),
            L.Dense(10, activation="softmax", name="head"),
        ]
    )


@pytest.mark.smoke
def test_the_probe_sees_activations_and_time_steps(tmp_path: Path) -> None:
    model = compiled(by_pixels())
    monitor = GradientMonitor(tmp_path, update_freq=4)
    fit(model, monitor)
    assert steps(monitor) == [0, 4]
    summary: list[str] = []
    model.summary(print_fn=lambda line, **_: summary.append(line), expand_nested=True)
    for diagnosis in monitor.history:
        reading = diagnosis.reading
        names = [activation.name for activation in reading.activations]
        assert names == ["lstm", "block/inner", "block/relu", "head"]
        assert all(name.rpartition("/")[2] in "".join(summary) for name in names)
        assert [activation.size for activation in reading.activations] == [6, 12, 12, 10]
        assert all(activation.gradient_rms > 0 for activation in reading.activations)
        assert [a.name for a in reading.activations if not math.isnan(a.dead_fraction)] == [
            "block/relu"
        ]
        assert list(reading.timesteps) == ["lstm"]
        through = reading.timesteps["lstm"]
        assert len(through.rms) == 64
        assert all(value > 0 for value in through.rms)
        assert 0 < through.horizon <= 63
        assert reading.probed is not None
        assert math.isfinite(reading.probed.loss)
        known = {n for n, score in diagnosis.components.items() if not math.isnan(score)}
        assert {"weights", "activations", "dead", "saturated", "growth", "update"} == known
    assert "Horizon of lstm: the gradient reaches" in monitor.summary(width=120)
    assert read(tmp_path) == monitor.history


def test_the_loss_and_the_gradients_are_those_of_the_recorded_step() -> None:
    x, y = data(16)
    model = compiled()
    with tf.GradientTape() as tape:
        hidden = model.layers[0](x)
        tape.watch(hidden)
        loss = model.compute_loss(x=x, y=y, y_pred=model.layers[1](hidden))
    gradient = tape.gradient(loss, hidden).numpy()
    monitor = GradientMonitor(None, update_freq=1)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor])
    probed = monitor.history[0].reading.probed
    assert probed is not None
    assert probed.loss == pytest.approx(float(loss), rel=1e-5)
    first = monitor.history[0].reading.activations[0]
    assert first.gradient_rms == pytest.approx(np.sqrt(np.mean(gradient**2)), rel=1e-4)
    assert first.output_rms == pytest.approx(np.sqrt(np.mean(hidden.numpy() ** 2)), rel=1e-4)


@pytest.mark.smoke
@pytest.mark.parametrize(("probe", "there"), [("auto", True), (True, True), (False, False)])
def test_the_probe_can_be_left_out(probe: bool | str, there: bool) -> None:
    monitor = GradientMonitor(None, update_freq=4, probe=probe)
    fit(compiled(), monitor)
    assert steps(monitor) == [0, 4]
    for diagnosis in monitor.history:
        assert (diagnosis.reading.probed is not None) == there
        assert math.isnan(diagnosis.components["activations"]) != there
        assert not math.isnan(diagnosis.components["weights"])
    assert ("Components" in monitor.summary(width=120)) == there


class Drawing(L.Layer):
    """Draws from TensorFlow's own generator, which the probe would move on."""

    def call(self, x: Any) -> Any:
        return x + 0 * tf.random.normal([])


@pytest.mark.parametrize("eager", [True, False])
def test_a_model_that_cannot_be_probed_is_one_warning(eager: bool, tmp_path: Path) -> None:
    model = compiled(keras.Sequential([*mlp().layers, Drawing()]), run_eagerly=eager)
    monitor = GradientMonitor(tmp_path, update_freq=2)
    with pytest.warns(UserWarning, match="cannot probe this model") as caught:
        fit(model, monitor, epochs=2)
    ours = [str(w.message) for w in caught if "GradientMonitor" in str(w.message)]
    assert len(ours) == 1
    assert "shows the gradients of its weights only" in ours[0]
    assert "Set probe=False" in ours[0]
    assert steps(monitor) == list(range(0, 16, 2))
    assert all(d.reading.probed is None for d in monitor.history)
    assert all(d.reading.model.gradient_rms > 0 for d in monitor.history)
    assert read(tmp_path) == monitor.history


def test_a_second_fit_continues_the_course(tmp_path: Path) -> None:
    model = compiled(by_pixels(), optimizer=keras.optimizers.SGD(0.0))
    monitor = GradientMonitor(tmp_path, update_freq=1)
    early = PATIENCE - 1
    fit(model, monitor, batches=early)
    assert [math.isnan(d.components["time"]) for d in monitor.history] == [True] * early
    fit(model, monitor, batches=2)
    unknown = [math.isnan(d.components["time"]) for d in monitor.history]
    assert unknown == [True] * early + [False] * 2
    found = read(tmp_path)
    assert found == monitor.history
    assert [(d.components, d.cause) for d in found] == [
        (d.components, d.cause) for d in monitor.history
    ]


def test_a_custom_loop_is_not_probed() -> None:
    model = compiled()
    monitor = GradientMonitor(None, update_freq=1, probe=True)
    with monitor.watch(model):
        apply_ones(model, model.optimizer)
        monitor.step()
    assert steps(monitor) == [0]
    assert monitor.history[0].reading.probed is None


# Logs for other callbacks.


@pytest.mark.smoke
def test_scores_reach_history_csv_and_early_stopping(tmp_path: Path) -> None:
    monitor = GradientMonitor(None, update_freq=2)
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    stop = keras.callbacks.EarlyStopping(monitor="vanishing_score", mode="max", patience=1)
    stop.min_delta = 2.0  # No score improves on another by that much.
    history = fit(compiled(), monitor, logger, stop, epochs=6)
    assert stop.stopped_epoch == 1
    assert len(history["vanishing_score"]) == len(history["exploding_score"]) == 2
    assert history["vanishing_score"][-1] == monitor.history[-1].vanishing_score
    assert history["exploding_score"][0] == monitor.history[3].exploding_score
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert float(rows[1]["vanishing_score"]) == pytest.approx(monitor.history[-1].vanishing_score)


def test_validation_does_not_disturb(tmp_path: Path) -> None:
    monitor = GradientMonitor(tmp_path, update_freq="epoch")
    x, y = data(64)
    history = compiled().fit(
        x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x, y), callbacks=[monitor]
    )
    assert steps(monitor) == [7, 15]
    assert {"val_loss", "vanishing_score"} <= set(history.history)


def test_callbacks_stay_asynchronous() -> None:
    monitor = GradientMonitor(None)
    callbacks = keras.callbacks.CallbackList([monitor], model=compiled())
    if hasattr(callbacks, "_async_train"):
        thread_safe = keras.callbacks.CallbackList([keras.callbacks.Callback()])
        assert callbacks._async_train == thread_safe._async_train
    for hook in ("on_batch_end", "on_train_batch_end", "on_batch_begin"):
        assert getattr(type(monitor), hook) is getattr(keras.callbacks.Callback, hook)


# Custom loops.


@pytest.mark.smoke
@pytest.mark.parametrize("eager", [True, False])
def test_a_custom_loop_has_the_readings_of_fit(eager: bool, tmp_path: Path) -> None:
    in_fit = GradientMonitor(None, update_freq=3)
    x, y = data(64)
    compiled().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[in_fit])

    model, optimizer = mlp(), keras.optimizers.SGD(0.05)
    loss_function = keras.losses.SparseCategoricalCrossentropy()

    def train_step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    if not eager:
        train_step = tf.function(train_step)
    monitor = GradientMonitor(tmp_path, update_freq=3)
    with monitor.watch(model, optimizer) as watching:
        assert watching is monitor
        for i in range(8):
            train_step(tf.constant(x[8 * i : 8 * i + 8]), tf.constant(y[8 * i : 8 * i + 8]))
            monitor.step()
    assert steps(monitor) == steps(in_fit) == [0, 3, 6]
    assert "apply" not in vars(optimizer)
    for a, b in zip(monitor.history, in_fit.history):
        assert a.reading.names == b.reading.names
        np.testing.assert_allclose(a.reading.table, b.reading.table, rtol=1e-4, atol=1e-7)
    assert read(tmp_path) == monitor.history


def apply_ones(model: Any, optimizer: Any) -> None:
    variables = model.trainable_variables
    optimizer.apply_gradients([(tf.ones_like(v.value), v) for v in variables])


def test_watch_takes_the_optimizer_of_a_compiled_model() -> None:
    model = compiled()
    monitor = GradientMonitor(None, update_freq="batch")
    for _ in range(2):
        with monitor.watch(model):
            for _ in range(2):
                apply_ones(model, model.optimizer)
                monitor.step()
    assert steps(monitor) == [0, 1, 2, 3]


def test_an_exception_in_a_custom_loop_removes_the_tap() -> None:
    model = compiled()

    def loop() -> None:
        with GradientMonitor(None).watch(model):
            apply_ones(model, model.optimizer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert "apply" not in vars(model.optimizer)


def test_a_function_that_was_traced_before_the_block_is_a_warning() -> None:
    model, optimizer = mlp(), keras.optimizers.SGD(0.05)
    step = tf.function(lambda: apply_ones(model, optimizer))
    step()
    monitor = GradientMonitor(None, update_freq=1)

    def loop() -> None:
        with monitor.watch(model, optimizer):
            step()
            monitor.step()

    with pytest.warns(UserWarning, match="was traced before it. Received: SGD."):
        loop()
    assert monitor.history == []


def test_a_function_that_is_traced_again_within_the_block_is_seen() -> None:
    model, optimizer = mlp(), keras.optimizers.SGD(0.05)

    @tf.function
    def step(x: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x)))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    step(tf.ones([2, 64]))
    monitor = GradientMonitor(None, update_freq=1)
    with monitor.watch(model, optimizer):
        step(tf.ones([3, 64]))
        monitor.step()
    assert steps(monitor) == [1]


def test_watch_without_an_optimizer() -> None:
    model = mlp()
    with (
        pytest.raises(ValueError, match="watch needs the optimizer") as caught,
        GradientMonitor(None).watch(model),
    ):
        pass
    assert f"optimizer=None and a model {model.name!r} that is not compiled" in str(caught.value)


def test_watch_by_epoch() -> None:
    with (
        pytest.raises(ValueError, match='Received: update_freq="epoch"'),
        GradientMonitor(None, update_freq="epoch").watch(compiled()),
    ):
        pass


def test_step_outside_of_watch() -> None:
    monitor = GradientMonitor(None)
    with pytest.raises(RuntimeError, match="outside of a `with monitor.watch"):
        monitor.step()
    model = compiled()
    with monitor.watch(model):
        apply_ones(model, model.optimizer)
        monitor.step()
    with pytest.raises(RuntimeError, match="outside of a `with monitor.watch"):
        monitor.step()


# Verdicts.


def deep(activation: str, normalised: bool) -> Any:
    keras.utils.set_random_seed(0)
    layers: list[Any] = [keras.Input((64,))]
    for i in range(12):
        initializer = "he_normal" if activation == "relu" else "glorot_uniform"
        layers.append(L.Dense(32, kernel_initializer=initializer, name=f"hidden_{i}"))
        if normalised:
            layers.append(L.BatchNormalization(name=f"norm_{i}"))
        layers.append(L.Activation(activation))
    return keras.Sequential([*layers, L.Dense(10, activation="softmax", name="head")])


@pytest.mark.smoke
def test_a_deep_sigmoid_stack_vanishes() -> None:
    monitor = GradientMonitor(None, update_freq=4)
    fit(compiled(deep("sigmoid", False)), monitor, batches=12, batch_size=32)
    assert {d.verdict for d in monitor.history} == {"vanishing"}
    assert monitor.verdict == "vanishing"
    last = monitor.history[-1]
    assert last.vanishing_score > 0.8
    assert last.blame[:4] == ("hidden_0", "hidden_1", "hidden_2", "hidden_3")
    assert not {"hidden_10", "hidden_11", "head"} & set(last.blame)
    assert [layer.name for layer in last.reading.layers][:2] == ["hidden_0", "hidden_1"]


def test_a_deep_normalised_relu_stack_is_healthy() -> None:
    monitor = GradientMonitor(None, update_freq=4)
    fit(compiled(deep("relu", True)), monitor, batches=12, batch_size=32)
    assert {d.verdict for d in monitor.history} == {"healthy"}
    assert monitor.verdict == "healthy"
    assert monitor.history[-1].blame == ()
    assert monitor.history[-1].vanishing_score < 0.35


def test_data_with_nan_is_nonfinite() -> None:
    x, y = data(32)
    x = x.copy()
    x[20, 5] = math.nan
    monitor = GradientMonitor(None, update_freq=1)
    compiled().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    assert [d.verdict for d in monitor.history][:3] == [*["healthy"] * 2, "nonfinite"]
    assert monitor.verdict == "nonfinite"
    assert (monitor.history[2].cause, monitor.history[2].blame) == ("output", ("first",))
