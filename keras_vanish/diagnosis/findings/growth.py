"""Gradients grow on their way from the output to the input, or back through time."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import THRESHOLD, ScoredIllness, worst
from keras_vanish.diagnosis.findings.saturated import Saturated
from keras_vanish.diagnosis.profiles import growth_by, overgrown, score_of_decay, time_decay
from keras_vanish.records.recurrent import RecurrentReading


class Growth(ScoredIllness):
    """Blames the layers whose gradient is far above that of the last, and recurrent layers."""

    verdict = "exploding"
    cause = "growth"
    words = "Gradients explode."
    words_for_layers = "Too large: {layers}."
    advice = (
        "Clip: optimizer=Adam(global_clipnorm=1.0).",
        "Lower the learning rate by a factor of ten.",
        'Check the initialisers: "he_normal" for ReLU, "glorot_uniform" for tanh.',
    )

    def measure(self, evidence: Evidence) -> float:
        """The largest growth by weights, by activations and through time."""
        return worst(
            growth_by(evidence.weight_profile),
            growth_by(evidence.activation_profile),
            growth_by_time(evidence.timesteps),
        )

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether gradients grow, and not because most units are saturated.

        Between saturated units, the few that are not saturated pass on large gradients.
        """
        saturated = components[Saturated.cause] >= THRESHOLD
        return super().holds(evidence, components) and not saturated

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers that grew by weights, then by activations, then through time."""
        profiles = (evidence.weight_profile, evidence.activation_profile)
        grown = [profile for profile in profiles if growth_by(profile) >= THRESHOLD]
        timesteps = evidence.timesteps.items()
        return [
            *(name for profile in grown for name in overgrown(profile)),
            *(name for name, r in timesteps if growth_by_time({name: r}) >= THRESHOLD),
        ]


def growth_by_time(timesteps: Mapping[str, RecurrentReading]) -> float:
    """How much is gained through time, on the way from the last time step to the first.

    `score_of_decay` of the decades in the reversed profile.

    Returns:
        A number in [0, 1] for the recurrent layer that gains most, or NaN without one.
    """
    gained = [time_decay(RecurrentReading(r.rms[::-1])) for r in timesteps.values()]
    return score_of_decay(worst(*gained))
