"""The limits of clipping, as a policy gives them to the train step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the guard in the train step works with until the policies are asked again.

    Attributes:
        fires_above: A gradient is clipped where its global norm lies above it. Infinite: none is.
        clips_to: The global norm that it is clipped to.
        reach: A bound without history. The guard also fires where the learning rate times the
            norm lies above `reach` times the norm of the weights, and clips to a tenth of that.
            Infinite: it never does.
        smallest_norm: None where the limits are those of the global norm. A number makes
            `fires_above` the limit of each unit's ratio, the norm of its gradient over the norm
            of its weights; weights with a smaller norm count as this number. It is built into
            the train step, so a policy gives the same kind of limits throughout a run.
    """

    fires_above: float = math.inf
    clips_to: float = math.inf
    reach: float = math.inf
    smallest_norm: float | None = None
