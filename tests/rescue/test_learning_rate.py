"""The factor on the learning rate, and the momentum that goes with it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
from fake_backend import fake_training

from keras_vanish.capture.backend import Controls
from keras_vanish.interventions import Intervention, Observation, RatePolicy
from keras_vanish.records.step_log import StepLog
from keras_vanish.rescue.learning_rate import LearningRate
from keras_vanish.rescue.rescue import Rescue

LOOK = Observation(3, None, "exploding", None, StepLog())


@dataclass(frozen=True)
class Halves(RatePolicy):
    """Halves the factor at each look.

    Attributes:
        counts: Whether it counts what a rollback multiplies by.
    """

    counts: bool = False

    def begin(self) -> float:
        return 1.0

    def factor(self, state: float) -> float:
        return state

    def on_trial(self, state: float) -> bool:
        return state > 1

    def decide(self, state: float, observation: Observation) -> tuple[float, Intervention | None]:
        return state / 2, Intervention(observation.step, "lower_rate", "test")

    def renewed(self, state: float) -> float:
        return 0.75

    def lowered(self, state: float, share: float) -> float | None:
        return state * share if self.counts else None


def entered(policy: Any = None, rate: bool = True) -> tuple[LearningRate, Any]:
    hand = LearningRate(policy)
    training = fake_training(Controls(rate=rate))
    hand.enter(training)
    return hand, training


def test_the_factor_reaches_the_control_and_the_momentum() -> None:
    hand, training = entered(Halves())
    act = hand.decide(LOOK)
    assert act is not None
    assert (act.step, act.action) == (3, "lower_rate")
    assert (training.controls.factor.value, training.optimizer.velocity) == (1.0, 1.0)
    hand.apply()
    assert (training.controls.factor.value, training.optimizer.velocity) == (0.5, 0.5)
    assert hand.remembered == 0.5
    # Once is enough.
    hand.apply()
    assert training.controls.factor.assigned == [0.5]
    assert training.optimizer.velocity == 0.5
    hand.decide(LOOK)
    hand.apply()
    assert training.controls.factor.assigned == [0.5, 0.25]
    assert training.optimizer.velocity == 0.25


def test_a_factor_of_one_is_not_assigned() -> None:
    _, training = entered(Halves())
    assert training.controls.factor.assigned == []
    assert training.backend.log == []


def test_without_a_policy_only_rollbacks_move_the_rate() -> None:
    hand, training = entered()
    assert hand.decide(LOOK) is None
    assert not hand.on_trial
    hand.lower(0.5)
    hand.lower(0.5)
    hand.renew()
    assert hand.factor == hand.rollback_factor == 0.25
    assert training.controls.factor.value == 0.25
    assert training.optimizer.velocity == 0.25


@pytest.mark.parametrize("counts", [False, True])
def test_a_rollback_multiplies_the_rate_once(counts: bool) -> None:
    hand, training = entered(Halves(counts))
    hand.decide(LOOK)
    hand.lower(0.1)
    assert hand.factor == pytest.approx(0.05)
    assert (hand.state, hand.rollback_factor) == ((0.05, 1.0) if counts else (0.5, 0.1))
    assert training.controls.factor.value == hand.factor


def test_a_restored_state_holds_the_rate_of_its_time() -> None:
    hand, training = entered()
    hand.lower(0.5)
    # The velocity of a state that was kept at a factor of 0.8.
    hand.remembered, training.optimizer.velocity = 0.8, 8.0
    hand.lower(0.5)
    assert hand.factor == 0.25
    assert training.optimizer.velocity == pytest.approx(8 * 0.25 / 0.8)


def test_the_next_fit_begins_with_the_factor_and_without_a_correction() -> None:
    hand, _ = entered(Halves())
    hand.decide(LOOK)
    hand.apply()
    hand.leave()
    again = fake_training(Controls(rate=True))
    hand.enter(again)
    assert again.controls.factor.value == 0.5
    # What the optimizer remembers there is of updates at this rate already.
    assert again.optimizer.velocity == 1.0
    assert again.backend.log == []


def test_what_another_optimizer_remembers_is_not_of_the_fit_before() -> None:
    # There, nothing brought the factor into the step.
    hand, _ = entered(Halves(), rate=False)
    hand.decide(LOOK)
    hand.apply()
    assert hand.remembered == 1.0
    again = fake_training(Controls(rate=True))
    hand.enter(again)
    assert (again.controls.factor.value, hand.remembered) == (0.5, 0.5)
    assert again.optimizer.velocity == 1.0


def test_a_resumed_run_does_not_correct_momentum_twice() -> None:
    before = Rescue(None, Halves(), None, None)
    before.rate.enter(fake_training(before.controls()))
    before.rate.decide(LOOK)
    before.rate.apply()
    after = Rescue(None, Halves(), None, None)
    training: Any = fake_training(after.controls(), updates=5)
    after.enter(training)
    after.resume(before.state())
    after.rate.apply()
    assert training.controls.factor.value == 0.5
    assert training.optimizer.velocity == 1.0
    after.rate.decide(LOOK)
    after.rate.apply()
    assert training.optimizer.velocity == 0.5


def test_a_step_without_a_factor_is_left_alone() -> None:
    hand, training = entered(Halves(), rate=False)
    hand.decide(LOOK)
    hand.apply()
    assert training.optimizer.velocity == 1.0
    assert training.backend.log == []


def test_what_is_told_of_new_weights_and_of_the_first_ones() -> None:
    hand, _ = entered(Halves())
    hand.lower(0.1)
    hand.renew()
    assert (hand.state, hand.rollback_factor) == (0.75, 0.1)
    hand.give_back()
    assert (hand.state, hand.rollback_factor) == (1.0, 1.0)


def test_whether_a_larger_rate_is_on_trial_is_the_policys_word() -> None:
    hand, _ = entered(Halves())
    assert not hand.on_trial
    hand.state = 2.0
    assert hand.on_trial


@pytest.mark.parametrize("how", ["left", "copied"])
def test_the_training_is_let_go_of(how: str) -> None:
    hand, training = entered(Halves())
    if how == "left":
        hand.leave()
    else:
        hand = copy.deepcopy(hand)
    hand.lower(0.5)
    assert training.controls.factor.assigned == []
    assert hand.factor == 0.5
