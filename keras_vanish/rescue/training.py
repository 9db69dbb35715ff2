"""The training on which the flags act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_vanish.capture.backend import Backend, Snapshot, StepControls


@dataclass(frozen=True)
class Training:
    """One model in one `fit` or custom loop.

    Attributes:
        backend: The backend of the model's framework.
        model: The Keras model.
        optimizer: The optimizer that trains the model.
        controls: The controls inside every train step.
        updates: The number of updates that the optimizer had applied when the training began. It is
            0 for a model that seems never to have been trained.
        gives_batches: Whether `Rescue.before` is called with each batch.
    """

    backend: Backend
    model: Any
    optimizer: Any
    controls: StepControls
    updates: int
    gives_batches: bool

    def snapshot(self) -> Snapshot:
        """Returns a copy of the present state."""
        return self.backend.snapshot(self.model, self.optimizer)

    def restore(self, snapshot: Snapshot) -> None:
        """Restores an earlier state of the model and the optimizer, and resets the metrics."""
        with self.backend.assigning(self.model):
            snapshot.restore()
            self.model.reset_metrics()
