"""Clipping of each unit by the ratio of its gradient to its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits


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
        return Limits(fires_above=float(self.clipping), smallest_norm=float(self.eps))
