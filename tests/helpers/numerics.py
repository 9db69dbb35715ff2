"""Numbers made and measured slowly, and without the code that is tested."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


def rms(*tensors: Any) -> float:
    """The root mean square of all entries, in float64."""
    flat = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in tensors])
    return float(np.sqrt(np.mean(flat**2)))


def noisy(level: float, steps: int, spread: float = 0.3, seed: int = 0) -> list[float]:
    """A level with the noise of batches, which is skewed.

    Args:
        level: The median.
        steps: How many there are.
        spread: The standard deviation of the logarithm.
        seed: Of the noise.
    """
    dice = random.Random(seed)
    return [level * dice.lognormvariate(0.0, spread) for _ in range(steps)]
