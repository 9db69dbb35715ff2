"""The training that the flags act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_vanish.capture.backend import Backend, Snapshot, StepControls


@dataclass(frozen=True)
class Training:
    """One model in one `fit` or custom loop.

    Attributes:
        backend: How the model's framework is acted on.
        model: The Keras model.
        optimizer: The optimizer that trains it.
        controls: What acts within every step.
        updates: How many updates the optimizer had applied when it began; 0 for a model that
            has not been trained before, as far as that can be told.
        gives_batches: Whether `Rescue.before` is going to be called with each batch.
    """

    backend: Backend
    model: Any
    optimizer: Any
    controls: StepControls
    updates: int
    gives_batches: bool

    def snapshot(self) -> Snapshot:
        """A copy of the state as it is now."""
        return self.backend.snapshot(self.model, self.optimizer)

    def restore(self, snapshot: Snapshot) -> None:
        """Gives the model and the optimizer an earlier state; metrics begin anew."""
        with self.backend.assigning(self.model):
            snapshot.restore()
            self.model.reset_metrics()
