"""Clipping to a percentile of all global norms so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits, exp_or_inf

#: The number of bins for each power of two.
_BINS = 32


@dataclass(frozen=True)
class PercentileClipping:
    """Clips gradients to a percentile of all global norms so far, as AutoClip does.

    Most steps are clipped, in healthy runs too. The policy counts norms in bins, 32 for each power
    of two. So the limit lies within 1.1% of the percentile, and the memory stays bounded.

    ```python
    from keras_vanish.interventions import PercentileClipping

    GradientMonitor("logs", auto_clip=PercentileClipping(percentile=10))
    ```

    Reference:
        Seetharaman et al., "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
        2020, arXiv:2007.14469.

    Attributes:
        percentile: The percentile, in (0, 100]. The authors of AutoClip recommend 10.

    Raises:
        ValueError: If `percentile` is not a number in (0, 100].
    """

    percentile: float = 10.0

    def __post_init__(self) -> None:
        check_number("percentile", self.percentile, above=0.0)
        if self.percentile > 100:
            raise ValueError(
                f"percentile must be at most 100. Received: percentile={self.percentile!r}."
            )

    def begin(self) -> Mapping[int, int]:
        """Returns the state before the first step: the number of norms in each bin."""
        return {}

    def after(self, state: Mapping[int, int], norms: Iterable[float]) -> Mapping[int, int]:
        """Returns the state after more steps.

        Args:
            state: The state that `begin` or the previous call returned.
            norms: The global norm of each update's gradient. Norms that are zero or not finite are
                ignored.
        """
        counts = dict(state)
        for norm in norms:
            if 0 < norm < math.inf:
                place = round(math.log2(norm) * _BINS)
                counts[place] = counts.get(place, 0) + 1
        return counts

    def limits(self, state: Mapping[int, int]) -> Limits:
        """Returns the limits that the train step applies until the next call."""
        wanted = self.percentile / 100 * sum(state.values())
        seen = 0
        for place in sorted(state):
            seen += state[place]
            if seen >= wanted:
                limit = exp_or_inf(place / _BINS * math.log(2))
                return Limits(limit, limit)
        return Limits()
