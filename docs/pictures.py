"""Draws the pictures of score.md from runs that it trains: `python docs/pictures.py`.

Needs matplotlib and scikit-learn. Takes about two minutes.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from drawing import save
from keras import layers
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor

DEPTH = 12


def trained(body: list[Any], epochs: int) -> GradientMonitor:
    """Trains on digits, 64 numbers in [0, 1] each, and reads every tenth update."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    model = keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    monitor = GradientMonitor(None, update_freq=10)
    model.fit(x / 16, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[monitor])
    return monitor


def stack(activation: str, normalise: bool) -> list[Any]:
    found: list[Any] = []
    for number in range(DEPTH):
        initializer = "he_normal" if activation == "relu" else "glorot_uniform"
        found.append(layers.Dense(64, kernel_initializer=initializer, name=f"dense_{number}"))
        if normalise:
            found.append(layers.BatchNormalization())
        found.append(layers.Activation(activation))
    return found


def sequence(layer: Any) -> list[Any]:
    return [layers.Reshape((64, 1)), layer]


def depth() -> None:
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for label, body in (
        ("sigmoid", stack("sigmoid", False)),
        ("ReLU, He, batch normalisation", stack("relu", True)),
    ):
        last = trained(body, 2).history[-1]
        shown = {a.name: a.gradient_rms * a.size**0.5 for a in last.reading.activations}
        names = [f"dense_{number}" for number in range(DEPTH)] + ["head"]
        score = f"{label}: score {last.vanishing_score:.2f}"
        axes.semilogy(range(DEPTH + 1), [shown[name] for name in names], marker="o", label=score)
    axes.set_xticks(range(DEPTH + 1), [*map(str, range(DEPTH)), "head"])
    axes.set_xlabel("dense layer, from the input to the output")
    axes.set_ylabel("norm of dL/dh")
    axes.legend()
    save(figure, "depth.svg")


def time() -> None:
    figure, axes = plt.subplots(figsize=(7, 3.2))
    normal = keras.initializers.RandomNormal(stddev=0.1)
    for label, layer, epochs, which in (
        ("SimpleRNN, N(0, 0.1), step 0", layers.SimpleRNN(32, recurrent_initializer=normal), 1, 0),
        ("LSTM, step 0", layers.LSTM(32), 1, 0),
        ("GRU, trained for 20 epochs", layers.GRU(32), 20, -1),
    ):
        reading = trained(sequence(layer), epochs).history[which].reading
        (recurrent,) = reading.timesteps.values()
        horizon = f"{label}: horizon {recurrent.horizon:.0f} of {len(recurrent.rms) - 1}"
        axes.semilogy(range(1 - len(recurrent.rms), 1), recurrent.rms, label=horizon)
    axes.set_xlabel("time steps back from the last")
    axes.set_ylabel("RMS of dL/dh_t")
    axes.legend()
    save(figure, "time.svg")


if __name__ == "__main__":
    depth()
    time()
