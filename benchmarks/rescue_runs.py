"""Further explosions for the rescue benchmark, most of which begin in the middle of training.

As in `runs.py`, a label says what is known of the run, and counts only if its outcome agrees,
see `rescue.py`; `remedy` holds what the twin does otherwise, and the part is fixed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import runs
from bodies import Body, adam, adamw, cnn, mlp, normal, recurrent, sgd, transformer, uniform
from keras import initializers, layers, optimizers

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BadBatch:
    """One batch that is not as the others.

    Attributes:
        step: The update that trains on it, counted from the first.
        inputs: Its inputs are multiplied by it.
        labels: Its labels, of a regression, are multiplied by it.
    """

    step: int
    inputs: float = 1.0
    labels: float = 1.0


@dataclass(frozen=True)
class Explosion(runs.Run):
    """A run that explodes.

    Attributes:
        bad: The batch that is to blame, if it is one.
    """

    bad: BadBatch | None = None


def batches(run: runs.Run) -> tuple[Array, Array]:
    """The examples of all updates, one after the other, with those of the bad batch."""
    x, y = runs.batches(run)
    bad = getattr(run, "bad", None)
    if bad is not None:
        rows = slice(bad.step * run.batch, (bad.step + 1) * run.batch)
        for part, factor in ((x, bad.inputs), (y, bad.labels)):
            if factor != 1.0:
                with np.errstate(invalid="ignore"):  # 0 times infinity.
                    part[rows] *= factor
    return x, y


def half(body: Body) -> Body:
    """The same layers in `mixed_float16`; the head stays in float32, as Keras recommends."""

    def inner(x: Any) -> Any:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            return body(x)
        finally:
            keras.config.set_dtype_policy(before)

    return inner


def loss_scaled(optimizer: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: optimizers.LossScaleOptimizer(optimizer())


def peak(rate: float, height: float, begin: int, end: int) -> Callable[[], Any]:
    """SGD at `rate`, and `height` times as fast from step `begin` to `end`."""
    schedule = optimizers.schedules.PiecewiseConstantDecay
    return lambda: optimizers.SGD(schedule([begin, end], [rate, height * rate, rate]))


# fmt: off
EXPLOSIONS = (
    # The rate, or the momentum.
    Explosion("exploding", "choose", "MLP", "ReLU MLP, 3 deep, rate 5, SGD", "digits",
        mlp(3, "relu", "he_normal"), sgd(5.0), {"optimizer": sgd(0.1)}),
    Explosion("exploding", "held out", "CNN", "ReLU CNN, 4 deep, rate 0.3, Adam", "digits",
        cnn(4, "relu", "he_normal"), adam(0.3), {"optimizer": adam()}),
    Explosion("exploding", "choose", "gated RNN", "LSTM, rows, rate 3, AdamW", "digits",
        recurrent(layers.LSTM), adamw(3.0), {"optimizer": adamw(5e-3)}),
    Explosion("exploding", "held out", "MLP", "ReLU MLP, 5 deep, momentum 0.99", "digits",
        mlp(5, "relu", "he_normal"), sgd(0.2, 0.99), {"optimizer": sgd(0.02, 0.9)}, seed=1),
    Explosion("exploding", "choose", "MLP", "a peak of the rate in the middle, SGD", "digits",
        mlp(4, "relu", "he_normal"), peak(0.1, 1000.0, 150, 160), {"optimizer": sgd(0.1)}),
    Explosion("exploding", "held out", "CNN", "a peak of the rate in the middle, CNN", "digits",
        cnn(3, "relu", "he_normal"), peak(0.05, 500.0, 200, 220), {"optimizer": sgd(0.05)},
        seed=1),
    # One bad batch.
    Explosion("exploding", "choose", "MLP", "inputs × 10000 in one batch, SGD", "digits",
        mlp(4, "relu", "he_normal"), sgd(0.1), {"bad": None}, bad=BadBatch(100, inputs=1e4)),
    Explosion("exploding", "held out", "CNN", "inputs × 10000 in one batch, CNN, momentum",
        "digits", cnn(4, "relu", "he_normal"), sgd(0.02, 0.9), {"bad": None}, seed=1,
        bad=BadBatch(120, inputs=1e4)),
    Explosion("exploding", "held out", "MLP", "inputs × 10000 in the first batch, momentum",
        "digits", mlp(6, "relu", "he_normal"), sgd(0.02, 0.9), {"bad": None},
        bad=BadBatch(0, inputs=1e4)),
    Explosion("exploding", "choose", "MLP", "NaN in one batch, Adam", "digits",
        mlp(3, "relu"), adam(), {"bad": None}, bad=BadBatch(100, inputs=math.nan)),
    Explosion("exploding", "held out", "CNN", "NaN in one batch, CNN with BatchNorm", "digits",
        cnn(4, "relu", "he_normal", True), sgd(0.05), {"bad": None}, seed=1,
        bad=BadBatch(150, inputs=math.nan)),
    Explosion("exploding", "choose", "gated RNN", "NaN in the first batch, LSTM", "digits",
        recurrent(layers.LSTM), adam(5e-3), {"bad": None}, bad=BadBatch(0, inputs=math.nan)),
    Explosion("exploding", "held out", "transformer", "NaN in the tenth batch, transformer",
        "digits", transformer(2), adam(), {"bad": None}, seed=1,
        bad=BadBatch(9, inputs=math.nan)),
    Explosion("exploding", "choose", "MLP", "infinite targets in one batch, CO2", "co2",
        mlp(3, "gelu"), adamw(), {"bad": None}, bad=BadBatch(100, labels=math.inf)),
    Explosion("exploding", "held out", "RNN", "targets × 10000 in one batch, sunspots",
        "sunspots", recurrent(layers.SimpleRNN, shape=None), sgd(0.01, 0.9), {"bad": None},
        bad=BadBatch(90, labels=1e4)),
    # The initialisation.
    Explosion("exploding", "choose", "MLP", "ReLU MLP, 8 deep, U(-1, 1), momentum", "digits",
        mlp(8, "relu", uniform(-1.0, 1.0)), sgd(0.01, 0.9),
        {"body": mlp(8, "relu", "he_normal")}),
    Explosion("exploding", "held out", "CNN", "ReLU CNN, 7 deep, N(0, 0.5), momentum", "digits",
        cnn(7, "relu", normal(0.5)), sgd(0.01, 0.9), {"body": cnn(7, "relu", "he_normal")},
        seed=1),
    # Recurrence over many steps, without clipping.
    Explosion("exploding", "choose", "RNN", "ReLU RNN, recall 32, gain 2, Adam", "recall 32",
        recurrent(layers.SimpleRNN, shape=None, activation="relu",
                  recurrent_initializer=initializers.Identity(2.0)), adam(),
        {"body": recurrent(layers.SimpleRNN, shape=None, activation="relu",
                           recurrent_initializer=initializers.Identity(1.0))}),
    Explosion("exploding", "held out", "RNN", "linear RNN, recall 32, N(0, 0.4)", "recall 32",
        recurrent(layers.SimpleRNN, shape=None, activation="linear",
                  recurrent_initializer=normal(0.4)), adam(),
        {"body": recurrent(layers.SimpleRNN, shape=None, activation="linear")}, seed=1),
    # Half precision, in which 65504 is the largest number.
    Explosion("exploding", "choose", "MLP", "float16, N(0, 1), loss scaling", "digits 0..255",
        half(mlp(5, "relu", normal(1.0))), loss_scaled(adam()),
        {"body": half(mlp(5, "relu", "he_normal"))}),
    Explosion("exploding", "held out", "MLP", "float16, inputs × 10000 in one batch", "digits",
        half(mlp(4, "relu", "he_normal")), adam(), {"bad": None}, seed=1,
        bad=BadBatch(100, inputs=1e4)),
    Explosion("exploding", "choose", "MLP", "float16, rate 30, loss scaling", "digits",
        half(mlp(4, "relu", "he_normal")), loss_scaled(sgd(30.0)),
        {"optimizer": loss_scaled(sgd(0.05))}),
)
# fmt: on
