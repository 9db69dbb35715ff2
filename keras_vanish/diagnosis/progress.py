"""Whether a run learns: the one definition that findings and policies use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading

#: A run has learned something once looking at the input saves this share of the loss.
LEARNED_SHARE = 0.05

#: How many readings must be there before a run can be said not to have learned anything.
PATIENCE = 3


def learned_share(probed: Probed | None) -> float:
    """The share of the loss that the model saves because it looks at its input.

    `1 - loss / shuffled_loss`: 0 for a model that only knows how frequent each label is, 1
    for one that is always right. The idea is that of permutation importance (Breiman,
    "Random Forests", 2001), for all of the input at once.

    Returns:
        The share, below 0 by chance; NaN where it cannot be known.
    """
    if probed is None or not math.isfinite(probed.loss) or not probed.shuffled_loss:
        return math.nan
    return (probed.shuffled_loss - probed.loss) / abs(probed.shuffled_loss)


@dataclass(frozen=True)
class LearningProgress:
    """Whether a run has learned anything, as far as the probe saw.

    Attributes:
        count: How many readings tell.
        share: The `learned_share` of the last one.
        best: The largest mean share of two readings that follow each other.
    """

    count: int = 0
    share: float = math.nan
    best: float = -math.inf

    def after(self, reading: Reading) -> LearningProgress:
        """The progress with one more reading; a reading that does not tell changes nothing."""
        share = learned_share(reading.probed)
        if not math.isfinite(share):
            return self
        if self.count == 0:
            return LearningProgress(1, share)
        return LearningProgress(self.count + 1, share, max(self.best, (self.share + share) / 2))

    @property
    def learned(self) -> bool | None:
        """Whether it has reached `LEARNED_SHARE`; None before that can be told."""
        if self.best >= LEARNED_SHARE:
            return True
        return False if self.count >= PATIENCE else None
