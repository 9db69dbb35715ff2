"""The illnesses of the gallery: small models on scikit-learn's digits, each ill and cured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from keras import initializers, layers, ops, optimizers
from sklearn.datasets import load_digits

Body = Callable[[Any], Any]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        code: What differs from the other run, as one would write it.
        body: Gives the layers between the input and the head.
        optimizer: Makes the optimizer.
        compiled: More arguments of `compile`.
    """

    code: str
    body: Body
    optimizer: Callable[[], Any]
    compiled: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Illness:
    """One illness and its cure.

    Attributes:
        name: Of its picture.
        title: Its heading.
        words: What it is.
        seen: How to see it in the picture.
        ill: The ill run.
        cured: The same, cured.
        shows: What the picture shows of a layer at a step, or "time": dL/dh_t.
        recall: Whether the digit is shown row by row, with a long pause to the end.
        precision: The dtype policy.
        labels: What the two runs are called.
    """

    name: str
    title: str
    words: str
    seen: str
    ill: Run
    cured: Run
    shows: Literal["gradient", "activations", "saturated", "time", "zeros"] = "gradient"
    recall: bool = False
    precision: str = "float32"
    labels: tuple[str, str] = ("ill", "cured")


def data(recall: bool) -> tuple[Any, Any]:
    """64 pixels in [0, 1]; or 8 rows and 56 steps of noise, of 8 numbers each. Ten classes."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    if recall:
        noise = 0.05 * np.random.default_rng(0).standard_normal((len(x), 64, 8))
        noise[:, :8] += x.reshape(-1, 8, 8)
        x = noise.astype(np.float32)
    return x, y


def dense(depth: int, activation: str, start: Callable[[], Any] | str) -> Body:
    def body(x: Any) -> Any:
        for number in range(depth):
            # An initialiser that is shared would repeat its values.
            kernel = start if isinstance(start, str) else start()
            x = layers.Dense(64, activation, kernel_initializer=kernel, name=f"dense_{number}")(x)
        return x

    return body


def simple_rnn(start: Any, activation: str = "tanh") -> Body:
    def body(x: Any) -> Any:
        return layers.SimpleRNN(32, activation, recurrent_initializer=start, name="rnn")(x)

    return body


def normal(spread: float) -> Callable[[], Any]:
    return lambda: initializers.RandomNormal(0.0, spread)


class Router(layers.Layer):
    """Sends each sample to one of several experts (Fedus, Zoph & Shazeer 2022).

    Args:
        bias: Of each expert's logit at the start.
        balance: Weight of the loss that is smallest where all experts are chosen equally.
    """

    def __init__(self, bias: list[float], balance: float, **options: Any) -> None:
        super().__init__(**options)
        self.start, self.balance = bias, balance

    def build(self, shape: Any) -> None:
        count = len(self.start)
        self.kernel = self.add_weight(shape=(shape[-1], count), name="kernel")
        self.bias = self.add_weight(shape=(count,), initializer=initializers.Zeros(), name="bias")
        self.bias.assign(self.start)

    def call(self, x: Any) -> Any:
        share = ops.softmax(x @ self.kernel + self.bias)
        chosen = ops.one_hot(ops.argmax(share, -1), len(self.start))
        balance = len(self.start) * ops.sum(ops.mean(chosen, 0) * ops.mean(share, 0))
        self.add_loss(self.balance * balance)
        return share * chosen


def experts(balance: float) -> Body:
    def body(x: Any) -> Any:
        x = layers.Dense(64, "relu", name="before")(x)
        share = Router([0.0, 0.0, 0.0, -1.5], balance, name="router")(x)
        outputs = [layers.Dense(64, "relu", name=f"expert_{n}")(x) for n in range(4)]
        return sum(share[:, n : n + 1] * output for n, output in enumerate(outputs))

    return body


def adam(rate: float = 1e-3, **options: Any) -> Callable[[], Any]:
    return lambda: optimizers.Adam(rate, **options)


def sgd(rate: float, momentum: float = 0.0) -> Callable[[], Any]:
    return lambda: optimizers.SGD(rate, momentum)


ILLNESSES = (
    Illness(
        "deep_sigmoid",
        "Deep sigmoid",
        "The slope of the sigmoid is at most 1/4. Twelve layers of it leave the first ones without "
        "a gradient.",
        "Each layer is darker than the one above it, from the first step to the last.",
        Run('`Dense(64, "sigmoid")`, 12 times', dense(12, "sigmoid", "glorot_uniform"), adam()),
        Run(
            '`Dense(64, "relu", kernel_initializer="he_normal")`, 12 times',
            dense(12, "relu", "he_normal"),
            adam(),
        ),
    ),
    Illness(
        "small_initialisation",
        "Weights that start too small",
        "Each layer makes the signal smaller on the way forward, and the gradient on the way back. "
        "The product of both, the gradient of the weights, is as tiny in the last layers as in the "
        "first.",
        "The gradients of the layers' outputs, which the probe sees: darker with each layer "
        "towards the input. Those of the weights are as dark in the last layer as in the first.",
        Run(
            '`Dense(64, "tanh", kernel_initializer=RandomNormal(0, 0.01))`, 10 times',
            dense(10, "tanh", normal(0.01)),
            sgd(0.05, 0.9),
        ),
        Run(
            '`kernel_initializer="glorot_uniform"`, which is Keras\'s default',
            dense(10, "tanh", "glorot_uniform"),
            sgd(0.05, 0.9),
        ),
        shows="activations",
    ),
    Illness(
        "plain_rnn",
        "A plain RNN over a long sequence",
        "A digit is shown in 8 time steps, and asked for 56 later. The recurrent kernel shrinks "
        "the gradient at each step on the way back.",
        "Time goes up: below lies what is far back, and the digit is in the lowest eight rows. "
        "The line is the horizon. It does not reach the digit in the ill run.",
        Run(
            "`SimpleRNN(32, recurrent_initializer=RandomNormal(0, 0.05))`",
            simple_rnn(initializers.RandomNormal(0.0, 0.05)),
            adam(3e-3),
        ),
        Run(
            '`SimpleRNN(32, recurrent_initializer="orthogonal")`',
            simple_rnn("orthogonal"),
            adam(3e-3),
        ),
        shows="time",
        recall=True,
    ),
    Illness(
        "dead_relu",
        "Dead ReLU",
        "One step that is too large pushes all units of a layer below zero, for every sample. "
        "Their slope is zero there: they never come back.",
        "White is exactly zero. The network is well until one step kills it.",
        Run("`SGD(1.2)`", dense(5, "relu", "he_normal"), sgd(1.2)),
        Run("`SGD(0.05)`", dense(5, "relu", "he_normal"), sgd(0.05)),
    ),
    Illness(
        "saturated_tanh",
        "Saturated tanh",
        "Weights that start too large push the units to where tanh is flat. The few units that are "
        "not flat pass on large gradients, so that the gradients of the weights look well.",
        "The share of saturated units of each layer. Gradients would not show it.",
        Run("`RandomNormal(0, 2)`, tanh", dense(10, "tanh", normal(2.0)), sgd(0.05)),
        Run('`"glorot_uniform"`, tanh', dense(10, "tanh", "glorot_uniform"), sgd(0.05)),
        shows="saturated",
    ),
    Illness(
        "exploding_rnn",
        "An exploding RNN",
        "The same digit and the same pause, but a recurrent kernel that enlarges: 1.4 to the "
        "power of 64 is 2e9.",
        "Further back, at the bottom, the gradient is larger than at the last step, by many powers "
        "of ten.",
        Run(
            '`SimpleRNN(32, "relu", recurrent_initializer=Identity(1.4))`',
            simple_rnn(initializers.Identity(1.4), "relu"),
            adam(3e-3),
        ),
        Run(
            '`SimpleRNN(32, "tanh", recurrent_initializer="orthogonal")`',
            simple_rnn("orthogonal"),
            adam(3e-3),
        ),
        shows="time",
        recall=True,
    ),
    Illness(
        "float16_underflow",
        "Underflow in float16",
        "float16 knows nothing between 0 and 6e-8. The loss is multiplied by 5e-6 here, as where "
        "it is one term of many: without loss scaling, gradients are rounded to zero on their way "
        "back.",
        "The share of exact zeros of each layer. ReLU alone makes a third of them; the rest is "
        "rounded away. The entries that are left are as large as before, and so the verdict, which "
        "compares layers, stays healthy: what tells is the share of zeros, and the advice.",
        Run(
            "`mixed_float16`, `compile(auto_scale_loss=False)`",
            dense(6, "relu", "he_normal"),
            lambda: optimizers.Lion(1e-4),
            {"auto_scale_loss": False, "loss_weights": 5e-6},
        ),
        Run(
            "`mixed_float16`, `compile(auto_scale_loss=True)`, which is Keras's default",
            dense(6, "relu", "he_normal"),
            lambda: optimizers.Lion(1e-4),
            {"auto_scale_loss": True, "loss_weights": 5e-6},
        ),
        shows="zeros",
        precision="mixed_float16",
        labels=("unscaled", "scaled"),
    ),
    Illness(
        "starved_expert",
        "An expert that nobody chooses",
        "In a mixture of experts, a router sends each sample to one of four. Whom it never chooses "
        "gets no gradient, and so is never chosen. That is no illness of the gradients, and is not "
        "called one: they reach every layer that the loss depends on.",
        "Rows that are exactly zero, white, between rows that are well. In the table such an "
        "expert has 100% zeros. Digits need no more than one expert: to balance them costs some "
        "accuracy here.",
        Run("a router alone", experts(0.0), adam()),
        Run("a router with a balancing loss", experts(1.0), adam()),
        labels=("starved", "balanced"),
    ),
)
