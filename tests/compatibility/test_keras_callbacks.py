"""What Keras's own tests ask of its callbacks and of `fit`, with and without a monitor.

Each case trains twice from the same seed. History (but for the two scores), files and weights
must be the same.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from digit_images import digits

from keras_vanish import GradientMonitor

L = keras.layers
C = keras.callbacks

#: What `make test` runs; `make soak` runs the others.
QUICK = {"together", "train_step of one's own"}


def cases(names: Iterable[str]) -> list[Any]:
    soak = pytest.mark.soak
    return [pytest.param(name, marks=() if name in QUICK else soak, id=name) for name in names]


def mlp(**options: Any) -> Any:
    model = keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(8, activation="relu"),
            L.BatchNormalization(),
            L.Dense(10, activation="softmax"),
        ]
    )
    options = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **options}
    model.compile(options.pop("optimizer", None) or keras.optimizers.SGD(0.1), **options)
    return model


def monitor_or_not(monitored: bool) -> list[Any]:
    return [GradientMonitor(None, update_freq=2)] if monitored else []


# Callbacks.


def every_callback(folder: Path) -> list[Any]:
    return [
        *CALLBACKS["csv logger"](folder),
        *CALLBACKS["model checkpoint"](folder),
        *CALLBACKS["learning rate schedule"](folder),
        *CALLBACKS["early stopping"](folder),
        *CALLBACKS["tensorboard"](folder),
        *CALLBACKS["backup"](folder),
        C.TerminateOnNaN(),
    ]


def lambdas(folder: Path) -> list[Any]:
    file = folder / "calls.txt"

    def note(name: str) -> Callable[..., None]:
        def noting(*args: Any, **kwargs: Any) -> None:
            with file.open("a") as out:
                out.write(f"{name} {args[:-1]} {sorted(args[-1] or {})}\n")

        return noting

    hooks = ("on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end")
    return [C.LambdaCallback(**{hook: note(hook) for hook in hooks})]


CALLBACKS: dict[str, Callable[[Path], list[Any]]] = {
    "csv logger": lambda folder: [C.CSVLogger(folder / "log.csv", separator=";")],
    "early stopping": lambda folder: [
        C.EarlyStopping("val_loss", patience=1, min_delta=10.0, restore_best_weights=True)
    ],
    "lambdas": lambdas,
    "learning rate schedule": lambda folder: [C.LearningRateScheduler(lambda e, lr: lr * 0.5)],
    "model checkpoint": lambda folder: [
        C.ModelCheckpoint(
            folder / "{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=3
        ),
        C.ModelCheckpoint(
            folder / "best.weights.h5", "val_loss", save_best_only=True, save_weights_only=True
        ),
    ],
    "reduced rate": lambda folder: [
        C.ReduceLROnPlateau("val_loss", patience=1, min_delta=10.0, factor=0.1)
    ],
    "swapped averages": lambda folder: [C.SwapEMAWeights(swap_on_epoch=True)],
    "tensorboard": lambda folder: [C.TensorBoard(folder / "logs", histogram_freq=1, update_freq=2)],
    "terminated on nan": lambda folder: [C.TerminateOnNaN()],
    "backup": lambda folder: [
        C.BackupAndRestore(folder / "backup", save_freq=3, delete_checkpoint=False)
    ],
    "together": every_callback,
}


WRITING = {"csv logger", "lambdas", "model checkpoint", "tensorboard", "backup", "together"}


def written(folder: Path) -> Iterator[tuple[str, Any]]:
    """The files of a run and, where nothing in them depends on the time, what they hold."""
    for file in sorted(folder.rglob("*")):
        name = re.sub(r"tfevents\..*", "tfevents", file.relative_to(folder).as_posix())
        if file.suffix == ".h5":
            found: dict[str, Any] = {}
            with h5py.File(file) as opened:
                opened.visititems(
                    lambda key, item, found=found: (
                        found.update({key: item[()].tolist()})
                        if isinstance(item, h5py.Dataset)
                        else None
                    )
                )
            yield name, found
        elif file.suffix in (".csv", ".txt", ".json"):
            yield name, file.read_text()
        elif "tfevents" in file.name:
            events = tf.data.TFRecordDataset(str(file)).map(lambda record: record)
            yield name, len(list(events))
        else:
            yield name, None


# Keras converts its own variables in a way that NumPy wants changed.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("name", cases(CALLBACKS))
def test_a_callback_of_keras(name: str, run_once: Any, check_same: Any, tmp_path: Path) -> None:
    x, y = digits(64)
    if name == "terminated on nan":
        x = x.copy()
        x[40] = math.nan
    averaging = {"optimizer": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)}
    options = averaging if name == "swapped averages" else {"optimizer": lambda: None}
    runs = []
    for monitored in (False, True):
        folder = tmp_path / str(monitored)
        folder.mkdir()

        def fit(model: Any, _: Any, folder: Path = folder, monitored: bool = monitored) -> Any:
            callbacks = [*CALLBACKS[name](folder), *monitor_or_not(monitored)]
            return model.fit(
                x,
                y,
                batch_size=16,
                epochs=3,
                shuffle=False,
                verbose=0,
                validation_data=(x[:16], y[:16]),
                callbacks=callbacks,
            )

        runs.append(run_once(lambda: mlp(optimizer=options["optimizer"]()), fit))
    check_same(*runs)
    files = list(written(tmp_path / "False"))
    assert bool(files) == (name in WRITING)
    assert files == list(written(tmp_path / "True"))
    epochs = len(runs[0].logs["loss"])
    assert epochs == {"early stopping": 2, "together": 2, "terminated on nan": 1}.get(name, 3)


def test_the_progress_bar_shows_the_scores_and_nothing_else(run_once: Any) -> None:
    x, y = digits(64)
    printed = []
    for monitored in (False, True):
        out = io.StringIO()

        def fit(model: Any, _: Any, monitored: bool = monitored) -> Any:
            callbacks = monitor_or_not(monitored)
            return model.fit(x, y, shuffle=False, epochs=2, verbose=2, callbacks=callbacks)

        with contextlib.redirect_stdout(out):
            run_once(mlp, fit)
        printed.append(re.sub(r"\d+m?s(/step)?", "", out.getvalue()))
    plain, ours = printed
    assert ours.count("vanishing_score: ") == ours.count("exploding_score: ") == 2
    assert re.sub(r" - (vanishing|exploding)_score: \S+", "", ours) == plain


# What `fit` is given, and what a model does in it.


class Batches(keras.utils.PyDataset):
    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        return self.x[16 * i : 16 * i + 16], self.y[16 * i : 16 * i + 16]


def from_generator(model: Any, x: Any, y: Any, **options: Any) -> Any:
    def batches() -> Iterator[Any]:
        while True:
            yield from (Batches(x, y)[i] for i in range(4))

    return model.fit(batches(), steps_per_epoch=4, epochs=2, shuffle=False, verbose=0, **options)


def from_arrays(model: Any, x: Any, y: Any, **options: Any) -> Any:
    return model.fit(x, y, **{"batch_size": 16, "epochs": 2, "verbose": 0, **options})


def from_dataset(model: Any, x: Any, y: Any, **options: Any) -> Any:
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    return model.fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0, **options)


def around_single_batches(model: Any, x: Any, y: Any, **options: Any) -> Any:
    from_arrays(model, x, y, **options)
    model.train_on_batch(x[:16], y[:16])
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    return from_arrays(model, x, y, **options)


def compiled_twice(model: Any, x: Any, y: Any, **options: Any) -> Any:
    from_arrays(model, x, y, **options)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return from_arrays(model, x, y, **options)


def stopped(model: Any, x: Any, y: Any, callbacks: list[Any]) -> Any:
    def stop(batch: int, logs: Any) -> None:
        model.stop_training = batch == 2

    stopping = C.LambdaCallback(on_train_batch_end=stop)
    return from_arrays(model, x, y, callbacks=[stopping, *callbacks])


class OwnStep(keras.Model):
    """Trains with a tape of its own, and keeps a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = L.Dense(8, activation="relu")
        self.head = L.Dense(10, activation="softmax")
        self.seen = keras.metrics.Mean("seen")

    def call(self, x: Any) -> Any:
        return self.head(self.inner(x))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        self.seen.update_state(2 * loss)
        return {"seen": self.seen.result()}


class Penalised(L.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(1e-2 * keras.ops.mean(keras.ops.square(x)))
        return x


def own_step() -> Any:
    model = OwnStep()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def with_add_loss() -> Any:
    model = keras.Sequential([keras.Input((64,)), L.Dense(8), Penalised(), L.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def with_outputs_in_a_dict() -> Any:
    inputs = keras.Input((64,))
    hidden = L.Dense(8, activation="relu")(inputs)
    outputs = {
        "class": L.Dense(10, activation="softmax", name="class")(hidden),
        "copy": {"image": L.Dense(64, name="copy")(hidden)},
    }
    model = keras.Model(inputs, outputs)
    losses = {"class": "sparse_categorical_crossentropy", "copy": {"image": "mse"}}
    model.compile("sgd", losses)
    return model


def in_a_dict(model: Any, x: Any, y: Any, **options: Any) -> Any:
    return from_arrays(model, x, {"class": y, "copy": {"image": x}}, **options)


def masked() -> Any:
    model = keras.Sequential(
        [
            keras.Input((16,)),
            L.Embedding(17, 4, mask_zero=True),
            L.LSTM(4),
            L.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return model


def by_numbers(model: Any, x: Any, y: Any, **options: Any) -> Any:
    return from_arrays(model, (16 * x[:, :16]).astype("int32"), y, **options)


def with_own_loss_and_metric() -> Any:
    def loss(y: Any, p: Any) -> Any:
        return keras.ops.mean(keras.ops.square(keras.ops.one_hot(y, 10) - p))

    def top(y: Any, p: Any) -> Any:
        return keras.ops.max(p, -1)

    return mlp(loss=loss, metrics=[top, keras.metrics.SparseTopKCategoricalAccuracy(3)])


Fit = Callable[..., Any]

FITS: dict[str, tuple[Callable[[], Any], Fit]] = {
    "dataset": (mlp, from_dataset),
    "generator": (mlp, from_generator),
    "py dataset": (mlp, lambda m, x, y, **o: m.fit(Batches(x, y), epochs=2, verbose=0, **o)),
    "validation split": (mlp, lambda *a, **o: from_arrays(*a, validation_split=0.25, **o)),
    "class weights": (
        mlp,
        lambda *a, **o: from_arrays(*a, class_weight={i: 1 + i / 9 for i in range(10)}, **o),
    ),
    "sample weights": (
        lambda: mlp(weighted_metrics=["accuracy"]),
        lambda *a, **o: from_arrays(*a, sample_weight=np.linspace(0, 2, 64), **o),
    ),
    "masks": (masked, by_numbers),
    "steps per epoch": (mlp, lambda *a, **o: from_arrays(*a, steps_per_epoch=2, **o)),
    "own loss and metric": (with_own_loss_and_metric, from_arrays),
    "train_step of one's own": (own_step, from_arrays),
    "add_loss": (with_add_loss, from_arrays),
    "outputs in a dict": (with_outputs_in_a_dict, in_a_dict),
    "stopped": (mlp, stopped),
    "single batches in between": (mlp, around_single_batches),
    "compiled twice": (mlp, compiled_twice),
}


@pytest.mark.parametrize("name", cases(FITS))
def test_a_fit_as_keras_tests_it(name: str, twice: Any) -> None:
    x, y = digits(64)
    make, fit = FITS[name]
    pair = twice(make, lambda model, callbacks: fit(model, x, y, callbacks=callbacks))
    steps = [diagnosis.step for diagnosis in pair.monitor.history]
    assert steps == sorted(set(steps))
    updates = {"stopped": 3, "steps per epoch": 4, "validation split": 6}.get(name, 8)
    if name in ("single batches in between", "compiled twice"):
        updates = 16
    assert len(steps) == updates
    assert all(layer.gradient_rms > 0 for layer in pair.monitor.history[0].reading.layers)
