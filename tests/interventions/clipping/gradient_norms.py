"""Norms of gradients, and what a clipping policy makes of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from keras_vanish.interventions import Limits

NORMS = st.lists(st.floats(1e-9, 1e9), max_size=80)


def limits(policy: Any, norms: list[float]) -> Limits:
    return policy.limits(policy.after(policy.begin(), norms))
