"""The good states that a rollback policy keeps, and going back to them."""

from __future__ import annotations

import os
from typing import Any

from keras_vanish.capture.backend import Snapshot
from keras_vanish.interventions import Decision, Observation, Rollback
from keras_vanish.rescue.training import Training


class GoodStates:
    """Keeps the last good states in memory, and gives the run one of them back.

    Beside each state stands the factor on the learning rate that is in what the optimizer
    remembers there.

    Args:
        policy: The policy.

    Attributes:
        policy: The policy.
        state: What the policy keeps of the run.
    """

    def __init__(self, policy: Rollback) -> None:
        self.policy = policy
        self.state = policy.begin()
        self._kept: list[tuple[Snapshot, float]] = []
        self._training: Training | None = None

    def enter(self, training: Training) -> None:
        """Takes the training that begins; `start` follows once the model has its weights."""
        self._training = training

    def start(self, remembered: float) -> None:
        """Keeps the state as it is now, and no other.

        Args:
            remembered: The factor that is in what the optimizer remembers.
        """
        self._kept = [(self._copy(), remembered)]

    def leave(self) -> None:
        """Lets go of the training, and of what was kept of it."""
        self._training, self._kept = None, []

    def decide(self, observation: Observation) -> Decision:
        """Asks the policy."""
        self.state, decision = self.policy.decide(self.state, observation)
        return decision

    def keep(self, remembered: float) -> None:
        """Keeps the state as it is now, unless it holds NaN or Inf; also in the policy's folder."""
        copy = self._copy()
        if not copy.finite():
            return
        self._kept = [*self._kept, (copy, remembered)][-self.policy.copies :]
        if self.policy.folder is not None and self._training is not None:
            folder = os.fspath(self.policy.folder)
            os.makedirs(folder, exist_ok=True)
            self._training.model.save_weights(os.path.join(folder, "good.weights.h5"))

    def go_back(self) -> float:
        """Gives the run the last state that was kept; returns the factor that stands beside it."""
        assert self._training is not None
        snapshot, remembered = self._kept[-1]
        self._training.restore(snapshot)
        return remembered

    def distrust_last(self) -> None:
        """Lets the last state go if there is another: if it leads here again, it was not good."""
        if len(self._kept) > 1:
            self._kept.pop()

    def remember(self, remembered: float) -> None:
        """Corrects the factor that stands beside every state."""
        self._kept = [(snapshot, remembered) for snapshot, _ in self._kept]

    def forget(self) -> None:
        """Tells the policy that the run was taken back by another policy."""
        self.state = self.policy.forget(self.state)

    def renew(self, born: str | None, remembered: float) -> None:
        """Begins anew with weights that were just given.

        Args:
            born: What is wrong with the units of the new weights; None if that is not known.
            remembered: The factor that is in what the optimizer remembers.
        """
        self.start(remembered)
        self.state = self.policy.begin(born)

    def give_back(self) -> None:
        """Tells the policy that the run has its first weights back."""
        self.state = self.policy.returned(self.state)

    def _copy(self) -> Snapshot:
        assert self._training is not None
        return self._training.snapshot()

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        return {**vars(self), "_training": None, "_kept": []}
