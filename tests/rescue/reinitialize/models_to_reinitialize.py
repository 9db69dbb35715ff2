"""Small models and batches that the tests of new weights share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((32, 10)).astype(np.float32) + 3.0
PICTURES = RANDOM.random((16, 8, 8, 3)).astype(np.float32)
SEQUENCES = RANDOM.standard_normal((16, 20, 4)).astype(np.float32)


def values(layer: Any) -> list[np.ndarray]:
    return [v.numpy() for v in layer.variables]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other, equal_nan=True) for one, other in zip(a, b))


def before_activation(model: Any, layer: Any, x: Any) -> np.ndarray:
    """What a layer of a functional model computes before its activation function."""
    given = keras.Model(model.inputs[0], layer.input)(x)
    activation, layer.activation = layer.activation, None
    try:
        return layer(given).numpy()
    finally:
        layer.activation = activation


def sequential(shape: tuple[int, ...], *inside: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input(shape), *inside, layers.Dense(3, name="head")])
