"""The trend of a run's loss, from the noisy losses of its batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean, median

#: The number of losses whose median is a level.
LEVEL = 20

#: The number of first losses whose median is the first level.
FIRST = 10

#: The number of losses in a row that must be NaN or infinite. A single bad batch is only skipped.
NONFINITE = 5

#: The loss is far off if its level exceeds the first level by FAR times that level and also exceeds
#: all of the first losses. It is far off in any case if it exceeds the first level by FAR_ENOUGH
#: times that level.
FAR, FAR_ENOUGH = 1.0, 9.0

#: The loss has diverged if it has been far off for FAR_STEPS steps in a row, or if it has lost more
#: than half of its progress for BACK_STEPS steps in a row.
FAR_STEPS, BACK_STEPS = 20, 200

#: The loss has really come down if it has lost this share of its first level.
PROGRESS = 0.5

#: The number of losses that are tested for oscillation, and the autocorrelation of neighbours below
#: which they oscillate. For independent losses, it is nearly five standard deviations.
WINDOW, ALTERNATING = 64, -0.6


@dataclass(frozen=True)
class LossTrend:
    """The trend of a run's loss. `after` returns the trend with more losses.

    A level is the median of consecutive losses, so single batches do not count. Multiplying all
    losses by a positive constant changes the levels and no other property.

    Attributes:
        count: The number of finite losses so far.
        first: The first level: the median of the first losses; NaN before the first loss.
        high: The largest of the first losses.
        best: The lowest level so far; NaN before there are enough losses.
        tail: The last finite losses, at most `WINDOW`.
        nonfinite_run: The number of last losses in a row that were NaN or infinite.
        far_run: The number of steps in a row for which the level has been far above the first one.
        back_run: The number of steps in a row for which more than half of the progress has been
            lost.
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
        """Returns the trend with more losses.

        Args:
            losses: The losses, oldest first.
        """
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
        """Returns the trend after the run went back to a good state. The levels stay."""
        return replace(self, tail=(), nonfinite_run=0, far_run=0, back_run=0)

    @property
    def recent(self) -> float:
        """The level of the last losses; NaN before there are enough."""
        return median(self.tail[-LEVEL:]) if len(self.tail) >= FIRST else math.nan

    @property
    def fallen(self) -> float:
        """The fall from the first level to the best, as a share of the first; NaN if unknown."""
        if math.isnan(self.best):
            return math.nan
        return (self.first - self.best) / abs(self.first) if self.first else 0.0

    @property
    def nonfinite(self) -> bool:
        """Whether several last losses in a row are NaN or infinite."""
        return self.nonfinite_run >= NONFINITE

    @property
    def diverged(self) -> bool:
        """Whether the loss has risen far above its first level, or lost its progress."""
        return self.far_run >= FAR_STEPS or self.back_run >= BACK_STEPS

    @property
    def oscillating(self) -> bool:
        """Whether the loss goes up and down from step to step without progress."""
        if len(self.tail) < WINDOW or self.recent < self.first - 0.05 * abs(self.first):
            return False
        mean = fmean(self.tail)
        apart = [loss - mean for loss in self.tail]
        scale = max(map(abs, apart))
        if not scale > 0 or math.isinf(scale):
            return False
        # Division by the largest value keeps the squares in range.
        apart = [value / scale for value in apart]
        together = sum(a * b for a, b in zip(apart, apart[1:]))
        return together < ALTERNATING * sum(value * value for value in apart)
