"""The state of `LearningRateControl`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

from keras_vanish.diagnosis.loss_trend import LossTrend

#: The number of last update ratios that are kept, and how many are needed for the usual one.
KEPT, ENOUGH = 5, 3


@dataclass(frozen=True)
class RateState:
    """The state that `LearningRateControl` keeps between two observations.

    Attributes:
        factor: The factor on the learning rate.
        trend: The trend of the loss.
        step: The step of the previous observation.
        since: The number of steps since the factor changed.
        quiet: The number of steps since the last trouble or the last change of the factor.
        cuts: The number of cuts with no long calm between them.
        failed: Whether a trial of a larger rate failed, or the rate has since proved too large.
        before: The factor before the trial that is going on; NaN without one.
        level: The loss when the trial began; NaN without one.
        updates: The number of updates since clipping was last judged.
        clipped: How many of those updates were clipped.
        base: The learning rate without the factor.
        starved: The number of steps for which all updates have been too small to matter.
        looks: The number of observations in the same time.
        ratio: The median update ratio at the last observation without trouble; NaN before one.
        raisable: Whether the factor may exceed 1. It may until the rate is first lowered.
        renewed: Whether the run has received new weights, for which the rate was not chosen.
        unchecked: Whether the rate was cut deeply and no update has been seen since.
        ratios: The last median update ratios since the factor changed.
        low: The best loss level since the factor changed. Improvements of less than 5% do not
            count.
        still: The number of steps for which `low` has not come down.
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
        """Whether a larger factor is on trial."""
        return not math.isnan(self.before)

    @property
    def usual_ratio(self) -> float:
        """The usual median update ratio since the factor changed; NaN if unknown."""
        return median(self.ratios) if len(self.ratios) >= ENOUGH else math.nan


def counted_anew(state: RateState) -> RateState:
    """Returns the state with all counts since the last change set back."""
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
