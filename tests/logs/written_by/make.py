"""Makes the logs that a release leaves for later ones to read, as one small file.

Each release adds one, and `tests/logs/test_written_by.py` reads all of them:

    python tests/logs/written_by/make.py tests/logs/written_by/0.2.0.zip

What the releasing version says of each run goes into a file of JSON beside it. It is written once
and not made anew: where a later version says something else, the test shows it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor

_BATCHES = 40
# Zip files store no date before this one.
_DATE = (1980, 1, 1, 0, 0, 0)


def _digits() -> tuple[Any, Any]:
    images, labels = load_digits(return_X_y=True)
    return (images[:320] / 16).astype("float32"), labels[:320].astype("int32")


def _classifier(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(8, "relu", name="first"),
            layers.Dense(8, "relu", name="second"),
            layers.Dense(10, "softmax", name="digit"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def _feed_forward() -> tuple[keras.Model, tuple[Any, ...], int, dict[str, Any]]:
    return _classifier("adam"), _digits(), 32, {"update_freq": 10}


def _recurrent() -> tuple[keras.Model, tuple[Any, ...], int, dict[str, Any]]:
    keras.utils.set_random_seed(0)
    series = np.random.default_rng(0).normal(size=(96, 12, 3)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.SimpleRNN(6, name="early"),
            layers.Dense(1, name="head"),
        ]
    )
    model.compile("sgd", "mse")
    return model, (series, series[:, 0, 0]), 16, {"update_freq": 10}


class _Gan(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.g = keras.Sequential(
            [keras.Input((4,)), layers.Dense(4, "relu", name="g1"), layers.Dense(2, name="g2")],
            name="generator",
        )
        self.d = keras.Sequential(
            [keras.Input((2,)), layers.Dense(4, "relu", name="d1"), layers.Dense(1, name="d2")],
            name="discriminator",
        )
        self.built = True

    def compile(self, g_optimizer: Any, d_optimizer: Any) -> None:
        super().compile()
        self.g_optimizer, self.d_optimizer = g_optimizer, d_optimizer

    def train_step(self, data: Any) -> dict[str, Any]:
        noise = tf.random.normal((tf.shape(data)[0], 4))
        with tf.GradientTape() as tape:
            d_loss = _cross_entropy(1.0, self.d(data)) + _cross_entropy(0.0, self.d(self.g(noise)))
        weights = self.d.trainable_variables
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights))
        with tf.GradientTape() as tape:
            g_loss = _cross_entropy(1.0, self.d(self.g(noise)))
        weights = self.g.trainable_variables
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights))
        return {"loss": d_loss}


def _cross_entropy(label: float, logits: Any) -> Any:
    labels = label * tf.ones_like(logits)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def _two_optimizers() -> tuple[keras.Model, tuple[Any, ...], int, dict[str, Any]]:
    keras.utils.set_random_seed(0)
    model = _Gan()
    model.compile(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-2))
    points = np.random.default_rng(0).normal(size=(160, 2)).astype("float32")
    return model, (points,), 16, {"update_freq": 10, "probe": False}


def _interventions() -> tuple[keras.Model, tuple[Any, ...], int, dict[str, Any]]:
    """A batch with NaN, inputs and a rate that are far too large, and every flag."""
    images, labels = _digits()
    images *= 40
    images[100] = np.nan
    flags = dict.fromkeys(("auto_clip", "auto_lr", "auto_rollback", "auto_init"), True)
    model = _classifier(keras.optimizers.SGD(0.2, momentum=0.9))
    return model, (images, labels), 32, {"update_freq": 5, **flags}


KINDS: dict[str, Callable[[], tuple[keras.Model, tuple[Any, ...], int, dict[str, Any]]]] = {
    "feed_forward": _feed_forward,
    "recurrent": _recurrent,
    "two_optimizers": _two_optimizers,
    "interventions": _interventions,
}


def train(kind: str, log_dir: Path, steps: int = _BATCHES, after: int = 0) -> GradientMonitor:
    """Trains a model of a kind with a monitor.

    Args:
        kind: One of `KINDS`.
        log_dir: Where the monitor writes.
        steps: How many batches to train on.
        after: How many updates the optimizers count already, as a run that is resumed does.

    Returns:
        The monitor.
    """
    model, data, batch_size, options = KINDS[kind]()
    names = ("g_optimizer", "d_optimizer") if kind == "two_optimizers" else ("optimizer",)
    for name in names:
        getattr(model, name).iterations.assign(after)
    monitor = GradientMonitor(log_dir, **options)
    batches = tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0])
    batches = batches.batch(batch_size).repeat().take(steps)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor


def pack(folder: Path, target: Path) -> None:
    """Packs logs under names that tell neither the machine nor the process.

    Args:
        folder: One log directory a kind.
        target: The zip file to make.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.name
            if "tfevents" in name:
                # events.out.tfevents.<seconds>.<host>.<process>.<number>
                seconds, number = name.split(".")[3], name.split(".")[-1]
                name = f"events.out.tfevents.{seconds}.host.1.{number}"
            entry = zipfile.ZipInfo(path.relative_to(folder).with_name(name).as_posix(), _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def says(log_dir: Path) -> dict[str, Any]:
    """What the current version says of a run.

    Returns:
        As JSON knows it: under `stored` what every later version must find in the files, under
        `diagnosed` what changes where the diagnosis itself does.
    """
    from keras_vanish import read
    from keras_vanish.logs.interventions_log import read_interventions
    from keras_vanish.report.doctor import findings

    history = read(log_dir)
    done = read_interventions(str(log_dir / "gradients"))
    told = findings(history, done)
    probes = [diagnosis.reading.probed for diagnosis in history]
    return {
        "stored": {
            "steps": [diagnosis.step for diagnosis in history],
            "layers": list(history[-1].reading.names),
            "global_norms": [diagnosis.reading.global_norm for diagnosis in history],
            "losses": [probed.loss for probed in probes if probed is not None],
            "horizons": told["horizons"],
            "interventions": [one.to_json() for one in done],
        },
        "diagnosed": {
            "verdict": told["verdict"],
            "vanishing_scores": [diagnosis.vanishing_score for diagnosis in history],
            "exploding_scores": [diagnosis.exploding_score for diagnosis in history],
            "causes": [diagnosis.cause for diagnosis in history],
        },
    }


def say(folder: Path, target: Path) -> None:
    """Writes what the current version says of every run below a folder."""
    runs = sorted(path.parent for path in folder.rglob("gradients"))
    said = {run.relative_to(folder).as_posix(): says(run) for run in runs}
    target.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            train(kind, Path(temporary, kind))
        pack(Path(temporary), Path(sys.argv[1]))
        say(Path(temporary), Path(sys.argv[1]).with_suffix(".json"))
