"""What the flags know of a run, as `state.json` has it."""

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
    """What stands in the file beside the states of the policies."""

    rollback_factor: float
    firing: bool
    refused: bool
    seed: int


@dataclass(frozen=True)
class SavedState:
    """What goes into the file, and comes out of it.

    Attributes:
        clipping: The hand of `auto_clip`; None where the flag is off.
        rate: The learning rate.
        good_states: The hand of `auto_rollback`; None where the flag is off.
        new_weights: The hand of `auto_init`; None where the flag is off.
    """

    clipping: Clipping | None
    rate: LearningRate
    good_states: GoodStates | None
    new_weights: NewWeights | None

    def hands(self) -> dict[str, Any]:
        """Everything with a policy and its state, by the name that the file has for it."""
        found: dict[str, Any] = {
            "clip": self.clipping,
            "rate": None if self.rate.policy is None else self.rate,
            "rollback": self.good_states,
            "init": self.new_weights,
        }
        return {name: hand for name, hand in found.items() if hand is not None}

    def to_json(self) -> dict[str, Any]:
        """What `take_up` takes, as JSON has it."""
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
        """Takes up what the policies of an earlier process knew.

        A policy of another kind than there was then begins anew.

        Args:
            saved: What `to_json` gave; it is not trusted.

        Raises:
            ValueError: If it is no such thing. Nothing is taken up then.
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
        # What the optimizer remembers is of the process before, as its rate was.
        self.rate.remembered = self.rate.factor
        if self.good_states is not None:
            self.good_states.remember(self.rate.remembered)
