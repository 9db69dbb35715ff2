"""The models whose training the benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers


@dataclass(frozen=True)
class Benchmark:
    """A model with the batch it is trained on.

    Attributes:
        body: Gives the layers between the input and the ten-way output.
        shape: Shape of one example.
        batch_size: Examples a batch.
        steps: Training steps in one timed run.
    """

    body: Callable[[Any], Any]
    shape: tuple[int, ...]
    batch_size: int
    steps: int

    def build(self, jit: bool) -> Any:
        """The compiled model."""
        inputs = keras.Input(self.shape)
        model = keras.Model(inputs, layers.Dense(10)(self.body(inputs)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=jit)
        return model

    def batch(self) -> tuple[Any, Any]:
        """Random inputs, float32 of shape `[batch_size, *shape]`, and int64 labels.

        The time of a step does not depend on the values.
        """
        random = np.random.default_rng(0)
        x = random.standard_normal((self.batch_size, *self.shape)).astype(np.float32)
        return x, random.integers(0, 10, self.batch_size)


def _mlp(width: int, depth: int) -> Callable[[Any], Any]:
    def body(x: Any) -> Any:
        for _ in range(depth):
            x = layers.Dense(width, activation="relu")(x)
        return x

    return body


def _cnn(x: Any) -> Any:
    for filters in (32, 64, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    return layers.GlobalAveragePooling2D()(x)


def _transformer(x: Any) -> Any:
    x = layers.Dense(128)(x)
    for _ in range(4):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 32)(h, h)
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(128)(layers.Dense(512, activation="gelu")(h))
    return layers.GlobalAveragePooling1D()(x)


BENCHMARKS = {
    "MLP 10×128": Benchmark(_mlp(128, 10), (64,), 128, 200),
    "MLP 20M": Benchmark(_mlp(1500, 9), (1500,), 128, 10),
    "CNN": Benchmark(_cnn, (32, 32, 3), 32, 30),
    "LSTM": Benchmark(
        lambda x: layers.LSTM(64)(layers.LSTM(64, return_sequences=True)(x)), (50, 16), 32, 30
    ),
    "transformer": Benchmark(_transformer, (32, 16), 16, 20),
}
