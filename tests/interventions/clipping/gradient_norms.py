"""Norms of gradients, and what a clipping policy makes of them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from keras_vanish.interventions import Limits

NORMS = st.lists(st.floats(1e-9, 1e9), max_size=80)


def noisy(level: float, steps: int, spread: float = 0.3, seed: int = 0) -> list[float]:
    dice = random.Random(seed)
    return [level * dice.lognormvariate(0.0, spread) for _ in range(steps)]


def limits(policy: Any, norms: list[float]) -> Limits:
    return policy.limits(policy.after(policy.begin(), norms))
