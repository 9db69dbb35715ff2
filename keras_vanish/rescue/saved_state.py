"""The state of the flags, as `state.json` stores it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_vanish.interventions.policy import type_of_state
from keras_vanish.interventions.saved_states import parsed, plain
from keras_vanish.rescue.clipping import Clipping
from keras_vanish.rescue.good_states import GoodStates
from keras_vanish.rescue.learning_rate import LearningRate
from keras_vanish.rescue.new_weights import NewWeights


@dataclass(frozen=True)
class _Fields:
    """The fields of the file besides the states of the policies."""

    rollback_factor: float
    firing: bool
    refused: bool
    seed: int


@dataclass(frozen=True)
class SavedState:
    """Writes the state of the flags as JSON values, and restores it.

    Attributes:
        clipping: The clipping of `auto_clip`; None if the flag is off.
        rate: The learning rate.
        good_states: The good states of `auto_rollback`; None if the flag is off.
        new_weights: The re-initialisation of `auto_init`; None if the flag is off.
    """

    clipping: Clipping | None
    rate: LearningRate
    good_states: GoodStates | None
    new_weights: NewWeights | None

    def hands(self) -> dict[str, Any]:
        """Returns every object that has a policy and its state, by its name in the file."""
        found: dict[str, Any] = {
            "clip": self.clipping,
            "rate": None if self.rate.policy is None else self.rate,
            "rollback": self.good_states,
            "init": self.new_weights,
        }
        return {name: hand for name, hand in found.items() if hand is not None}

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON values, which `take_up` accepts."""
        return {
            "policies": {
                name: {"policy": type(hand.policy).__name__, "state": plain(hand.state)}
                for name, hand in self.hands().items()
            },
            "rollback_factor": self.rate.rollback_factor,
            "firing": self.clipping is not None and self.clipping.firing,
            "refused": self.new_weights is not None and self.new_weights.refused,
            "seed": 0 if self.new_weights is None else self.new_weights.seed,
        }

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Restores the states of the policies from an earlier process.

        A policy starts again if the earlier process used a policy of another class.

        Args:
            saved: A value that `to_json` returned; it is not trusted.

        Raises:
            ValueError: If `to_json` cannot have returned the value. No state is changed then.
        """
        fields = parsed(_Fields, {k: v for k, v in saved.items() if k != "policies"})
        policies = saved.get("policies")
        policies = policies if isinstance(policies, dict) else {}
        found = {}
        for name, hand in self.hands().items():
            entry = policies.get(name)
            if isinstance(entry, dict) and entry.get("policy") == type(hand.policy).__name__:
                found[name] = parsed(type_of_state(hand.policy), entry.get("state"), name)
        factor = 1.0
        if "rate" in found and self.rate.policy is not None:
            factor = self.rate.policy.factor(found["rate"])
        if not 0 < factor * fields.rollback_factor < math.inf:
            raise ValueError(f"no learning rate is multiplied by {factor!r}")
        for name, hand in self.hands().items():
            hand.state = found.get(name, hand.state)
        self.rate.rollback_factor = fields.rollback_factor
        if self.clipping is not None:
            self.clipping.firing = fields.firing
        if self.new_weights is not None:
            self.new_weights.refused, self.new_weights.seed = fields.refused, fields.seed
        # The optimizer slots come from the earlier process, and so contain its factor.
        self.rate.remembered = self.rate.factor
        if self.good_states is not None:
            self.good_states.remember(self.rate.remembered)
