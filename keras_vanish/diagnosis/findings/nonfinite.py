"""A gradient holds NaN or Inf, and nobody saw where it began."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import Illness


class Nonfinite(Illness):
    """Blames every layer whose gradient holds NaN or Inf.

    Illnesses that know where it began come before this one: first weights, because all else
    follows from them, then outputs on the way forward, then gradients on the way back.
    """

    verdict = "nonfinite"
    words = "Gradients are NaN or infinite."
    words_for_layers = "In {layers}."
    advice = (
        "Look for NaN or infinite values in the inputs, the labels and the sample weights.",
        "Lower the learning rate, and clip: optimizer=Adam(global_clipnorm=1.0).",
        "Guard logarithms, square roots and divisions in custom losses and layers.",
    )

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether the gradient of training itself held some: the probe alone gives no verdict."""
        return any(layer.nonfinite_count > 0 for layer in evidence.layers)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers whose gradient holds some."""
        return [layer.name for layer in evidence.layers if layer.nonfinite_count > 0]

    def decisive(self, components: Mapping[str, float]) -> bool:
        """NaN and Inf leave no doubt."""
        return True
