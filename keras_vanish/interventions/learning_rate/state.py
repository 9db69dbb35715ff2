"""What `LearningRateControl` keeps of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

from keras_vanish.diagnosis.loss_trend import LossTrend

#: How many of the last update ratios are kept, and how many of them tell what is usual.
KEPT, ENOUGH = 5, 3


@dataclass(frozen=True)
class RateState:
    """What `LearningRateControl` keeps from look to look.

    Attributes:
        factor: What the learning rate is multiplied by.
        trend: Where the loss is going.
        step: Of the look before.
        since: Steps since the factor changed.
        quiet: Steps since there was trouble, or the factor changed.
        cuts: How often it was lowered with no calm between.
        failed: Whether a larger rate was tried and failed, or the last one was too large.
        before: The factor before the last restoring or raising, while that is on probation.
        level: The loss then.
        updates: Updates since the guard's clipping was last judged.
        clipped: How many of those it clipped.
        base: The learning rate without the factor.
        starved: For how many steps the run has been starved evenly.
        looks: For how many looks.
        ratio: The median update ratio at the last look without trouble; NaN before one.
        raisable: Whether the rate may be raised: it never had to be lowered.
        renewed: Whether the weights are not those that the rate was chosen for.
        unchecked: Whether it was lowered by much and no update has been seen since.
        ratios: The last median update ratios since the factor changed.
        low: The best level of the loss since then, but for small steps.
        still: For how many steps that has not come down.
    """

    factor: float = 1.0
    trend: LossTrend = field(default_factory=LossTrend)
    step: int = 0
    since: float = math.inf
    quiet: int = 0
    cuts: int = 0
    failed: bool = False
    before: float = math.nan
    level: float = math.nan
    updates: int = 0
    clipped: int = 0
    base: float = math.nan
    starved: int = 0
    looks: int = 0
    ratio: float = math.nan
    raisable: bool = True
    renewed: bool = False
    unchecked: bool = False
    ratios: tuple[float, ...] = ()
    low: float = math.inf
    still: int = 0

    @property
    def on_trial(self) -> bool:
        """Whether a larger factor is on probation."""
        return not math.isnan(self.before)

    @property
    def usual_ratio(self) -> float:
        """The usual median update ratio since the factor changed; NaN where it is not known."""
        return median(self.ratios) if len(self.ratios) >= ENOUGH else math.nan


def counted_anew(state: RateState) -> RateState:
    """The state in which everything is counted from this step on."""
    return replace(
        state,
        since=0,
        quiet=0,
        updates=0,
        clipped=0,
        starved=0,
        looks=0,
        ratios=(),
        low=math.inf,
        still=0,
    )
