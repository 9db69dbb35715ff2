"""Clipping of outliers by the z-score of the norm's logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number, check_whole
from keras_vanish.interventions.clipping.limits import Limits, exp_or_inf


@dataclass(frozen=True)
class NormHistory:
    """The history of gradient norms that `ZScoreClipping` keeps, as natural logarithms.

    Attributes:
        count: The number of norms so far.
        mean: Their exponential moving average.
        variance: The moving average of their squared distance from the mean.
        largest: The largest of them.

    Raises:
        ValueError: If the mean is not finite, or the variance is negative or NaN.
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
    """Clips outliers only: norms far above their moving average and above every earlier norm.

    The policy follows ZClip, but works on the logarithm of the global norm. Norms are skewed, and
    late in training they vary by orders of magnitude in a healthy run. With `m` and `s` the moving
    mean and standard deviation of the logarithm, it fires where the norm is above all of

        exp(m + z * s),   factor * exp(m),   beyond * (the largest norm so far)

    and clips to `exp(m + max(z * s, log(factor)) / 4)`. A clipped norm enters the average with its
    clipped value, so the policy adapts to a lasting new level. Multiplying all norms by a constant
    multiplies both limits by it. Norms that are zero or not finite are ignored.

    ```python
    from keras_vanish.interventions import ZScoreClipping

    GradientMonitor("logs", auto_clip=ZScoreClipping(z=6.0))
    ```

    Reference:
        Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025,
        arXiv:2504.02507.

    Attributes:
        z: The number of standard deviations above the mean at which the logarithm is an outlier.
        factor: The smallest multiple of the mean that is an outlier. After a plateau, the norms of
            a healthy run grow by a factor of 20 in 100 steps.
        beyond: The smallest multiple of the largest norm so far that is an outlier.
        decay: The weight of the past in the moving averages. The default is that of ZClip.
        history: The number of norms that must be seen before the policy fires. The default is that
            of ZClip.
        reach: A second limit that needs no history and applies from the first step. If the learning
            rate times the gradient norm is at least `reach` times the norm of the weights, the
            gradient is scaled to a tenth of that limit.

    Raises:
        ValueError: If a field is out of range.
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
        """Returns the state before the first step."""
        return NormHistory()

    def after(self, state: NormHistory, norms: Iterable[float]) -> NormHistory:
        """Returns the state after more steps.

        Args:
            state: The state that `begin` or the previous call returned.
            norms: The global norm of each update's gradient before clipping, oldest first.
        """
        for norm in norms:
            if not 0 < norm < math.inf:
                continue
            value = math.log(norm)
            fires_above, clips_to = self._logs(state)
            if value > fires_above:
                value = clips_to
            count = state.count + 1
            # The average is a plain mean at first and a moving one later. So it needs no bias
            # correction.
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
        """Returns the limits that the train step applies until the next call."""
        fires_above, clips_to = map(exp_or_inf, self._logs(state))
        return Limits(fires_above, clips_to, self.reach)

    def _logs(self, state: NormHistory) -> tuple[float, float]:
        if state.count < self.history:
            return math.inf, math.inf
        above = max(self.z * math.sqrt(state.variance), math.log(self.factor))
        fires_above = max(state.mean + above, state.largest + math.log(self.beyond))
        return fires_above, state.mean + above / 4
