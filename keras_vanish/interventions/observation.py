"""The observation on which a policy bases its decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from keras_vanish.diagnosis import Diagnosis, Verdict
from keras_vanish.diagnosis.progress import LEARNED_SHARE, learned_share
from keras_vanish.records.step_log import StepLog

#: If the update follows the gradient, the ratio of update to gradient differs between layers by at
#: most this factor.
_ALONG = 1.05

#: After clipping, a median update ratio above this value is still large.
_LET_THROUGH = 0.01

#: With momentum 0.9, a gradient moves the weights by this many times its first update in total.
_USUAL_REACH = 10


@dataclass(frozen=True)
class Observation:
    """The state of a run that the monitor shows to the policies every `update_freq` steps.

    Attributes:
        step: The number of updates that the optimizer had applied.
        diagnosis: The diagnosis of the last recorded update. None if no update was recorded since
            the previous observation.
        verdict: The run's verdict so far.
        learned: Whether the run has learned anything from its input. None if unknown.
        log: The losses and gradient norms of every step since the previous observation.
    """

    step: int
    diagnosis: Diagnosis | None
    verdict: Verdict
    learned: bool | None
    log: StepLog

    def steps_since(self, step: int) -> int:
        """Returns the number of train steps since the previous observation, at least 1.

        Args:
            step: The `step` of the previous observation. It is used only if the log holds neither
                losses nor norms.
        """
        seen = max(len(self.log.losses), len(self.log.norms))
        return seen or max(1, self.step - step)

    @property
    def update_ratio(self) -> float:
        """The median of the layers' update ratios; NaN if none is known."""
        known = self.update_ratios
        return median(known) if known else math.nan

    @property
    def update_ratios(self) -> tuple[float, ...]:
        """The known update ratios of the layers, from input to output."""
        if self.diagnosis is None:
            return ()
        ratios = self.diagnosis.reading.update_ratios.tolist()
        return tuple(ratio for ratio in ratios if ratio == ratio)

    def right_ratio(self, aim: float) -> float:
        """Returns the median update ratio that suits the run, given its momentum.

        In total, a gradient moves the weights by `1 / (1 - momentum)` times its first update. So
        the ratio shrinks when the momentum exceeds 0.9.

        Args:
            aim: The ratio that suits a momentum of up to 0.9.
        """
        return aim * min(1.0, _USUAL_REACH * (1 - self.log.momentum))

    @property
    def share(self) -> float:
        """The share of the loss that the model saves by using its input; NaN if unknown."""
        return learned_share(self.diagnosis.reading.probed) if self.diagnosis else math.nan

    @property
    def unclipped_ratio(self) -> float:
        """The value that `update_ratio` would have had without clipping.

        It is known where the update follows the gradient: with plain gradient descent, and at the
        first step with momentum. Elsewhere it equals `update_ratio`.
        """
        ratio = self.update_ratio
        if self.diagnosis is None or not self.log.clipped:
            return ratio
        rates = [
            layer.update_rms / layer.gradient_rms
            for layer in self.diagnosis.reading.layers
            if layer.update_rms > 0 and 0 < layer.gradient_rms < math.inf
        ]
        if not rates or max(rates) > _ALONG * min(rates) or math.isnan(self.log.rate):
            return ratio
        return max(ratio, ratio * self.log.rate / median(rates))

    @property
    def saved_by_clipping(self) -> bool:
        """Whether clipping prevented an update as large as the weights.

        It is False if the clipped update was small, because the run may rely on clipping all the
        time.
        """
        large = self.unclipped_ratio >= 1 and self.update_ratio > _LET_THROUGH
        return large and self.log.clipped > 0

    @property
    def held(self) -> bool:
        """The same as `saved_by_clipping`, under the name that earlier versions gave it."""
        return self.saved_by_clipping

    @property
    def lost(self) -> str:
        """`"dead"` or `"saturated"` if units are lost in that way; otherwise the empty string."""
        if self.diagnosis is None or self.diagnosis.verdict != "vanishing":
            return ""
        cause = self.diagnosis.cause
        return cause if cause in ("dead", "saturated") else ""

    @property
    def knows_nothing(self) -> bool:
        """Whether the model saves less than 5% of the loss by using its input; False if unknown."""
        return self.share < LEARNED_SHARE

    @property
    def thrown(self) -> bool:
        """Whether the last diagnosis found an update about as large as the weights."""
        return (
            self.diagnosis is not None
            and self.diagnosis.verdict == "exploding"
            and self.diagnosis.cause == "update"
        )
