"""Gradients vanish through depth, measured by the gradients of weights."""

from __future__ import annotations

from keras_vanish.diagnosis.findings.depth import VanishingByDepth
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.profiles import Profile


class Weights(VanishingByDepth):
    """Needs no probe: every reading has the gradients of weights."""

    cause = "weights"

    def profile(self, evidence: Evidence) -> Profile:
        """Estimates from the gradients of weights; see `profiles.signal`."""
        return evidence.weight_profile
