"""Gives new weights to a run that cannot learn, and the first ones back if that does not help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_vanish.capture.backend import Snapshot
from keras_vanish.interventions import Intervention, Observation, Reinitialization
from keras_vanish.rescue.reinitialize.pretrained import pretrained
from keras_vanish.rescue.reinitialize.reinitialize import reinitialize
from keras_vanish.rescue.training import Training


class NewWeights:
    """Re-initialises the model from the next batch after the policy has planned it.

    Args:
        policy: The re-initialisation policy.

    Attributes:
        policy: The re-initialisation policy.
        state: The policy's state of the run.
        pending: The planned intervention that waits for a batch; None without one.
        refused: Whether the user was told that re-initialisation is impossible.
        seed: The seed of the next random draws.
        renewed: Whether the model received new weights in this training.
    """

    def __init__(self, policy: Reinitialization) -> None:
        self.policy = policy
        self.state = policy.begin()
        self.pending: Intervention | None = None
        self.refused = False
        self.seed = 0
        self.renewed = False
        self._start: Snapshot | None = None
        self._protected: frozenset[str] = frozenset()
        self._training: Training | None = None

    def enter(self, training: Training) -> None:
        """Starts to act on a training. `start` follows once the model has its weights."""
        self._training, self.pending, self.renewed = training, None, False

    def start(self) -> None:
        """Keeps the weights before the first step, if the model has not been trained before."""
        if self._training is not None and self._training.updates == 0:
            self._start = self._training.snapshot()
            self._protected = pretrained(self._training.model)

    def leave(self) -> None:
        """Releases the training and its first weights."""
        self._training = self._start = None

    def decide(self, observation: Observation) -> Intervention | None:
        """Returns the intervention that the policy plans, or None."""
        self.state, planned = self.policy.decide(self.state, observation)
        return planned

    def plan(self, planned: Intervention) -> Iterator[Intervention]:
        """Postpones a re-initialisation to the next batch, or says once why it is impossible.

        Args:
            planned: The planned intervention.
        """
        assert self._training is not None
        if self._start is not None and self._training.gives_batches:
            self.pending = planned
        elif not self.refused:
            self.refused = True
            why = "the model has been trained before this fit"
            if not self._training.gives_batches:
                why = "a custom training loop does not hand over its batches"
            yield refusal(planned, why)

    def carry_out(self, planned: Intervention, inputs: Any) -> tuple[Intervention, bool]:
        """Gives the model new weights.

        Args:
            planned: The planned intervention.
            inputs: The inputs `x` of a batch.

        Returns:
            The record of the intervention, and whether every layer with a kernel has new weights.
        """
        training, start = self._training, self._start
        assert training is not None
        assert start is not None
        with training.backend.assigning(training.model):
            start.restore()
            protect = [*self.policy.protect, *self._protected]
            found = reinitialize(training.model, inputs, protect=protect, seed=self.seed)
            self.seed += 1
            training.model.reset_metrics()
        if not found.touched:
            why = "every layer is left alone: pretrained, protected, frozen, or without a kernel"
            return refusal(planned, why), False
        self.renewed = True
        done = dataclasses.replace(
            planned,
            before={layer.name: layer.before for layer in found.touched},
            after={layer.name: layer.after for layer in found.touched},
        )
        return done, found.whole

    def undo(self) -> None:
        """Restores the first weights after a failed re-initialisation."""
        if self._training is not None and self._start is not None:
            with self._training.backend.assigning(self._training.model):
                self._start.restore()

    def take_back(self) -> bool:
        """Restores the first weights if the model received new ones. Returns whether it did."""
        # A re-initialisation that was only planned or refused has not changed the trained weights.
        if self._training is None or self._start is None or not self.renewed:
            return False
        self._training.restore(self._start)
        self._start = None
        return True

    def let_start_go(self) -> None:
        """Frees the memory of the first weights, which are no longer needed."""
        self._start = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        bound: dict[str, Any] = {
            "_training": None,
            "_start": None,
            "pending": None,
            "_protected": frozenset(),
        }
        return {**vars(self), **bound}


def refusal(planned: Intervention, why: str) -> Intervention:
    """Returns the record of a planned re-initialisation that is not carried out."""
    reason = f"{planned.reason} But {why}."
    return Intervention(planned.step, "refuse_reinitialization", reason)
