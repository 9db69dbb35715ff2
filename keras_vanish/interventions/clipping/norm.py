"""Clipping to a fixed global norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_vanish.interventions.checks import check_number
from keras_vanish.interventions.clipping.limits import Limits


@dataclass(frozen=True)
class NormClipping:
    """Clips gradients to a fixed global norm.

    ```python
    from keras_vanish.interventions import NormClipping

    GradientMonitor("logs", auto_clip=NormClipping(norm=1.0))
    ```

    Reference:
        Pascanu et al., "On the difficulty of training recurrent neural networks", 2013,
        arXiv:1211.5063.

    Attributes:
        norm: The largest global norm that passes unchanged.

    Raises:
        ValueError: If `norm` is not a positive number.
    """

    norm: float

    def __post_init__(self) -> None:
        check_number("norm", self.norm, above=0.0)

    def begin(self) -> None:
        """Returns None: the policy keeps no state."""

    def after(self, state: None, norms: Iterable[float]) -> None:
        """Returns None: the policy keeps no state."""

    def limits(self, state: None) -> Limits:
        """Returns a constant limit on the global norm."""
        return Limits(float(self.norm), float(self.norm))
