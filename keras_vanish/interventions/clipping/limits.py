"""The limits that a clipping policy passes to the train step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits that the train step applies until the policy is asked again.

    Attributes:
        fires_above: The global norm at or above which a gradient is clipped. Infinity turns this
            off.
        clips_to: The global norm to which such a gradient is scaled.
        reach: A second limit that needs no history. If the learning rate times the gradient norm is
            at least `reach` times the norm of the weights, the gradient is scaled to a tenth of
            that limit. Infinity turns this off.
        smallest_norm: None if `fires_above` limits the global norm. A number makes `fires_above`
            the limit on each unit's ratio of gradient norm to weight norm; smaller weight norms
            count as this number. The choice is compiled into the train step, so a policy must
            return the same kind of limits throughout a run.
    """

    fires_above: float = math.inf
    clips_to: float = math.inf
    reach: float = math.inf
    smallest_norm: float | None = None


def exp_or_inf(value: float) -> float:
    """Returns `exp(value)`, or infinity where a float cannot hold it."""
    return math.exp(value) if value < 709 else math.inf
