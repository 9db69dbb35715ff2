"""Applies a factor to the learning rate, and corrects the momentum accordingly."""

from __future__ import annotations

from typing import Any

from keras_vanish.interventions import Intervention, Observation, RatePolicy
from keras_vanish.rescue.training import Training


class LearningRate:
    """Multiplies the learning rate by the factor that the policies want.

    The velocity of an optimizer contains earlier learning rates. So a change of the factor also
    changes the velocity.

    Args:
        policy: The learning-rate policy; None if only a rollback lowers the rate.

    Attributes:
        policy: The learning-rate policy, or None.
        state: The policy's state of the run; None without a policy.
        rollback_factor: The product of the factors of rollbacks that the policy does not count.
        remembered: The learning-rate factor that the optimizer slots contain.
    """

    def __init__(self, policy: RatePolicy | None) -> None:
        self.policy = policy
        self.state: Any = None if policy is None else policy.begin()
        self.rollback_factor = 1.0
        self.remembered = 1.0
        self._training: Training | None = None

    @property
    def factor(self) -> float:
        """The factor on the learning rate that the policies want."""
        own = 1.0 if self.policy is None else self.policy.factor(self.state)
        return self.rollback_factor * own

    @property
    def on_trial(self) -> bool:
        """Whether a larger rate is on trial."""
        return self.policy is not None and self.policy.on_trial(self.state)

    def enter(self, training: Training) -> None:
        """Starts to act on a training. Its optimizer slots count as having the present factor."""
        self._training = training
        self.remembered = self.factor
        self.apply()

    def leave(self) -> None:
        """Releases the training."""
        self._training = None

    def apply(self) -> None:
        """Applies the factor to the train step and to the optimizer's velocity."""
        training = self._training
        if training is None or training.controls.factor is None:
            return
        control, wanted = training.controls.factor, self.factor
        if control.value != wanted:
            control.assign(wanted)
        if self.remembered != wanted:
            with training.backend.assigning(training.model):
                training.backend.correct_momentum(training.optimizer, wanted / self.remembered)
            self.remembered = wanted

    def decide(self, observation: Observation) -> Intervention | None:
        """Returns the change that the policy wants, or None. `apply` follows."""
        if self.policy is None:
            return None
        self.state, act = self.policy.decide(self.state, observation)
        return act

    def lower(self, share: float) -> None:
        """Multiplies the rate by `share` after a rollback."""
        state = None if self.policy is None else self.policy.lowered(self.state, share)
        if state is None:
            self.rollback_factor *= share
        else:
            self.state = state
        self.apply()

    def renew(self) -> None:
        """Tells the policy about new weights, which may suit a larger rate than the old ones."""
        if self.policy is not None:
            self.state = self.policy.renewed(self.state)

    def give_back(self) -> None:
        """Undoes all changes to the rate, because the run has received its first weights back."""
        self.rollback_factor = 1.0
        if self.policy is not None:
            self.state = self.policy.returned(self.state)

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        return {**vars(self), "_training": None}
