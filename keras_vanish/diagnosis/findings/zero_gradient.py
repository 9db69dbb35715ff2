"""No gradient at all arrives at the early layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import ScoredIllness
from keras_vanish.diagnosis.profiles import is_opening
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.records.readings import LayerReading


class ZeroGradient(ScoredIllness):
    """Blames every layer whose gradient is exactly zero. Logs and users know it as `silent`."""

    verdict = "vanishing"
    cause = "silent"
    words = "No gradient at all reaches the early layers."
    words_for_layers = "Exactly zero: {layers}."
    advice = (
        "In float16, small gradients are rounded to zero: let Keras scale the loss "
        '(auto_scale_loss=True in compile), or use the policy "mixed_bfloat16".',
        "Look for what stops a gradient: tf.stop_gradient, argmax, rounding, a cast to integers, "
        "or a kernel that stays zero.",
        "Put a normalisation layer (BatchNormalization, LayerNormalization) between the layers.",
    )

    def measure(self, evidence: Evidence) -> float:
        """See `by_zero_gradient`."""
        return by_zero_gradient(evidence.layers, evidence.progress)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers whose gradient is exactly zero."""
        return [layer.name for layer in evidence.layers if layer.gradient_rms == 0]


def by_zero_gradient(layers: Sequence[LayerReading], progress: LearningProgress) -> float:
    """1 where no gradient at all arrives at the early layers, else 0.

    The gradient is exactly zero in every layer of the first third that has one, and not in all
    others: it has become too small for its dtype, or something on its way stops it. A kernel or
    a branch that is initialised with zeros passes nothing back before its first update. So the
    result is 0 while a layer is all zero or opening (`OPENING_RATIO`), and NaN in the first
    readings (`PATIENCE`).

    Returns:
        0 or 1, or NaN where fewer than two layers have a gradient, or in the first readings.
    """
    known = [layer for layer in layers if not math.isnan(layer.gradient_rms)]
    if len(known) < 2 or progress.learned is None:
        return math.nan
    # NaN arrives, too: the RMS is that of the other entries.
    heard = [layer.gradient_rms != 0 or layer.nonfinite_count > 0 for layer in known]
    beginning = any(is_opening(layer) or layer.weight_rms == 0 for layer in known)
    silent = not any(heard[: (len(heard) - 1) // 3 + 1]) and any(heard)
    return float(silent and not beginning)
