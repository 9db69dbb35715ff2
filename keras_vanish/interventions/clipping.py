"""When the guard clips, and to what: policies over the norms of the steps before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number, check_whole


@dataclass(frozen=True)
class Limits:
    """What the guard works with until the next look.

    Attributes:
        fires_above: Gradients with a larger global norm are clipped; infinite: none is.
        clips_to: The norm that they are clipped to.
    """

    fires_above: float = math.inf
    clips_to: float = math.inf


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
        return Limits(*map(_exp, self._logs(state)))

    def _logs(self, state: NormHistory) -> tuple[float, float]:
        if state.count < self.history:
            return math.inf, math.inf
        above = max(self.z * math.sqrt(state.variance), math.log(self.factor))
        fires_above = max(state.mean + above, state.largest + math.log(self.beyond))
        return fires_above, state.mean + above / 4


@dataclass(frozen=True)
class PercentileClipping:
    """Clips to a percentile of all norms so far, as AutoClip.

    Seetharaman et al., "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
    2020. Most steps are clipped; healthy ones too. The norms are counted in bins that are 2.2%
    wide, at most 32 for each power of two: the limit is within 1.1% of the percentile, and the
    memory bounded.

    Attributes:
        percentile: In (0, 100]; AutoClip's authors recommend 10.
    """

    percentile: float = 10.0

    def __post_init__(self) -> None:
        check_number("percentile", self.percentile, above=0.0)
        if self.percentile > 100:
            raise ValueError(
                f"percentile must be at most 100. Received: percentile={self.percentile!r}."
            )

    def begin(self) -> Mapping[int, int]:
        """The state before the first step: how many norms are in each bin."""
        return {}

    def after(self, state: Mapping[int, int], norms: Iterable[float]) -> Mapping[int, int]:
        """The state with more norms."""
        counts = dict(state)
        for norm in norms:
            if 0 < norm < math.inf:
                place = round(math.log2(norm) * _BINS)
                counts[place] = counts.get(place, 0) + 1
        return counts

    def limits(self, state: Mapping[int, int]) -> Limits:
        """What the guard works with until the next look."""
        wanted = self.percentile / 100 * sum(state.values())
        seen = 0
        for place in sorted(state):
            seen += state[place]
            if seen >= wanted:
                limit = _exp(place / _BINS * math.log(2))
                return Limits(limit, limit)
        return Limits()


#: Bins for each power of two.
_BINS = 32


@dataclass(frozen=True)
class NormClipping:
    """Clips to a fixed global norm (Pascanu et al. 2013).

    Attributes:
        norm: The largest norm that is let through.
    """

    norm: float

    def __post_init__(self) -> None:
        check_number("norm", self.norm, above=0.0)

    def begin(self) -> None:
        """It has no state."""

    def after(self, state: None, norms: Iterable[float]) -> None:
        """It has no state."""

    def limits(self, state: None) -> Limits:
        """Always the same."""
        return Limits(float(self.norm), float(self.norm))


@dataclass(frozen=True)
class AdaptiveClipping:
    """Clips each unit's gradient to a share of that unit's weights, as AGC.

    Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
    arXiv:2102.06171. The guard does it, at every step; no history is needed.

    Attributes:
        clipping: The largest norm of a unit's gradient over that of its weights.
        eps: The least norm of weights that counts, so that what begins at zero can move.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_number("clipping", self.clipping, above=0.0)
        check_number("eps", self.eps, above=0.0)

    def begin(self) -> None:
        """It has no state."""

    def after(self, state: None, norms: Iterable[float]) -> None:
        """It has no state."""

    def limits(self, state: None) -> Limits:
        """Always the same: of the ratio of a unit's norms."""
        return Limits(fires_above=float(self.clipping))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
