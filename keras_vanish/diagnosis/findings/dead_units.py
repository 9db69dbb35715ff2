"""A layer of dead units cuts the network in two."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import ScoredIllness
from keras_vanish.diagnosis.progress import learned_share
from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.probed import Probed

# Losses that differ by a smaller share than this are the same but for rounding.
_SAME_LOSS = 1e-6


class DeadUnits(ScoredIllness):
    """Blames every layer in which all units are dead."""

    verdict = "vanishing"
    cause = "dead"
    words = "No gradient passes: a layer has only dead units, which are zero for every sample."
    words_for_layers = "Dead: {layers}."
    advice = (
        "Lower the learning rate: one large update may have pushed all units below zero.",
        "Use LeakyReLU, ELU or GELU, which pass a gradient below zero.",
        'Check the biases and the initialisers: zeros and "he_normal" for ReLU.',
    )

    def measure(self, evidence: Evidence) -> float:
        """See `by_dead_units`."""
        return by_dead_units(evidence.activations, evidence.reading.probed)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers in which all units are dead."""
        return [a.name for a in evidence.activations if a.dead_fraction == 1.0]


def by_dead_units(activations: Sequence[ActivationReading], probed: Probed | None) -> float:
    """1 where a layer of dead units cuts the network in two, else 0.

    A layer of the ReLU family cuts it where all its units are zero for every probed sample, and
    no way leads around it: the gradient is exactly zero in all layers before it, or the loss is
    the same whatever the input. The layers before it never learn again (Lu et al., "Dying ReLU
    and Initialization", 2020).

    Returns:
        0 or 1, or NaN where no unit was probed that can die.
    """
    if all(math.isnan(activation.dead_fraction) for activation in activations):
        return math.nan
    deaf = abs(learned_share(probed)) < _SAME_LOSS
    silent, known = True, False
    for activation in activations:
        if activation.dead_fraction == 1.0 and (deaf or (known and silent)):
            return 1.0
        if not math.isnan(activation.gradient_rms):
            known, silent = True, silent and activation.gradient_rms == 0
    return 0.0
