"""The images that most small models of the tests are trained on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Array = npt.NDArray[Any]


def digits(samples: int = 64) -> tuple[Array, Array]:
    """Images of 64 pixels in [0, 1], and what they show; copies, which may be changed."""
    images, labels = _all()
    return images[:samples].copy(), labels[:samples].copy()


@functools.cache
def _all() -> tuple[Array, Array]:
    found = load_digits()
    return found.data.astype(np.float32) / 16, found.target
