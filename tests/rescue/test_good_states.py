"""The good states that are kept, and going back to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backend import fake_training

from keras_vanish.diagnosis import diagnose
from keras_vanish.interventions import Observation, Rollback
from keras_vanish.records.readings import Reading
from keras_vanish.records.step_log import StepLog
from keras_vanish.rescue.good_states import GoodStates


def entered(**options: Any) -> tuple[GoodStates, Any]:
    hand = GoodStates(Rollback(**options))
    training = fake_training()
    hand.enter(training)
    hand.start(1.0)
    return hand, training


def at(hand: GoodStates, training: Any, weight: float, remembered: float = 1.0) -> None:
    """Keeps a state with this weight."""
    training.model.weights[:] = weight
    hand.keep(remembered)


def back_to(hand: GoodStates, training: Any) -> float:
    """The weight that the run is given back."""
    training.model.weights[:] = -1.0
    hand.go_back()
    return float(training.model.weights[0])


def test_the_run_is_given_its_last_good_state() -> None:
    hand, training = entered()
    assert back_to(hand, training) == 3.0
    at(hand, training, 5.0, remembered=0.5)
    training.optimizer.velocity = math.inf
    assert hand.go_back() == 0.5
    assert training.model.weights.tolist() == [5.0, 5.0]
    assert training.optimizer.velocity == 1.0
    # Metrics begin anew with it.
    assert training.model.resets == 2


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_are_bounded(copies: int) -> None:
    hand, training = entered(copies=copies)
    for weight in range(10, 15):
        at(hand, training, weight)
    found = []
    for _ in range(copies + 2):
        found.append(back_to(hand, training))
        hand.distrust_last()
    # The oldest is kept for good: there is nothing else to go back to.
    oldest = 15 - copies
    assert found == [max(oldest, weight) for weight in range(14, 14 - copies - 2, -1)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["weights", "velocity"])
def test_a_state_with_nan_is_not_kept(bad: float, where: str, tmp_path: Path) -> None:
    hand, training = entered(folder=tmp_path)
    if where == "weights":
        training.model.weights[1] = bad
    else:
        training.optimizer.velocity = bad
    hand.keep(0.5)
    assert training.model.saved == []
    assert hand.go_back() == 1.0
    assert training.model.weights.tolist() == [3.0, 4.0]


def test_distrust_leaves_the_only_state() -> None:
    hand, training = entered()
    hand.distrust_last()
    assert back_to(hand, training) == 3.0


def test_a_start_keeps_no_other() -> None:
    hand, training = entered()
    at(hand, training, 5.0)
    training.model.weights[:] = 6.0
    hand.start(0.25)
    hand.distrust_last()
    assert back_to(hand, training) == 6.0
    assert hand.go_back() == 0.25


def test_new_weights_begin_anew() -> None:
    hand, training = entered()
    at(hand, training, 5.0)
    hand.state = hand.policy.begin("dead")
    training.model.weights[:] = 7.0
    hand.renew("", remembered=0.5)
    assert hand.state == hand.policy.begin("")
    assert back_to(hand, training) == 7.0
    hand.give_back()
    assert hand.state == hand.policy.returned(hand.policy.begin(""))


def test_a_factor_is_corrected_beside_every_state() -> None:
    hand, training = entered()
    at(hand, training, 5.0, remembered=0.5)
    hand.remember(0.125)
    assert hand.go_back() == 0.125
    hand.distrust_last()
    assert hand.go_back() == 0.125


def test_the_last_good_state_is_written_too(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    hand, training = entered(folder=folder)
    assert not folder.exists()
    hand.keep(1.0)
    hand.keep(1.0)
    assert training.model.saved == [str(folder / "good.weights.h5")] * 2
    assert folder.is_dir()


def test_the_policy_is_asked_and_its_state_kept(make_reading: Callable[..., Reading]) -> None:
    hand, _ = entered(every=1)
    calm = StepLog(losses=(1.0, 1.0))
    decision = hand.decide(Observation(1, diagnose(make_reading()), "healthy", None, calm))
    assert decision.keep
    assert hand.state.step == 1
    lost = StepLog(losses=(math.nan,) * 20)
    decision = hand.decide(Observation(21, None, "healthy", None, lost))
    assert decision.restore
    assert decision.intervention is not None
    assert hand.state.restores == 1


def test_it_is_told_that_another_policy_took_the_run_back() -> None:
    hand, _ = entered()
    hand.decide(Observation(1, None, "healthy", None, StepLog(losses=(1.0, 2.0))))
    before = hand.state
    hand.forget()
    assert hand.state == hand.policy.forget(before)
    assert hand.state != before


@pytest.mark.parametrize("how", ["left", "copied"])
def test_what_was_kept_of_a_training_goes_with_it(how: str) -> None:
    hand, training = entered()
    training.model.weights = np.zeros(2)
    if how == "left":
        hand.leave()
    else:
        hand = copy.deepcopy(hand)
    assert hand._kept == []
    assert hand._training is None
    again: Any = fake_training()
    hand.enter(again)
    hand.start(0.5)
    assert hand.go_back() == 0.5
    assert again.model.weights.tolist() == [3.0, 4.0]
