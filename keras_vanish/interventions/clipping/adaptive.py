"""Clipping of each unit by the ratio of its gradient norm to its weight norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits


@dataclass(frozen=True)
class AdaptiveClipping:
    """Clips each unit's gradient to a share of that unit's weights: adaptive clipping (AGC).

    The train step applies the limit at every step. The policy needs no history.

    ```python
    from keras_vanish.interventions import AdaptiveClipping

    GradientMonitor("logs", auto_clip=AdaptiveClipping(clipping=0.01))
    ```

    Reference:
        Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
        arXiv:2102.06171.

    Attributes:
        clipping: The largest ratio of a unit's gradient norm to its weight norm.
        eps: The smallest weight norm that counts, so that weights that start at zero can move.

    Raises:
        ValueError: If a field is not a positive number.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_number("clipping", self.clipping, above=0.0)
        check_number("eps", self.eps, above=0.0)

    def begin(self) -> None:
        """Returns None: the policy keeps no state."""

    def after(self, state: None, norms: Iterable[float]) -> None:
        """Returns None: the policy keeps no state."""

    def limits(self, state: None) -> Limits:
        """Returns a constant limit on the ratio of each unit's norms."""
        return Limits(fires_above=float(self.clipping), smallest_norm=float(self.eps))
