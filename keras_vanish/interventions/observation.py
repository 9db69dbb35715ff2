"""What a policy is given to decide on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from keras_vanish.diagnosis import Diagnosis, Verdict
from keras_vanish.diagnosis.progress import LEARNED_SHARE, learned_share
from keras_vanish.records.step_log import StepLog

#: Layers' updates over their gradients differ by less where the update goes along the gradient.
_ALONG = 1.05

#: A median update ratio above this is large, and more so one after clipping.
_LET_THROUGH = 0.01

#: How many times its first update a gradient moves the weights in the end, with momentum 0.9.
_USUAL_REACH = 10


@dataclass(frozen=True)
class Observation:
    """What the policies are given, every `update_freq` steps.

    Attributes:
        step: How many updates the optimizer had applied.
        diagnosis: Of the last recorded update; None if none was recorded since the look
            before.
        verdict: The run's verdict so far.
        learned: Whether the run has learned anything of its input; None if that is not known.
        log: What was seen of every step since the look before.
    """

    step: int
    diagnosis: Diagnosis | None
    verdict: Verdict
    learned: bool | None
    log: StepLog

    def steps_since(self, step: int) -> int:
        """How many train steps were taken since the look before, at least 1.

        Args:
            step: Of the observation before; it tells where neither losses nor norms are known.
        """
        seen = max(len(self.log.losses), len(self.log.norms))
        return seen or max(1, self.step - step)

    @property
    def update_ratio(self) -> float:
        """The median of the layers' update ratios; NaN where none is known."""
        known = self.update_ratios
        return median(known) if known else math.nan

    @property
    def update_ratios(self) -> tuple[float, ...]:
        """The update ratios of the layers where it is known, input side first."""
        if self.diagnosis is None:
            return ()
        ratios = self.diagnosis.reading.update_ratios.tolist()
        return tuple(ratio for ratio in ratios if ratio == ratio)

    def right_ratio(self, aim: float) -> float:
        """The median update ratio that is right for the run, whatever its momentum.

        A gradient moves the weights by `1 / (1 - momentum)` times its first update in the end.

        Args:
            aim: The ratio that is right up to a momentum of 0.9.
        """
        return aim * min(1.0, _USUAL_REACH * (1 - self.log.momentum))

    @property
    def share(self) -> float:
        """The share of the loss that looking at the input saves now; NaN where not known."""
        return learned_share(self.diagnosis.reading.probed) if self.diagnosis else math.nan

    @property
    def unclipped_ratio(self) -> float:
        """What `update_ratio` would have been, had the guard not clipped.

        It is known where the update went along the gradient: with plain gradient descent, and
        at the first step with momentum. Elsewhere it is `update_ratio`.
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
        """Whether the weights would have been thrown about, had the guard not clipped.

        Not where what it let through is small: clipping may be how this run is trained.
        """
        large = self.unclipped_ratio >= 1 and self.update_ratio > _LET_THROUGH
        return large and self.log.clipped > 0

    @property
    def lost(self) -> str:
        """The component that says that units are dead or saturated; empty if none does."""
        if self.diagnosis is None or self.diagnosis.verdict != "vanishing":
            return ""
        cause = self.diagnosis.cause
        return cause if cause in ("dead", "saturated") else ""

    @property
    def knows_nothing(self) -> bool:
        """Whether looking at its input saves the run nothing now; False where that is not known."""
        return self.share < LEARNED_SHARE

    @property
    def thrown(self) -> bool:
        """Whether one update changed the weights by as much as they are, as far as was seen."""
        return (
            self.diagnosis is not None
            and self.diagnosis.verdict == "exploding"
            and self.diagnosis.cause == "update"
        )
