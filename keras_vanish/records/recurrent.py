"""How far back in time a gradient reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: A time step lies within the horizon while its gradient is at least this share of the last one.
HORIZON_SHARE = 0.01


@dataclass(frozen=True)
class RecurrentReading:
    """How far back in time the gradient reaches in one recurrent layer.

    Attributes:
        rms: RMS of dL/dh_t, the gradient with respect to the layer's state, at each time step
            that the layer went through, in their order; NaN where there was no gradient.
    """

    rms: tuple[float, ...]

    @property
    def horizon(self) -> float:
        """How many steps back from the last one the gradient stays at 1% of that or more.

        It is at most one less than the number of time steps, and NaN unless the last gradient
        is a positive number.
        """
        last = self.rms[-1] if self.rms else math.nan
        if not 0 < last < math.inf:
            return math.nan
        back = 0
        for value in self.rms[-2::-1]:
            if not value >= HORIZON_SHARE * last:
                break
            back += 1
        return float(back)
