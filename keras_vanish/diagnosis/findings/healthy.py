"""No illness was found."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import Illness


class Healthy(Illness):
    """Comes last, and always holds."""

    verdict = "healthy"
    words = "Gradients reach the whole network."

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Always."""
        return True

    def blame(self, evidence: Evidence) -> list[str]:
        """Nobody."""
        return []
