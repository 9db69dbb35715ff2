"""Gradients vanish through depth, measured by the gradients of the layers' outputs."""

from __future__ import annotations

from keras_vanish.diagnosis.findings.depth import VanishingByDepth
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.profiles import Profile


class Activations(VanishingByDepth):
    """Needs the probe, and assumes nothing about the inputs of layers."""

    cause = "activations"

    def profile(self, evidence: Evidence) -> Profile:
        """The quantity of the theory; see `profiles.activation_profile`."""
        return evidence.activation_profile
