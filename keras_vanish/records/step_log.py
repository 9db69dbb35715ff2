"""What was seen of every step, recorded or not."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepLog:
    """What was seen of every step since the last observation, recorded or not.

    Attributes:
        norms: Global norm of the gradient of each update before any clipping, oldest first; not
            finite where the gradient was not.
        losses: Loss of each train step, oldest first; not finite where it was not. Empty where
            the loss is unknown.
        clipped: How many updates were clipped.
        skipped: How many steps were skipped because their gradient was not finite.
        stalled: Whether no update at all was applied.
        rate: Learning rate of the last update; NaN where it is unknown.
        momentum: The share of each update that the next one repeats, in [0, 1).
    """

    norms: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    clipped: int = 0
    skipped: int = 0
    stalled: bool = False
    rate: float = math.nan
    momentum: float = 0.0
