"""NaN or Inf began in the output of a layer."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.nonfinite import Nonfinite


class NonfiniteOutput(Nonfinite):
    """Blames the first layer, in the order of the forward pass, whose output holds NaN or Inf."""

    cause = "output"
    words = "Outputs are NaN or infinite already on the way forward."
    words_for_layers = "First in {layers}."

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether a gradient of training held some, and the probe saw some in an output."""
        return bool(self.blame(evidence)) and super().holds(evidence, components)

    def blame(self, evidence: Evidence) -> list[str]:
        """The first layer whose output holds some."""
        found = [a.name for a in evidence.activations if a.output_nonfinite_count > 0]
        return found[:1]
