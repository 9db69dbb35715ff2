"""NaN or Inf began in the gradient of a layer's output."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.nonfinite import Nonfinite


class NonfiniteGradient(Nonfinite):
    """Blames the layer nearest to the loss whose output has a gradient with NaN or Inf."""

    cause = "gradient"
    words = "Gradients are NaN or infinite, and outputs are not."
    words_for_layers = "First, counted from the loss, in {layers}."

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether a gradient of training held some, and the probe saw some on the way back."""
        return bool(self.blame(evidence)) and super().holds(evidence, components)

    def blame(self, evidence: Evidence) -> list[str]:
        """The last layer whose gradient holds some: it comes first in back-propagation."""
        found = [a.name for a in evidence.activations if a.gradient_nonfinite_count > 0]
        return found[-1:]
