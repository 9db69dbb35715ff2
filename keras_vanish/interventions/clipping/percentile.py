"""Clipping to a percentile of all norms so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits

#: Bins for each power of two.
_BINS = 32


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


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
