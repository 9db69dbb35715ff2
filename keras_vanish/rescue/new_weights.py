"""New weights for a run that cannot learn, and the first weights back where they do not help."""

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
    """Re-initialises the model where the policy plans it, from the next batch.

    Args:
        policy: The policy.

    Attributes:
        policy: The policy.
        state: What the policy keeps of the run.
        pending: What is planned and waits for a batch; None if nothing is.
        refused: Whether it was said that nothing can be done.
        seed: Of the next draws.
        renewed: Whether the model was given new weights in this training.
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
        """Takes the training that begins; `start` follows once the model has its weights."""
        self._training, self.pending, self.renewed = training, None, False

    def start(self) -> None:
        """Notes the weights before the first step, if the model has not been trained before."""
        if self._training is not None and self._training.updates == 0:
            self._start = self._training.snapshot()
            self._protected = pretrained(self._training.model)

    def leave(self) -> None:
        """Lets go of the training, and of what was kept of it."""
        self._training = self._start = None

    def decide(self, observation: Observation) -> Intervention | None:
        """Asks the policy."""
        self.state, planned = self.policy.decide(self.state, observation)
        return planned

    def plan(self, planned: Intervention) -> Iterator[Intervention]:
        """Puts a re-initialisation off until the next batch, or says once why there is none."""
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
            planned: What was planned.
            inputs: The inputs `x` of a batch.

        Returns:
            What was done, and whether every layer with a kernel has new weights.
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
        """Gives the model the weights that it began with, after a failure."""
        if self._training is not None and self._start is not None:
            with self._training.backend.assigning(self._training.model):
                self._start.restore()

    def take_back(self) -> bool:
        """Gives the run its first weights back, if it was given others. Returns whether it was."""
        # What was only planned, or refused, left the weights as training made them.
        if self._training is None or self._start is None or not self.renewed:
            return False
        self._training.restore(self._start)
        self._start = None
        return True

    def let_start_go(self) -> None:
        """Frees the memory of the first weights, which are not going to be needed."""
        self._start = None

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        bound: dict[str, Any] = {
            "_training": None,
            "_start": None,
            "pending": None,
            "_protected": frozenset(),
        }
        return {**vars(self), **bound}


def refusal(planned: Intervention, why: str) -> Intervention:
    """The record of a re-initialisation that was planned and is not done."""
    reason = f"{planned.reason} But {why}."
    return Intervention(planned.step, "refuse_reinitialization", reason)
