"""Where a run's loss is going, from the noisy losses of its batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean, median

#: How many losses a level is the median of.
LEVEL = 20

#: How many of the first losses make the first level.
FIRST = 10

#: How many losses in a row must be NaN or infinite. One bad batch, which is skipped, is not it.
NONFINITE = 5

#: The level has diverged where it is above the first level by this share of it, and above all of
#: the first losses; or above the first level by the second share, whatever those were ...
FAR, FAR_ENOUGH = 1.0, 9.0

#: ... for this many steps in a row; or where it has lost more than half of the way that it had
#: come down, for that many.
FAR_STEPS, BACK_STEPS = 20, 200

#: The loss has really come down where it has lost this share of its first level.
PROGRESS = 0.5

#: How many losses tell whether they oscillate, and the autocorrelation of neighbours below
#: which they do: nearly five standard deviations for independent losses.
WINDOW, ALTERNATING = 64, -0.6


@dataclass(frozen=True)
class LossTrend:
    """What is known of the loss of a run; `after` gives the one with more losses.

    Levels are medians of neighbouring losses, so that single batches do not count. Multiplying
    all losses by a positive constant changes no property but the levels.

    Attributes:
        count: How many finite losses were seen.
        first: The first level, the median of the first losses; NaN before there is one.
        high: The largest of the first losses.
        best: The lowest level since; NaN before there is one.
        tail: The last finite losses, at most `WINDOW`.
        nonfinite_run: How many of the last losses in a row were not finite.
        far_run: For how many steps in a row the level has been far above the first one.
        back_run: For how many steps in a row more than half of the progress has been lost.
    """

    count: int = 0
    first: float = math.nan
    high: float = -math.inf
    best: float = math.nan
    tail: tuple[float, ...] = ()
    nonfinite_run: int = 0
    far_run: int = 0
    back_run: int = 0

    def after(self, losses: Iterable[float]) -> LossTrend:
        """The trend with more losses, oldest first."""
        count, first, high, best = self.count, self.first, self.high, self.best
        tail = list(self.tail)
        nonfinite_run, far_run, back_run = self.nonfinite_run, self.far_run, self.back_run
        for loss in losses:
            if not math.isfinite(loss):
                nonfinite_run += 1
                continue
            nonfinite_run = 0
            count += 1
            tail = [*tail[-WINDOW + 1 :], loss]
            if count <= FIRST:
                first, high = median(tail), max(high, loss)
            if len(tail) < FIRST:
                continue
            level = median(tail[-LEVEL:])
            best = level if math.isnan(best) else min(best, level)
            far = max(first + FAR * abs(first), min(high, first + FAR_ENOUGH * abs(first)))
            far_run = far_run + 1 if level > far else 0
            come_down = first - best
            lost = come_down > PROGRESS * abs(first) and level > best + come_down / 2
            back_run = back_run + 1 if lost else 0
        return LossTrend(count, first, high, best, tuple(tail), nonfinite_run, far_run, back_run)

    def restored(self) -> LossTrend:
        """The trend of a run that was taken back to a good state: the levels stay."""
        return replace(self, tail=(), nonfinite_run=0, far_run=0, back_run=0)

    @property
    def recent(self) -> float:
        """The level of the last losses; NaN before there are enough."""
        return median(self.tail[-LEVEL:]) if len(self.tail) >= FIRST else math.nan

    @property
    def fallen(self) -> float:
        """The share of the first level that the best one lies below it; NaN if not known."""
        if math.isnan(self.best):
            return math.nan
        return (self.first - self.best) / abs(self.first) if self.first else 0.0

    @property
    def nonfinite(self) -> bool:
        """Whether the last losses are not finite, persistently."""
        return self.nonfinite_run >= NONFINITE

    @property
    def diverged(self) -> bool:
        """Whether the loss has risen far above its first level, or lost what it had won."""
        return self.far_run >= FAR_STEPS or self.back_run >= BACK_STEPS

    @property
    def oscillating(self) -> bool:
        """Whether the loss goes up and down from step to step, and nothing is won by it."""
        if len(self.tail) < WINDOW or self.recent < self.first - 0.05 * abs(self.first):
            return False
        mean = fmean(self.tail)
        apart = [loss - mean for loss in self.tail]
        scale = max(map(abs, apart))
        if not scale > 0 or math.isinf(scale):
            return False
        # The largest is taken out to stay in range.
        apart = [value / scale for value in apart]
        together = sum(a * b for a, b in zip(apart, apart[1:]))
        return together < ALTERNATING * sum(value * value for value in apart)
