"""The good states that a rollback policy keeps and restores."""

from __future__ import annotations

import os
from typing import Any

from keras_vanish.capture.backend import Snapshot
from keras_vanish.interventions import Decision, Observation, Rollback
from keras_vanish.rescue.training import Training


class GoodStates:
    """Keeps the last good states in memory, and restores the most recent one.

    Each state is kept with the learning-rate factor that its optimizer slots contain.

    Args:
        policy: The rollback policy.

    Attributes:
        policy: The rollback policy.
        state: The policy's state of the run.
    """

    def __init__(self, policy: Rollback) -> None:
        self.policy = policy
        self.state = policy.begin()
        self._kept: list[tuple[Snapshot, float]] = []
        self._training: Training | None = None

    def enter(self, training: Training) -> None:
        """Starts to act on a training. `start` follows once the model has its weights."""
        self._training = training

    def start(self, remembered: float) -> None:
        """Keeps the present state, and drops all others.

        Args:
            remembered: The learning-rate factor that the optimizer slots contain.
        """
        self._kept = [(self._copy(), remembered)]

    def leave(self) -> None:
        """Releases the training and its states."""
        self._training, self._kept = None, []

    def decide(self, observation: Observation) -> Decision:
        """Returns the decision of the policy."""
        self.state, decision = self.policy.decide(self.state, observation)
        return decision

    def keep(self, remembered: float) -> None:
        """Keeps the present state, unless it contains NaN or Inf.

        If the policy has a folder, the weights are also written there, as `good.weights.h5`.

        Args:
            remembered: The learning-rate factor that the optimizer slots contain.
        """
        copy = self._copy()
        if not copy.finite():
            return
        self._kept = [*self._kept, (copy, remembered)][-self.policy.copies :]
        if self.policy.folder is not None and self._training is not None:
            folder = os.fspath(self.policy.folder)
            os.makedirs(folder, exist_ok=True)
            self._training.model.save_weights(os.path.join(folder, "good.weights.h5"))

    def go_back(self) -> float:
        """Restores the last kept state. Returns the learning-rate factor that its slots contain."""
        assert self._training is not None
        snapshot, remembered = self._kept[-1]
        self._training.restore(snapshot)
        return remembered

    def distrust_last(self) -> None:
        """Drops the last state if there is another, because training went wrong from it."""
        if len(self._kept) > 1:
            self._kept.pop()

    def remember(self, remembered: float) -> None:
        """Corrects the learning-rate factor that is kept with every state."""
        self._kept = [(snapshot, remembered) for snapshot, _ in self._kept]

    def forget(self) -> None:
        """Tells the policy that another policy took the run back."""
        self.state = self.policy.forget(self.state)

    def renew(self, born: str | None, remembered: float) -> None:
        """Starts again with new weights.

        Args:
            born: How units are lost in the new weights (see `Observation.lost`); None if unknown.
            remembered: The learning-rate factor that the optimizer slots contain.
        """
        self.start(remembered)
        self.state = self.policy.begin(born)

    def give_back(self) -> None:
        """Tells the policy that the run has received its first weights back."""
        self.state = self.policy.returned(self.state)

    def _copy(self) -> Snapshot:
        assert self._training is not None
        return self._training.snapshot()

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        return {**vars(self), "_training": None, "_kept": []}
