"""Clipping to a fixed global norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits


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
