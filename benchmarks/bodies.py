"""The models of the labelled runs, without their heads, and their optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from keras import initializers, layers, optimizers

Array = npt.NDArray[Any]
Body = Callable[[Any], Any]


def normal(spread: float) -> Any:
    return functools.partial(initializers.RandomNormal, 0.0, spread)


def uniform(low: float, high: float) -> Any:
    return functools.partial(initializers.RandomUniform, low, high)


def _fresh(start: Any) -> Any:
    """An initialiser of the layer's own: one that is shared repeats its values."""
    return start() if isinstance(start, functools.partial) else start


class Places(layers.Layer):
    """Adds a learned vector to each place of a sequence."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def mlp(
    depth: int,
    activation: str,
    start: Any = "glorot_uniform",
    norm: bool = False,
    width: int = 64,
    bias: float | None = 0.0,
    fused: bool = True,
) -> Body:
    def body(x: Any) -> Any:
        x = layers.Flatten()(x) if len(x.shape) > 2 else x
        for _ in range(depth):
            x = layers.Dense(
                width,
                None if norm or not fused else activation,
                use_bias=bias is not None,
                kernel_initializer=_fresh(start),
                bias_initializer=initializers.Constant(bias or 0.0),
            )(x)
            if norm:
                x = layers.BatchNormalization(momentum=0.9)(x)
            if norm or not fused:
                x = layers.Activation(activation)(x)
        return x

    return body


def cnn(
    depth: int,
    activation: str,
    start: Any = "glorot_uniform",
    norm: bool = False,
    bias: float = 0.0,
    last: Any = None,
) -> Body:
    def body(x: Any) -> Any:
        x = layers.Reshape((8, 8, 1))(x)
        for number in range(depth):
            x = layers.Conv2D(
                16,
                3,
                padding="same",
                activation=None if norm else activation,
                kernel_initializer=_fresh(last if last and number == depth - 1 else start),
                bias_initializer=initializers.Constant(bias),
            )(x)
            if norm:
                x = layers.BatchNormalization(momentum=0.9)(x)
                x = layers.Activation(activation)(x)
        return layers.Flatten()(x)

    return body


class Gate(layers.Layer):
    """ReZero: a branch that begins closed (Bachlechner et al. 2021)."""

    def build(self, shape: Any) -> None:
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def call(self, x: Any) -> Any:
        return self.alpha * x


def residual(
    depth: int,
    branch: Literal["norm", "gate", "bare"] = "norm",
    activation: str = "relu",
    skip: float = 1.0,
    start: Any = "glorot_uniform",
) -> Body:
    def body(x: Any) -> Any:
        x = layers.Dense(64)(x)
        for _ in range(depth):
            h = layers.LayerNormalization()(x) if branch == "norm" else x
            h = layers.Dense(64, activation, kernel_initializer=_fresh(start))(h)
            h = layers.Dense(64, kernel_initializer=_fresh(start))(h)
            x = (x if skip == 1 else skip * x) + (Gate()(h) if branch == "gate" else h)
        return x

    return body


def adapters(activation: str = "relu", depth: int = 4, start: Any = "he_normal") -> Body:
    """Low-rank branches with a zero-initialised half beside a frozen body (LoRA, Hu et al.)."""

    def body(x: Any) -> Any:
        for _ in range(depth):
            base = layers.Dense(64, kernel_initializer=_fresh(start), trainable=False)(x)
            low = layers.Dense(8, use_bias=False)(x)
            low = layers.Dense(64, use_bias=False, kernel_initializer="zeros")(low)
            x = layers.Activation(activation)(base + low)
        return x

    return body


def transfer(activation: str, start: Any = "he_normal", depth: int = 8) -> Body:
    """A new first layer in front of a frozen body."""

    def body(x: Any) -> Any:
        x = layers.Dense(64)(x)
        for _ in range(depth):
            x = layers.Dense(64, activation, kernel_initializer=_fresh(start), trainable=False)(x)
        return x

    return body


def frozen_base(x: Any) -> Any:
    for _ in range(3):
        x = layers.Dense(256, "relu", kernel_initializer="he_normal", trainable=False)(x)
    return layers.Dense(32, "relu")(x)


def transformer(
    depth: int = 4,
    order: Literal["pre", "post", "none"] = "pre",
    skips: bool = True,
    activation: str = "gelu",
    start: Any = "glorot_uniform",
) -> Body:
    def body(x: Any) -> Any:
        x = Places()(layers.Dense(32)(layers.Reshape((8, 8))(x)))

        def block(x: Any, branch: Body) -> Any:
            h = branch(layers.LayerNormalization()(x) if order == "pre" else x)
            h = x + h if skips else h
            return layers.LayerNormalization()(h) if order == "post" else h

        for _ in range(depth):
            attention = layers.MultiHeadAttention(4, 8, kernel_initializer=_fresh(start))
            x = block(x, lambda h, attention=attention: attention(h, h))
            inner = layers.Dense(128, activation, kernel_initializer=_fresh(start))
            outer = layers.Dense(32, kernel_initializer=_fresh(start))
            x = block(x, lambda h, inner=inner, outer=outer: outer(inner(h)))
        return layers.Flatten()(x)

    return body


def recurrent(
    cell: Any, depth: int = 1, shape: tuple[int, int] | None = (8, 8), **options: Any
) -> Body:
    def body(x: Any) -> Any:
        x = layers.Reshape(shape)(x) if shape else x
        for number in range(depth):
            own = {key: _fresh(option) for key, option in options.items()}
            x = cell(32, return_sequences=number < depth - 1, **own)(x)
        return x

    return body


def chrono(steps: int) -> dict[str, Any]:
    """LSTM gates that start open for about `steps` steps (Tallec & Ollivier 2018)."""

    def bias(shape: Any, dtype: Any = None) -> Any:
        value = np.zeros(shape, np.float32)
        units = shape[0] // 4
        memory = np.log(np.random.default_rng(0).uniform(1, steps - 1, units))
        value[:units], value[units : 2 * units] = -memory, memory
        return value

    return {"bias_initializer": bias, "unit_forget_bias": False}


def encoder_decoder(
    cell: Any = layers.GRU, attention: bool = False, activation: str = "tanh", **options: Any
) -> Body:
    def body(x: Any) -> Any:
        x = layers.Embedding(27, 32)(x)
        h = cell(48, return_sequences=True, activation=activation, **options)(x)
        state = h[:, -1]
        y = Places()(layers.RepeatVector(8)(layers.Dense(32)(state)))
        y = cell(48, return_sequences=True)(y)
        if attention:
            y = layers.Concatenate()([y, layers.Attention()([y, h])])
            y = layers.Dense(48, "relu")(y)
        return y

    return body


def experts(starved: bool = True, bias: float = 0.0, activation: str = "relu") -> Body:
    """A soft mixture of four experts; one may be all but closed by the gate."""

    def body(x: Any) -> Any:
        for _ in range(2):
            closed = [-30.0 if starved else 0.0, 0.0, 0.0, 0.0]
            share = layers.Dense(
                4,
                "softmax",
                bias_initializer=lambda s, dtype=None, c=closed: np.array(c, "float32"),
            )(x)
            outputs = [
                layers.Dense(64, activation, bias_initializer=initializers.Constant(bias))(x)
                for _ in range(4)
            ]
            x = sum(share[:, n : n + 1] * output for n, output in enumerate(outputs))
        return x

    return body


def embedded(after: Body) -> Body:
    def body(x: Any) -> Any:
        words = layers.Rescaling(16.0)(x) + 17 * np.arange(64)
        return after(layers.Flatten()(layers.Embedding(17 * 64, 4)(words)))

    return body


# Optimizers.


def adam(rate: float = 1e-3, **options: Any) -> Callable[[], Any]:
    return lambda: optimizers.Adam(rate, **options)


def adamw(rate: float = 1e-3) -> Callable[[], Any]:
    return lambda: optimizers.AdamW(rate)


def sgd(rate: float = 0.1, momentum: float = 0.0, **options: Any) -> Callable[[], Any]:
    return lambda: optimizers.SGD(rate, momentum, **options)


def warm_up(rate: float, steps: int) -> Callable[[], Any]:
    schedule = optimizers.schedules.CosineDecay
    return lambda: optimizers.Adam(schedule(0.0, 1000, warmup_target=rate, warmup_steps=steps))
