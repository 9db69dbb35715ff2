"""Models of a few layers whose rate is 0, and numbers to feed them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

RNG = np.random.default_rng(0)


def compiled(model: Any, loss: Any = "mse", **arguments: Any) -> Any:
    """The model, compiled so that no step changes it."""
    model.compile(keras.optimizers.SGD(0.0), loss, **arguments)
    return model


def sequential(*stack: Any, loss: Any = "mse") -> Any:
    """A compiled model of these layers, from the same seed as any other."""
    keras.utils.set_random_seed(1)
    return compiled(keras.Sequential(list(stack)), loss)


def numbers(*shape: int) -> np.ndarray:
    """Normal numbers, other ones at each call."""
    return RNG.normal(size=shape).astype(np.float32)
