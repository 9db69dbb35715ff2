"""One update changes the weights by as much as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import ScoredIllness
from keras_vanish.records.readings import LayerReading

#: An update component at or above this is certain by itself: half of the layers have lost what
#: they held, to an update four times as large.
DECISIVE_UPDATE = 0.8


class Update(ScoredIllness):
    """Blames every layer that the update changed by at least as much as its weights are."""

    verdict = "exploding"
    cause = "update"
    words = "Updates are as large as the weights."
    words_for_layers = "Thrown about: {layers}."
    advice = (
        "Lower the learning rate by a factor of ten.",
        "Warm it up: keras.optimizers.schedules.CosineDecay(..., warmup_target=...).",
        "Clip: optimizer=Adam(global_clipnorm=1.0).",
    )

    def measure(self, evidence: Evidence) -> float:
        """See `by_update`."""
        return by_update(evidence.layers)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers with an update ratio of at least 1."""
        return [layer.name for layer in evidence.layers if layer.update_ratio >= 1]

    def decisive(self, components: Mapping[str, float]) -> bool:
        """Whether the update was far larger than the weights."""
        return components[self.cause] >= DECISIVE_UPDATE


def by_update(layers: Sequence[LayerReading]) -> float:
    """How far one update throws the weights: `u / (1 + u)`.

    `u` is the median of the layers' update ratios. The result is 0.5 where one update changes
    the weights by as much as they are.

    Returns:
        A number in [0, 1], or NaN where no update ratio is known.
    """
    ratios = [layer.update_ratio for layer in layers if not math.isnan(layer.update_ratio)]
    ratio = median(ratios) if ratios else math.nan
    return 1.0 if ratio == math.inf else ratio / (1.0 + ratio)
