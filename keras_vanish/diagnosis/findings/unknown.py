"""Nothing is known of vanishing through depth."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_vanish.diagnosis.findings.activations import Activations
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import Illness, worst
from keras_vanish.diagnosis.findings.weights import Weights


class Unknown(Illness):
    """Names the layers whose gradient is exactly zero, and so tells nothing."""

    verdict = "unknown"
    words = "Too few layers have a gradient that tells."
    words_for_layers = "Exactly zero: {layers}."
    advice = (
        "If gradients stay exactly zero, look for ReLU units that are all dead, a loss that "
        "does not depend on the layers, or tf.stop_gradient.",
    )

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether neither the gradients of weights nor those of activations tell."""
        return math.isnan(worst(components[Weights.cause], components[Activations.cause]))

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers whose gradient is exactly zero."""
        return [layer.name for layer in evidence.layers if layer.gradient_rms == 0]
