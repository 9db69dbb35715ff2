"""Gradients vanish through depth: what `weights` and `activations` have in common."""

from __future__ import annotations

from abc import abstractmethod

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import ScoredIllness
from keras_vanish.diagnosis.profiles import Profile, starved, vanishing_by


class VanishingByDepth(ScoredIllness):
    """Blames the layers whose signal is far below the largest of a profile."""

    verdict = "vanishing"
    words = "Gradients vanish on the way to the input."
    words_for_layers = "Starved: {layers}."
    advice = (
        "Replace sigmoid and tanh in hidden layers by ReLU, GELU or another activation "
        'whose slope does not shrink, with kernel_initializer="he_normal".',
        "Put a normalisation layer (BatchNormalization, LayerNormalization) between the layers.",
        "Add residual connections, so that gradients have a short way to the early layers.",
    )

    @abstractmethod
    def profile(self, evidence: Evidence) -> Profile:
        """How loud the loss is at each layer."""

    def measure(self, evidence: Evidence) -> float:
        """How much is lost between the output and the input."""
        return vanishing_by(self.profile(evidence))

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers that little of the signal reaches."""
        return starved(self.profile(evidence))
