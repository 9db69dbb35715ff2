"""Scores of small labelled runs on real digits: the evidence for the constants of the score.

    python benchmarks/scores.py
    python benchmarks/scores.py --only sigmoid --seeds 5

Each run trains for four epochs on scikit-learn's digits and is read every ten steps.
The label is what is known of the model from the literature; the accuracy shows whether
it learned. The table prints the largest score of the run and its verdict at the end.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import initializers, layers, optimizers
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor


def mlp(depth: int, activation: str, start: Any = "glorot_uniform", norm: bool = False) -> Any:
    def body(x: Any) -> Any:
        for _ in range(depth):
            x = layers.Dense(64, None if norm else activation, kernel_initializer=start)(x)
            if norm:
                x = layers.Activation(activation)(layers.BatchNormalization()(x))
        return x

    return body


def cnn(depth: int, activation: str, norm: bool = False) -> Any:
    def body(x: Any) -> Any:
        x = layers.Reshape((8, 8, 1))(x)
        for _ in range(depth):
            x = layers.Conv2D(16, 3, padding="same", activation=None if norm else activation)(x)
            if norm:
                x = layers.Activation(activation)(layers.BatchNormalization()(x))
        return layers.GlobalAveragePooling2D()(x)

    return body


class Gate(layers.Layer):
    """ReZero: a branch that begins closed (Bachlechner et al. 2021)."""

    def build(self, shape: Any) -> None:
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def call(self, x: Any) -> Any:
        return self.alpha * x


def residual(depth: int, gated: bool) -> Any:
    def body(x: Any) -> Any:
        x = layers.Dense(64)(x)
        for _ in range(depth):
            branch = x if gated else layers.LayerNormalization()(x)
            branch = layers.Dense(64)(layers.Dense(64, "relu")(branch))
            x = x + (Gate()(branch) if gated else branch)
        return x

    return body


def adapters(x: Any) -> Any:
    for _ in range(4):
        x = layers.Dense(64, "relu", kernel_initializer="he_normal", trainable=False)(x)
        x = x + layers.Dense(64, kernel_initializer="zeros")(layers.Dense(8, "relu")(x))
    return x


def transformer(before: bool) -> Any:
    def body(x: Any) -> Any:
        x = layers.Dense(32)(layers.Reshape((8, 8))(x))
        for _ in range(4):
            h = layers.LayerNormalization()(x) if before else x
            x = x + layers.MultiHeadAttention(4, 8)(h, h)
            x = x if before else layers.LayerNormalization()(x)
            h = layers.LayerNormalization()(x) if before else x
            x = x + layers.Dense(32)(layers.Dense(128, "gelu")(h))
            x = x if before else layers.LayerNormalization()(x)
        return layers.GlobalAveragePooling1D()(x)

    return body


def recurrent(cell: Any, depth: int) -> Any:
    def body(x: Any) -> Any:
        x = layers.Reshape((8, 8))(x)
        for number in range(depth):
            x = cell(32, return_sequences=number < depth - 1)(x)
        return x

    return body


def embedding(x: Any) -> Any:
    words = layers.Rescaling(16.0)(x) + 17 * np.arange(64)
    return layers.Dense(32, "relu")(
        layers.GlobalAveragePooling1D()(layers.Embedding(2000, 16)(words))
    )


def wide(x: Any) -> Any:
    return layers.Dense(2048, "relu")(layers.Dense(2048, "relu")(x))


def adam(rate: float = 1e-3) -> Callable[[], Any]:
    return lambda: optimizers.Adam(rate)


def sgd(rate: float = 0.1, momentum: float = 0.0) -> Callable[[], Any]:
    return lambda: optimizers.SGD(rate, momentum)


def normal(spread: float) -> Any:
    return initializers.RandomNormal(stddev=spread)


# name: (label, layers before the head, optimizer, initialiser of the head)
RUNS: dict[str, tuple[str, Any, Callable[[], Any], str]] = {
    "ReLU MLP, 3 deep, Adam": ("healthy", mlp(3, "relu"), adam(), "glorot_uniform"),
    "ReLU MLP, 1 deep, SGD": ("healthy", mlp(1, "relu"), sgd(), "glorot_uniform"),
    "sigmoid MLP, 2 deep, Adam": ("healthy", mlp(2, "sigmoid"), adam(3e-3), "glorot_uniform"),
    "ReLU MLP, 12 deep, He, Adam": (
        "healthy",
        mlp(12, "relu", "he_normal"),
        adam(),
        "glorot_uniform",
    ),
    "ReLU MLP, 12 deep, He, SGD": (
        "healthy",
        mlp(12, "relu", "he_normal"),
        sgd(0.03),
        "glorot_uniform",
    ),
    "ReLU MLP, 12 deep, BatchNorm": (
        "healthy",
        mlp(12, "relu", "he_normal", True),
        adam(),
        "glorot_uniform",
    ),
    "tanh MLP, 6 deep, momentum": ("healthy", mlp(6, "tanh"), sgd(0.01, 0.9), "glorot_uniform"),
    "SELU MLP, 20 deep, Adam": (
        "healthy",
        mlp(20, "selu", "lecun_normal"),
        adam(3e-4),
        "glorot_uniform",
    ),
    "MLP, 2 × 2048 wide": ("healthy", wide, adam(), "glorot_uniform"),
    "ReLU CNN, 3 deep": ("healthy", cnn(3, "relu"), adam(3e-3), "glorot_uniform"),
    "CNN, 10 deep, BatchNorm": ("healthy", cnn(10, "relu", True), adam(), "glorot_uniform"),
    "residual MLP, 30 blocks": ("healthy", residual(30, False), adam(), "glorot_uniform"),
    "ReZero, 10 blocks, SGD": ("healthy", residual(10, True), sgd(0.05), "glorot_uniform"),
    "ReZero, 10 blocks, Adam": ("healthy", residual(10, True), adam(), "glorot_uniform"),
    "zero head, 6 deep, SGD": ("healthy", mlp(6, "relu", "he_normal"), sgd(), "zeros"),
    "zero head, 6 deep, Adam": ("healthy", mlp(6, "relu", "he_normal"), adam(), "zeros"),
    "adapters, frozen body, SGD": ("healthy", adapters, sgd(0.05), "glorot_uniform"),
    "adapters, frozen body, Adam": ("healthy", adapters, adam(), "glorot_uniform"),
    "transformer, pre-norm": ("healthy", transformer(True), adam(), "glorot_uniform"),
    "transformer, post-norm": ("healthy", transformer(False), adam(), "glorot_uniform"),
    "LSTM, 1 layer": ("healthy", recurrent(layers.LSTM, 1), adam(3e-3), "glorot_uniform"),
    "GRU, 3 layers": ("healthy", recurrent(layers.GRU, 3), adam(3e-3), "glorot_uniform"),
    "embedding, 2000 × 16": ("healthy", embedding, adam(1e-2), "glorot_uniform"),
    "sigmoid MLP, 12 deep, SGD": ("vanishing", mlp(12, "sigmoid"), sgd(), "glorot_uniform"),
    "sigmoid MLP, 12 deep, Adam": ("vanishing", mlp(12, "sigmoid"), adam(), "glorot_uniform"),
    "sigmoid MLP, 7 deep, Adam": ("vanishing", mlp(7, "sigmoid"), adam(), "glorot_uniform"),
    "sigmoid MLP, 20 deep, He": (
        "vanishing",
        mlp(20, "sigmoid", "he_normal"),
        adam(),
        "glorot_uniform",
    ),
    "sigmoid CNN, 10 deep": ("vanishing", cnn(10, "sigmoid"), adam(), "glorot_uniform"),
    "hard tanh, saturated": (
        "vanishing",
        mlp(12, "hard_tanh", normal(1.0)),
        sgd(0.01, 0.9),
        "glorot_uniform",
    ),
    "ReLU, initialised too small": (
        "vanishing",
        mlp(14, "relu", normal(0.01)),
        sgd(),
        "glorot_uniform",
    ),
    "tanh, initialised too small": (
        "vanishing",
        mlp(10, "tanh", normal(0.01)),
        sgd(),
        "glorot_uniform",
    ),
    "ReLU, initialised too large": (
        "exploding",
        mlp(14, "relu", normal(0.5)),
        sgd(0.01),
        "glorot_uniform",
    ),
    "ReLU MLP, rate 100": ("exploding", mlp(4, "relu"), sgd(100.0), "glorot_uniform"),
}


def run(name: str, seed: int) -> tuple[float, float, float, str]:
    """Accuracy, largest vanishing and exploding score, and verdict of one run."""
    _, body, optimizer, head = RUNS[name]
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dense(10, kernel_initializer=head)(body(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(), loss, metrics=["accuracy"])
    x, y = load_digits(return_X_y=True)
    monitor = GradientMonitor(None, update_freq=10)
    fit = model.fit(
        x[:1600] / 16, y[:1600], batch_size=32, epochs=4, verbose=0, callbacks=[monitor]
    )
    vanishing = [d.vanishing_score for d in monitor.history] + [-1.0]
    exploding = [d.exploding_score for d in monitor.history] + [-1.0]
    accuracy = fit.history["accuracy"][-1]
    return accuracy, np.nanmax(vanishing), np.nanmax(exploding), monitor.verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print("| label | run | accuracy | vanishing, max | exploding, max | verdict |")
    print("| --- | --- | --- | --- | --- | --- |")
    right = total = 0
    for name in RUNS:
        if options.only not in name:
            continue
        label = RUNS[name][0]
        for seed in range(options.seeds):
            accuracy, vanishing, exploding, verdict = run(name, seed)
            keras.backend.clear_session()
            total += 1
            right += verdict == label or (label == "exploding" and verdict == "nonfinite")
            print(
                f"| {label} | {name}, seed {seed} | {accuracy:.2f} | {vanishing:.2f} "
                f"| {exploding:.2f} | {verdict} |",
                flush=True,
            )
    print(f"\n{right} of {total} verdicts agree with the label.")


if __name__ == "__main__":
    main()
