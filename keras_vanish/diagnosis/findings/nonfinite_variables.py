"""Weights hold NaN or Inf."""

from __future__ import annotations

from collections.abc import Mapping

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.nonfinite import Nonfinite


class NonfiniteVariables(Nonfinite):
    """Blames every layer whose weights hold NaN or Inf.

    The gradient need not hold some: the ReLU of some processors makes 0 of NaN.
    """

    cause = "variables"
    words = "Weights are NaN or infinite, and no update can mend that."
    advice = (
        "Begin again from weights that are finite: keras.callbacks.ModelCheckpoint and "
        "BackupAndRestore keep some. With auto_rollback=True the monitor does.",
        "Lower the learning rate, and clip: optimizer=Adam(global_clipnorm=1.0).",
        "Look for NaN or infinite values in the inputs, the labels and the sample weights.",
    )

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether the weights of any layer hold some."""
        return any(layer.weights_nonfinite for layer in evidence.layers)

    def blame(self, evidence: Evidence) -> list[str]:
        """The layers whose weights hold some."""
        return [layer.name for layer in evidence.layers if layer.weights_nonfinite]
