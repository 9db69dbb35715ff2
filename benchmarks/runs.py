"""The labelled runs of the detection benchmark: small models on real data, offline.

A label says what is known of the model and its start from the literature. It counts only if
the run's outcome agrees, see `detection.py`. `remedy` holds what the twin does otherwise: the
cure of that one fault. The part, "choose" or "held out", is fixed here, by the run alone:
constants of the score may be chosen on the first, never on the second. Two exploding runs by
rate 1 were moved to the first: that they were missed led to the rule that an update of four
times the weights is certain at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from bodies import (
    adam,
    adamw,
    adapters,
    chrono,
    cnn,
    embedded,
    encoder_decoder,
    experts,
    frozen_base,
    mlp,
    normal,
    recurrent,
    residual,
    sgd,
    transfer,
    transformer,
    uniform,
    warm_up,
)
from datasets import DATA
from keras import initializers, layers

Array = npt.NDArray[Any]
Body = Callable[[Any], Any]
Kind = Literal["vanishing", "exploding", "dying", "saturated", "healthy", "converged", "healing"]


@dataclass(frozen=True)
class Run:
    """One labelled run.

    Attributes:
        kind: What the run is.
        part: "choose" or "held out".
        family: What sort of model it is.
        name: Unique among the runs.
        data: Key of `DATA`.
        body: Gives the layers between the input and the dense head.
        optimizer: Makes the optimizer.
        remedy: The fields that differ in the twin; empty where no twin is needed.
        steps: Updates that are monitored.
        batch: Examples a batch.
        seed: Of the initialisers and of the order of the examples.
        scale: The loss is multiplied by it.
        before: Updates before the monitor looks.
        noise: Share of the labels that are replaced at random, once the monitor looks.
        head: Initialiser of the head's kernel.
    """

    kind: Kind
    part: Literal["choose", "held out"]
    family: str
    name: str
    data: str
    body: Body
    optimizer: Callable[[], Any]
    remedy: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 300
    batch: int = 32
    seed: int = 0
    scale: float = 1.0
    before: int = 0
    noise: float = 0.0
    head: Any = "glorot_uniform"


def model(run: Run) -> Any:
    """The model of a run, not compiled."""
    keras.utils.set_random_seed(run.seed)
    x, y = DATA[run.data]()
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    width = int(y.max()) + 1 if y.dtype.kind == "i" else 1
    head = layers.Dense(width, kernel_initializer=run.head, name="head")
    return keras.Model(inputs, head(run.body(inputs)))


def batches(run: Run) -> tuple[Array, Array]:
    """The examples of all updates, one after the other, the labels with their noise."""
    x, y = DATA[run.data]()
    random = np.random.default_rng(run.seed)
    count = run.batch * (run.before + run.steps)
    rounds = math.ceil(count / len(x))
    order = np.concatenate([random.permutation(len(x)) for _ in range(rounds)])[:count]
    labels = y[order]
    if run.noise:
        wrong = (random.random(count) < run.noise) & (np.arange(count) >= run.before * run.batch)
        labels = np.where(wrong, random.integers(0, y.max() + 1, count), labels)
    return x[order], labels


def constant_loss(data: str) -> float:
    """The loss of the best prediction that ignores the input."""
    y = DATA[data]()[1]
    if y.dtype.kind != "i":
        return float(np.var(y))
    shares = np.stack([(y == label).mean(0) for label in range(y.max() + 1)])
    return float(-np.mean(np.sum(shares * np.log(np.maximum(shares, 1e-12)), 0)))


# fmt: off
RUNS = (
    # Vanishing.
    Run("vanishing", "choose", "MLP", "sigmoid MLP, 12 deep, SGD", "digits",
        mlp(12, "sigmoid"), sgd(0.1), {"body": mlp(12, "relu", "he_normal")}),
    Run("vanishing", "held out", "MLP", "sigmoid MLP, 12 deep, Adam", "digits",
        mlp(12, "sigmoid", fused=False), adam(), {"body": mlp(12, "relu", "he_normal")}, seed=1),
    Run("vanishing", "choose", "MLP", "sigmoid MLP, 7 deep, Adam", "digits",
        mlp(7, "sigmoid"), adam(), {"body": mlp(7, "sigmoid", norm=True)}, seed=2),
    Run("vanishing", "held out", "MLP", "sigmoid MLP, 20 deep, He, AdamW", "digits",
        mlp(20, "sigmoid", "he_normal"), adamw(), {"body": mlp(20, "selu", "lecun_normal")}),
    Run("vanishing", "choose", "MLP", "tanh MLP, 10 deep, N(0, 0.01), momentum", "digits",
        mlp(10, "tanh", normal(0.01)), sgd(0.05, 0.9), {"body": mlp(10, "tanh")}, seed=1),
    Run("vanishing", "held out", "MLP", "ReLU MLP, 14 deep, N(0, 0.01), SGD", "digits",
        mlp(14, "relu", normal(0.01)), sgd(0.1), {"body": mlp(14, "relu", "he_normal")}),
    Run("vanishing", "choose", "MLP", "ReLU MLP, 10 deep, no bias, N(0, 0.02), Adam", "digits",
        mlp(10, "relu", normal(0.02), bias=None), adam(),
        {"body": mlp(10, "relu", "he_normal", bias=None)}, seed=1),
    Run("vanishing", "held out", "MLP", "linear MLP, 12 deep, N(0, 0.02), SGD", "digits",
        mlp(12, "linear", normal(0.02)), sgd(0.01), {"body": mlp(12, "linear")}, seed=2),
    Run("vanishing", "choose", "CNN", "sigmoid CNN, 10 deep, Adam", "digits",
        cnn(10, "sigmoid"), adam(), {"body": cnn(10, "sigmoid", norm=True)}),
    Run("vanishing", "held out", "CNN", "sigmoid CNN, 8 deep, momentum", "digits",
        cnn(8, "sigmoid"), sgd(0.05, 0.9), {"body": cnn(8, "relu", "he_normal")}, seed=1),
    Run("vanishing", "held out", "CNN", "ReLU CNN, 12 deep, N(0, 0.02), AdamW", "digits",
        cnn(12, "relu", normal(0.02)), adamw(),
        {"body": cnn(12, "relu", "he_normal")}, seed=2),
    Run("vanishing", "choose", "RNN", "SimpleRNN, N(0, 0.1), recall 64, Adam", "recall 64",
        recurrent(layers.SimpleRNN, shape=None, recurrent_initializer=normal(0.1)), adam(3e-3),
        {"body": recurrent(layers.SimpleRNN, shape=None)}),
    Run("vanishing", "held out", "RNN", "SimpleRNN, N(0, 0.05), recall 64, AdamW", "recall 64",
        recurrent(layers.SimpleRNN, shape=None, recurrent_initializer=normal(0.05)), adamw(3e-3),
        {"body": recurrent(layers.SimpleRNN, shape=None)}, seed=1),
    Run("vanishing", "held out", "RNN", "SimpleRNN, 2 layers, N(0, 0.1), recall 64", "recall 64",
        recurrent(layers.SimpleRNN, 2, shape=None, recurrent_initializer=normal(0.1)), adamw(3e-3),
        {"body": recurrent(layers.SimpleRNN, 2, shape=None)}, seed=2),
    Run("vanishing", "choose", "gated RNN", "LSTM, recall 80, short memory, Adam", "recall 80",
        recurrent(layers.LSTM, shape=None, unit_forget_bias=False), adam(5e-3),
        {"body": recurrent(layers.LSTM, shape=None, **chrono(80))}, steps=400, seed=2),
    Run("vanishing", "held out", "gated RNN", "GRU, recall 80, AdamW", "recall 80",
        recurrent(layers.GRU, shape=None), adamw(5e-3),
        {"body": recurrent(layers.LSTM, shape=None, **chrono(80))}, steps=400),
    Run("vanishing", "choose", "encoder-decoder", "SimpleRNN encoder, pause", "spelling, pause",
        encoder_decoder(layers.SimpleRNN), adam(3e-3),
        {"body": encoder_decoder(layers.SimpleRNN, attention=True)}, steps=400),
    Run("vanishing", "held out", "encoder-decoder", "GRU encoder, pause", "spelling, pause",
        encoder_decoder(layers.GRU), adam(3e-3),
        {"body": encoder_decoder(layers.GRU, attention=True)}, steps=400, seed=1),
    Run("vanishing", "choose", "transformer", "transformer, 5 blocks, no skips", "digits",
        transformer(5, "none", skips=False), sgd(0.01, 0.9, global_clipnorm=1.0),
        {"body": transformer(5, "pre")}),
    Run("vanishing", "held out", "transformer", "transformer, sigmoid, no skips", "digits",
        transformer(6, "none", skips=False, activation="sigmoid"), adam(),
        {"body": transformer(6, "pre", activation="sigmoid")}, seed=1),
    Run("vanishing", "held out", "residual", "sigmoid residual, skips × 0.1", "digits",
        residual(8, "bare", "sigmoid", skip=0.1, start=normal(0.02)), sgd(0.1),
        {"body": residual(8, "norm", "sigmoid")}),
    Run("vanishing", "choose", "transfer", "in front of a frozen sigmoid stack", "digits",
        transfer("sigmoid", "glorot_uniform"), sgd(0.1), {"body": transfer("relu")}),
    Run("vanishing", "held out", "adapters", "adapters on a frozen sigmoid stack", "digits",
        adapters("sigmoid", 12, "glorot_uniform"), adam(), {"body": adapters("relu", 12)}, seed=1),
    Run("vanishing", "choose", "embedding", "embedding, sigmoid MLP, 9 deep, AdamW", "digits",
        embedded(mlp(9, "sigmoid")), adamw(), {"body": embedded(mlp(9, "relu", "he_normal"))}),
    # Exploding.
    Run("exploding", "choose", "MLP", "ReLU MLP, 14 deep, N(0, 0.5), SGD", "digits",
        mlp(14, "relu", normal(0.5)), sgd(0.01), {"body": mlp(14, "relu", "he_normal")}),
    Run("exploding", "held out", "MLP", "linear MLP, 12 deep, N(0, 0.4), momentum", "digits",
        mlp(12, "linear", normal(0.4)), sgd(0.01, 0.9), {"body": mlp(12, "linear")}, seed=1),
    Run("exploding", "choose", "MLP", "ReLU MLP, 4 deep, rate 100, SGD", "digits",
        mlp(4, "relu"), sgd(100.0), {"optimizer": sgd(0.1)}),
    Run("exploding", "choose", "MLP", "tanh MLP, 6 deep, rate 1, Adam", "digits",
        mlp(6, "tanh"), adam(1.0), {"optimizer": adam(1e-3)}, seed=2),
    Run("exploding", "choose", "MLP", "ReLU MLP, 10 deep, N(0, 0.4), Adam", "digits",
        mlp(10, "relu", normal(0.4)), adam(), {"body": mlp(10, "relu", "he_normal")},
        seed=3),
    Run("exploding", "choose", "CNN", "ReLU CNN, 10 deep, N(0, 0.4), SGD", "digits",
        cnn(10, "relu", normal(0.4)), sgd(0.01), {"body": cnn(10, "relu", "he_normal")}),
    Run("exploding", "held out", "CNN", "ReLU CNN, 6 deep, rate 30, momentum", "digits",
        cnn(6, "relu"), sgd(30.0, 0.9), {"optimizer": sgd(0.02, 0.9)}, seed=1),
    Run("exploding", "held out", "residual", "residual, 16 blocks, no norm, N(0, 0.25)", "digits",
        residual(16, "bare", start=normal(0.25)), sgd(0.01), {"body": residual(16, "gate")}),
    Run("exploding", "choose", "RNN", "ReLU RNN, recall 64, gain 1.4", "recall 64",
        recurrent(layers.SimpleRNN, shape=None, activation="relu",
                  recurrent_initializer=initializers.Identity(1.4)), adam(3e-3),
        {"body": recurrent(layers.SimpleRNN, shape=None)}),
    Run("exploding", "choose", "MLP", "regression, targets × 100, SGD", "sunspots ×100",
        mlp(3, "relu"), sgd(0.1), {"data": "sunspots"}),
    Run("exploding", "held out", "MLP", "pixels 0..255, SGD", "digits 0..255",
        mlp(6, "relu", "he_normal"), sgd(0.1), {"data": "digits"}, seed=1),
    Run("exploding", "choose", "transformer", "transformer, pre-norm, rate 30", "digits",
        transformer(3), sgd(30.0, 0.9),
        {"optimizer": sgd(0.02, 0.9, global_clipnorm=1.0)}),
    Run("exploding", "choose", "embedding", "embedding, rate 1, AdamW", "digits",
        embedded(mlp(3, "relu")), adamw(1.0), {"optimizer": adamw()}),
    # Dying.
    Run("dying", "choose", "MLP", "ReLU MLP, 6 deep, bias -3", "digits",
        mlp(6, "relu", "he_normal", bias=-3.0), adam(), {"body": mlp(6, "relu", "he_normal")}),
    Run("dying", "held out", "MLP", "ReLU MLP, 20 deep, 3 wide", "digits",
        mlp(20, "relu", "he_normal", width=3), adam(3e-3),
        {"body": mlp(20, "relu", "he_normal", width=64), "optimizer": adam()}),
    Run("dying", "choose", "MLP", "ReLU MLP, 4 deep, negative weights, SGD", "digits",
        mlp(4, "relu", uniform(-0.2, 0.0), fused=False), sgd(0.1),
        {"body": mlp(4, "relu", "he_normal")}, seed=1),
    Run("dying", "held out", "MLP", "ReLU MLP, 5 deep, killed by rate 2", "digits",
        mlp(5, "relu", "he_normal"), sgd(2.0), {"optimizer": sgd(0.05)}, seed=1),
    Run("dying", "held out", "CNN", "ReLU CNN, 6 deep, bias -2, momentum", "digits",
        cnn(6, "relu", "he_normal", bias=-2.0), sgd(0.02, 0.9),
        {"body": cnn(6, "relu", "he_normal")}),
    Run("dying", "choose", "CNN", "ReLU CNN, 4 deep, negative weights, Adam", "digits",
        cnn(4, "relu", uniform(-0.3, 0.0)), adam(), {"body": cnn(4, "relu", "he_normal")}, seed=1),
    Run("dying", "choose", "RNN", "ReLU RNN, rows, bias -3", "digits",
        recurrent(layers.SimpleRNN, activation="relu",
                  bias_initializer=initializers.Constant(-3.0)), adam(3e-3),
        {"body": recurrent(layers.SimpleRNN, activation="relu")}),
    Run("dying", "held out", "mixture of experts", "all experts dead", "digits",
        experts(False, bias=-4.0), adam(), {"body": experts(False)}),
    Run("dying", "held out", "embedding", "embedding, ReLU MLP, bias -1, AdamW", "digits",
        embedded(mlp(4, "relu", bias=-1.0)), adamw(), {"body": embedded(mlp(4, "relu"))}),
    # Saturated.
    Run("saturated", "choose", "MLP", "hard tanh MLP, 12 deep, N(0, 1)", "digits",
        mlp(12, "hard_tanh", normal(1.0)), sgd(0.01, 0.9), {"body": mlp(12, "hard_tanh")}),
    Run("saturated", "held out", "MLP", "tanh MLP, 10 deep, N(0, 2), SGD", "digits",
        mlp(10, "tanh", normal(2.0)), sgd(0.05), {"body": mlp(10, "tanh")}, seed=1),
    Run("saturated", "choose", "MLP", "sigmoid MLP, 6 deep, N(0, 4), Adam", "digits",
        mlp(6, "sigmoid", normal(4.0)), adam(), {"body": mlp(6, "sigmoid", norm=True)}, seed=2),
    Run("saturated", "held out", "MLP", "hard sigmoid MLP, 5 deep, N(0, 4), AdamW", "digits",
        mlp(5, "hard_sigmoid", normal(4.0)), adamw(), {"body": mlp(5, "hard_sigmoid", norm=True)}),
    Run("saturated", "choose", "CNN", "tanh CNN, 8 deep, N(0, 1.5), momentum", "digits",
        cnn(8, "tanh", normal(1.5)), sgd(0.01, 0.9), {"body": cnn(8, "tanh")}),
    Run("saturated", "held out", "CNN", "hard tanh CNN, 8 deep, N(0, 1), SGD", "digits",
        cnn(8, "hard_tanh", normal(1.0)), sgd(0.02), {"body": cnn(8, "hard_tanh")}, seed=1),
    Run("saturated", "choose", "RNN", "SimpleRNN, N(0, 3), recall 32", "recall 32",
        recurrent(layers.SimpleRNN, shape=None,
                  recurrent_initializer=normal(3.0)), adam(3e-3),
        {"body": recurrent(layers.SimpleRNN, shape=None)}),
    Run("saturated", "held out", "RNN", "hard tanh RNN, rows, N(0, 3)", "digits",
        recurrent(layers.SimpleRNN, 3, activation="hard_tanh",
                  kernel_initializer=normal(3.0),
                  recurrent_initializer=normal(3.0)),
        sgd(0.02, 0.9),
        {"body": recurrent(layers.SimpleRNN, 3, activation="hard_tanh")}),
    Run("saturated", "held out", "transfer", "in front of a frozen, saturated stack", "digits",
        transfer("tanh", normal(2.0)), sgd(0.05), {"body": transfer("tanh", "glorot_uniform")}),
    # Healthy.
    Run("healthy", "choose", "MLP", "ReLU MLP, 3 deep, Adam", "digits", mlp(3, "relu"), adam()),
    Run("healthy", "held out", "MLP", "ReLU MLP, 1 deep, SGD", "digits", mlp(1, "relu"), sgd(0.1)),
    Run("healthy", "choose", "MLP", "sigmoid MLP, 2 deep, Adam", "digits",
        mlp(2, "sigmoid"), adam(3e-3)),
    Run("healthy", "held out", "MLP", "ReLU MLP, 12 deep, BatchNorm, Adam", "digits",
        mlp(12, "relu", "he_normal", True), adam()),
    Run("healthy", "choose", "MLP", "ReLU MLP, 12 deep, He, SGD", "digits",
        mlp(12, "relu", "he_normal"), sgd(0.05)),
    Run("healthy", "held out", "MLP", "tanh MLP, 6 deep, momentum", "digits",
        mlp(6, "tanh", fused=False), sgd(0.01, 0.9), seed=1),
    Run("healthy", "held out", "MLP", "SELU MLP, 20 deep, Adam", "digits",
        mlp(20, "selu", "lecun_normal"), adam(3e-4), seed=1),
    Run("healthy", "choose", "MLP", "tanh MLP, 8 deep, orthogonal, AdamW", "digits",
        mlp(8, "tanh", "orthogonal"), adamw(), seed=2),
    Run("healthy", "choose", "CNN", "ReLU CNN, 3 deep, SGD", "digits",
        cnn(3, "relu", "he_normal"), sgd(0.05), seed=1),
    Run("healthy", "choose", "CNN", "CNN, 8 deep, BatchNorm, Adam", "digits",
        cnn(8, "relu", "he_normal", True), adam()),
    Run("healthy", "held out", "CNN", "sigmoid CNN, 4 deep, BatchNorm, momentum", "digits",
        cnn(4, "sigmoid", norm=True), sgd(0.02, 0.9)),
    Run("healthy", "choose", "residual", "residual, 16 blocks, Adam", "digits",
        residual(16), adam()),
    Run("healthy", "held out", "residual", "sigmoid residual, 6 blocks, AdamW", "digits",
        residual(6, "norm", "sigmoid"), adamw(), seed=1),
    Run("healthy", "choose", "residual", "ReZero, 10 blocks, SGD", "digits",
        residual(10, "gate"), sgd(0.05)),
    Run("healthy", "held out", "residual", "ReZero, 6 blocks, Adam", "digits",
        residual(6, "gate"), adam(), seed=1),
    Run("healthy", "choose", "MLP", "zero head, 6 deep, SGD", "digits",
        mlp(6, "relu", "he_normal"), sgd(0.1), head="zeros"),
    Run("healthy", "held out", "CNN", "zero head, CNN, 4 deep, Adam", "digits",
        cnn(4, "relu", "he_normal"), adam(), head="zeros"),
    Run("healthy", "choose", "adapters", "adapters, frozen ReLU, Adam", "digits",
        adapters(), adam(3e-3)),
    Run("healthy", "held out", "adapters", "adapters, frozen tanh, SGD", "digits",
        adapters("tanh", 3, "glorot_uniform"), sgd(0.1), seed=1),
    Run("healthy", "choose", "transfer", "frozen base, new head, AdamW", "digits",
        frozen_base, adamw()),
    Run("healthy", "held out", "transfer", "new first layer, frozen ReLU body, momentum", "digits",
        transfer("relu", depth=4), sgd(0.02, 0.9)),
    Run("healthy", "choose", "transformer", "transformer, pre-norm, Adam", "digits",
        transformer(3), adam()),
    Run("healthy", "held out", "transformer", "transformer, post-norm, AdamW", "digits",
        transformer(3, "post"), adamw(), seed=1),
    Run("healthy", "choose", "gated RNN", "LSTM, rows, Adam", "digits",
        recurrent(layers.LSTM), adam(5e-3)),
    Run("healthy", "held out", "gated RNN", "GRU, 2 layers, rows, AdamW", "digits",
        recurrent(layers.GRU, 2), adamw(5e-3), seed=1),
    # At first their gates let little through over 40 months, and they need not more.
    Run("healthy", "choose", "gated RNN", "LSTM, sunspots, Adam", "sunspots",
        recurrent(layers.LSTM, shape=None), adam(3e-3)),
    Run("healthy", "held out", "gated RNN", "GRU, sunspots, AdamW", "sunspots",
        recurrent(layers.GRU, shape=None), adamw(3e-3)),
    Run("healthy", "choose", "RNN", "SimpleRNN, sunspots, Adam", "sunspots",
        recurrent(layers.SimpleRNN, shape=None), adam(3e-3)),
    Run("healthy", "held out", "RNN", "SimpleRNN, rows, momentum", "digits",
        recurrent(layers.SimpleRNN), sgd(0.02, 0.9), seed=1),
    Run("healthy", "choose", "RNN", "SimpleRNN, orthogonal, 2 layers, recall 64", "recall 64",
        recurrent(layers.SimpleRNN, 2, shape=None), adam(3e-3), seed=1),
    Run("healthy", "held out", "RNN", "SimpleRNN, orthogonal, 64 pixels, AdamW", "digits",
        recurrent(layers.SimpleRNN, shape=(64, 1)), adamw(3e-3), steps=400),
    Run("healthy", "choose", "encoder-decoder", "GRU with attention", "spelling",
        encoder_decoder(layers.GRU, True), adam(5e-3), steps=400),
    Run("healthy", "held out", "encoder-decoder", "LSTM without attention", "spelling",
        encoder_decoder(layers.LSTM), adamw(1e-2), steps=900, seed=1),
    Run("healthy", "choose", "mixture of experts", "a starved expert, Adam", "digits",
        experts(), adam()),
    Run("healthy", "held out", "mixture of experts", "a starved expert, momentum", "digits",
        experts(), sgd(0.05, 0.9), seed=1),
    Run("healthy", "choose", "embedding", "embedding, Adam", "digits",
        embedded(mlp(1, "relu")), adam(5e-3)),
    Run("healthy", "held out", "embedding", "embedding, 3 deep, AdamW", "digits",
        embedded(mlp(3, "relu", "he_normal")), adamw(3e-3), seed=1),
    Run("healthy", "choose", "MLP", "loss × 1000, Adam", "digits",
        mlp(4, "relu", "he_normal"), adam(), scale=1e3),
    Run("healthy", "held out", "MLP", "loss × 0.001, Adam", "digits",
        mlp(4, "relu", "he_normal"), adam(), scale=1e-3),
    Run("healthy", "held out", "CNN", "loss × 0.001, rate × 1000, SGD", "digits",
        cnn(3, "relu", "he_normal"), sgd(50.0), scale=1e-3),
    Run("healthy", "choose", "MLP", "batches of one, SGD", "digits",
        mlp(3, "relu", "he_normal"), sgd(0.02), batch=1, steps=600),
    Run("healthy", "held out", "CNN", "batches of one, Adam", "digits",
        cnn(3, "relu", "he_normal"), adam(), batch=1, steps=600, seed=1),
    Run("healthy", "choose", "transformer", "warm-up from 0", "digits",
        transformer(2), warm_up(2e-3, 100)),
    Run("healthy", "held out", "MLP", "warm-up from 0, 8 deep", "digits",
        mlp(8, "relu", "he_normal"), warm_up(2e-3, 100)),
    Run("healthy", "choose", "MLP", "30% wrong labels, late", "digits",
        mlp(3, "relu"), adam(), before=600, noise=0.3),
    Run("healthy", "held out", "CNN", "20% wrong labels, late", "digits",
        cnn(4, "relu", "he_normal", True), adam(), before=300, noise=0.2),
    Run("healthy", "held out", "MLP", "regression, CO2, AdamW", "co2",
        mlp(3, "gelu"), adamw()),
    Run("healthy", "choose", "MLP", "regression, sunspots, momentum", "sunspots",
        mlp(3, "tanh"), sgd(0.005, 0.9)),
    Run("healthy", "choose", "MLP", "pixels 0..255, 3 deep, Adam", "digits 0..255",
        mlp(3, "relu"), adam(3e-4)),
    # Converged.
    Run("converged", "choose", "MLP", "converged ReLU MLP, Adam", "digits",
        mlp(3, "relu"), adam(), before=3000),
    Run("converged", "held out", "MLP", "converged tanh MLP, momentum", "digits",
        mlp(6, "tanh"), sgd(0.05, 0.9), before=3000, seed=1),
    Run("converged", "choose", "CNN", "converged CNN, BatchNorm, AdamW", "digits",
        cnn(4, "relu", "he_normal", True), adamw(), before=1500),
    Run("converged", "held out", "CNN", "converged CNN, SGD", "digits",
        cnn(3, "relu", "he_normal"), sgd(0.1), before=2000, seed=1),
    Run("converged", "choose", "gated RNN", "converged LSTM, Adam", "digits",
        recurrent(layers.LSTM), adam(5e-3), before=800),
    Run("converged", "held out", "residual", "converged residual, Adam", "digits",
        residual(8), adam(), before=2000),
    Run("converged", "choose", "transformer", "converged transformer, Adam", "digits",
        transformer(2), adam(), before=1000),
    # Healing.
    Run("healing", "choose", "MLP", "sigmoid MLP, 3 deep, momentum, slow", "digits",
        mlp(3, "sigmoid"), sgd(0.1, 0.9), steps=600),
    Run("healing", "held out", "MLP", "sigmoid MLP, 3 deep, SGD, slow", "digits",
        mlp(3, "sigmoid"), sgd(1.0), steps=600, seed=3),
    Run("healing", "choose", "MLP", "tanh MLP, 5 deep, N(0, 0.03), momentum", "digits",
        mlp(5, "tanh", normal(0.03)), sgd(0.05, 0.9), steps=600),
    Run("healing", "held out", "MLP", "tanh MLP, 4 deep, N(0, 0.02), SGD", "digits",
        mlp(4, "tanh", normal(0.02)), sgd(0.3), steps=600),
    Run("healing", "choose", "MLP", "ReLU MLP, 5 deep, N(0, 0.05), momentum", "digits",
        mlp(5, "relu", normal(0.05)), sgd(0.05, 0.9), steps=600),
    Run("healing", "held out", "MLP", "linear MLP, 5 deep, N(0, 0.03), momentum", "digits",
        mlp(5, "linear", normal(0.03)), sgd(0.05, 0.9), steps=600),
)
# fmt: on
