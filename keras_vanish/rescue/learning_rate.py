"""The factor on the learning rate, with the momentum that remembers earlier factors."""

from __future__ import annotations

from typing import Any

from keras_vanish.interventions import Intervention, Observation, RatePolicy
from keras_vanish.rescue.training import Training


class LearningRate:
    """Multiplies the learning rate as the policies want it.

    What an optimizer remembers of earlier updates is multiplied by the rate of those. So when the
    factor changes, the momentum changes with it.

    Args:
        policy: The policy; None where only a rollback lowers the rate.

    Attributes:
        policy: The policy, or None.
        state: What the policy keeps of the run; None without a policy.
        rollback_factor: What rollbacks multiplied the rate by that the policy does not count.
        remembered: The factor that is in what the optimizer remembers.
    """

    def __init__(self, policy: RatePolicy | None) -> None:
        self.policy = policy
        self.state: Any = None if policy is None else policy.begin()
        self.rollback_factor = 1.0
        self.remembered = 1.0
        self._training: Training | None = None

    @property
    def factor(self) -> float:
        """What the policies want the learning rate to be multiplied by."""
        own = 1.0 if self.policy is None else self.policy.factor(self.state)
        return self.rollback_factor * own

    @property
    def on_trial(self) -> bool:
        """Whether a larger rate is being tried."""
        return self.policy is not None and self.policy.on_trial(self.state)

    def enter(self, training: Training) -> None:
        """Takes the training that begins: the optimizer remembers what the factor is now."""
        self._training = training
        self.remembered = self.factor
        self.apply()

    def leave(self) -> None:
        """Lets go of the training."""
        self._training = None

    def apply(self) -> None:
        """Brings the factor into the train step, and into what the optimizer remembers."""
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
        """Asks the policy; `apply` follows."""
        if self.policy is None:
            return None
        self.state, act = self.policy.decide(self.state, observation)
        return act

    def lower(self, share: float) -> None:
        """Multiplies the rate after the run was taken back."""
        state = None if self.policy is None else self.policy.lowered(self.state, share)
        if state is None:
            self.rollback_factor *= share
        else:
            self.state = state
        self.apply()

    def renew(self) -> None:
        """Tells the policy of new weights: a rate too large for the old ones may suit these."""
        if self.policy is not None:
            self.state = self.policy.renewed(self.state)

    def give_back(self) -> None:
        """Undoes what was done to the rate for weights that are gone."""
        self.rollback_factor = 1.0
        if self.policy is not None:
            self.state = self.policy.returned(self.state)

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        return {**vars(self), "_training": None}
