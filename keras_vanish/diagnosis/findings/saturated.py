"""Most activations are saturated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import THRESHOLD, ScoredIllness
from keras_vanish.records.activations import ActivationReading


class Saturated(ScoredIllness):
    """Blames every layer at whose entries the activation is mostly flat."""

    verdict = "vanishing"
    cause = "saturated"
    words = "Most activations are saturated, where their slope is nearly zero."
    words_for_layers = "Saturated: {layers}."
    advice = (
        'Make the initial weights smaller: kernel_initializer="glorot_uniform", and standardise '
        "the inputs.",
        "Put a normalisation layer (BatchNormalization, LayerNormalization) in front of the "
        "activations.",
        "Lower the learning rate: large updates push units to their bounds.",
    )

    def measure(self, evidence: Evidence) -> float:
        """See `by_saturation`."""
        return by_saturation(evidence.activations)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers of whose entries at least half are saturated."""
        return [a.name for a in evidence.activations if a.saturated_fraction >= THRESHOLD]


def by_saturation(activations: Sequence[ActivationReading]) -> float:
    """The `saturated_fraction` of the median layer that has one; NaN where none has.

    Where more than half of the entries of more than half of the layers are flat, their
    derivatives are nearly zero: the factor `diag(f'(z))` of the Jacobian (Glorot & Bengio
    2010).
    """
    shares = [a.saturated_fraction for a in activations if not math.isnan(a.saturated_fraction)]
    return median(shares) if shares else math.nan
