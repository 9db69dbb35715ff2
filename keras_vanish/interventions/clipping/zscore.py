"""Clipping of outliers by the z-score of the norm's logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.clipping.limits import Limits


@dataclass(frozen=True)
class NormHistory:
    """What `ZScoreClipping` keeps of the norms, as natural logarithms.

    Attributes:
        count: How many norms were seen.
        mean: Their exponential moving average.
        variance: That of their squared distance from it.
        largest: The largest of them.
    """

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    largest: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.variance >= 0):
            raise ValueError(
                f"no norms have the mean {self.mean} and variance {self.variance}: the mean must "
                "be finite and the variance at least 0"
            )


@dataclass(frozen=True)
class ZScoreClipping:
    """Clips outliers only: norms far above an exponential moving average, and any seen before.

    As in ZClip (Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025,
    arXiv:2504.02507), but of the logarithm of the norm: norms are skewed, and late in training
    a healthy run's vary by orders of magnitude. With `m` and `s` the moving mean and standard
    deviation of the logarithm, it fires where the norm is above all of

        exp(m + z * s),   factor * exp(m),   beyond * (the largest norm so far)

    and clips to `exp(m + max(z * s, log(factor)) / 4)`. What is clipped enters the average as
    what it was clipped to, so a new level that lasts is reached in time. Multiplying all norms
    by a constant multiplies both limits by it. Norms that are zero or not finite do not count.

    Attributes:
        z: How many standard deviations of the logarithm an outlier lies above the mean.
        factor: How many times the mean it is at least. Where a plateau ends, a healthy run's
            norms grow by a factor of 20 in 100 steps.
        beyond: How many times the largest norm so far it is at least.
        decay: Weight of the past in the averages; ZClip's.
        history: How many norms must be seen before it fires; ZClip's.
        reach: A bound without history, armed from the first step: the guard fires where the
            learning rate times the norm is above `reach` times the norm of the weights, and
            clips to a tenth of that.
    """

    z: float = 6.0
    factor: float = 50.0
    beyond: float = 2.0
    decay: float = 0.97
    history: int = 25
    reach: float = 1.0

    def __post_init__(self) -> None:
        check_number("z", self.z, above=0.0)
        check_number("factor", self.factor, above=1.0)
        check_number("beyond", self.beyond, above=0.0)
        check_number("decay", self.decay, above=0.0, below=1.0)
        check_whole("history", self.history, least=2)
        check_number("reach", self.reach, above=0.0)

    def begin(self) -> NormHistory:
        """The state before the first step."""
        return NormHistory()

    def after(self, state: NormHistory, norms: Iterable[float]) -> NormHistory:
        """The state with more norms, oldest first."""
        for norm in norms:
            if not 0 < norm < math.inf:
                continue
            value = math.log(norm)
            fires_above, clips_to = self._logs(state)
            if value > fires_above:
                value = clips_to
            count = state.count + 1
            # A mean of all at first, a moving one later: nothing to correct for.
            weight = max(1.0 / count, 1.0 - self.decay)
            apart = value - state.mean
            state = NormHistory(
                count=count,
                mean=state.mean + weight * apart,
                variance=(1.0 - weight) * (state.variance + weight * apart * apart),
                largest=max(state.largest, value),
            )
        return state

    def limits(self, state: NormHistory) -> Limits:
        """What the guard works with until the next look."""
        fires_above, clips_to = map(_exp, self._logs(state))
        return Limits(fires_above, clips_to, self.reach)

    def _logs(self, state: NormHistory) -> tuple[float, float]:
        if state.count < self.history:
            return math.inf, math.inf
        above = max(self.z * math.sqrt(state.variance), math.log(self.factor))
        fires_above = max(state.mean + above, state.largest + math.log(self.beyond))
        return fires_above, state.mean + above / 4


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
