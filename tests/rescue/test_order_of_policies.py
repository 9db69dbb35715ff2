"""At one look at most one policy acts, the most thorough one first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from fake_backend import TwiceTheLargest, fake_training

from keras_vanish.interventions import (
    Decision,
    Intervention,
    Observation,
    RatePolicy,
    Reinitialization,
    Rollback,
)
from keras_vanish.rescue import new_weights, rescue
from keras_vanish.rescue.reinitialize.reinitialize import Reinitialized, Touched
from keras_vanish.rescue.rescue import Rescue

#: What was asked, in order.
ASKED: list[str] = []


def act(step: int, action: Any) -> Intervention:
    return Intervention(step, action, "test.")


@dataclasses.dataclass(frozen=True)
class Init(Reinitialization):
    """Acts when it is told to."""

    acts: str = ""

    def decide(self, state: Any, observation: Observation) -> Any:
        ASKED.append("init")
        return state, act(observation.step, self.acts) if self.acts else None


@dataclasses.dataclass(frozen=True)
class Back(Rollback):
    """Restores when it is told to, or keeps."""

    acts: str = ""
    keeps: bool = False

    def decide(self, state: Any, observation: Observation) -> Any:
        ASKED.append("rollback")
        if not self.acts:
            return state, Decision(keep=self.keeps)
        stops, done = self.acts == "stop", act(observation.step, self.acts)
        return state, Decision(restore=not stops, stop=stops, factor=0.5, intervention=done)


@dataclasses.dataclass(frozen=True)
class Rate(RatePolicy):
    """Acts when it is told to."""

    acts: str = ""

    def begin(self) -> float:
        return 1.0

    def factor(self, state: float) -> float:
        return state

    def on_trial(self, state: float) -> bool:
        return state > 1

    def returned(self, state: float) -> float:
        return 1.0

    def decide(self, state: float, observation: Observation) -> Any:
        ASKED.append("rate")
        factor = {"": 1.0, "lower_rate": 0.25, "restore_rate": 4.0, "take_back_rate": 0.25}
        done = act(observation.step, self.acts) if self.acts else None
        return state * factor[self.acts], done


class Clip(TwiceTheLargest):
    def after(self, state: float, norms: Any) -> float:
        ASKED.append("clip")
        return super().after(state, norms)


class Taken:
    """Stands in for `TakenBatches`: the batches are a list."""

    def __init__(self, batches: list[Any], count: int) -> None:
        self.taken = batches[:count]

    def inputs(self) -> Any:
        return self.taken[0]

    def build(self, model: Any) -> None:
        ASKED.append("build")
        model.built = True

    def iterator(self) -> list[Any]:
        return ["taken", *self.taken]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def drawn(model: Any, x: Any, protect: Any, seed: int) -> Reinitialized:
        model.weights[:] = 100.0
        return Reinitialized((Touched("dense", "tanh", 0.1, 1.0),), {}, whole=True)

    monkeypatch.setattr(new_weights, "reinitialize", drawn)
    monkeypatch.setattr(new_weights, "pretrained", lambda model: frozenset())
    monkeypatch.setattr(rescue, "TakenBatches", Taken)
    ASKED.clear()
    yield
    ASKED.clear()


def made(
    init: str = "", back: str = "", rate: str = "", keeps: bool = False, **options: Any
) -> tuple[Rescue, Any]:
    dry_run = options.pop("dry_run", False)
    hands = Rescue(
        Clip(), Rate(acts=rate), Back(acts=back, keeps=keeps), Init(acts=init), dry_run=dry_run
    )
    training = fake_training(hands.controls(), **options)
    hands.enter(training)
    return hands, training


def looked(hands: Rescue, step: int = 10) -> list[str]:
    done, _ = hands.look(step, step, None, "unknown", None)
    return [intervention.action for intervention in done]


@pytest.mark.parametrize(
    ("acting", "done", "asked"),
    [
        ({}, [], ["init", "rollback", "rate", "clip"]),
        ({"rate": "lower_rate"}, ["lower_rate"], ["init", "rollback", "rate", "clip"]),
        (
            {"back": "roll_back", "rate": "lower_rate"},
            ["roll_back"],
            ["init", "rollback", "clip"],
        ),
        (
            {"init": "reinitialize", "back": "roll_back", "rate": "lower_rate"},
            [],
            ["init", "clip"],
        ),
        # What is only said lets the others act.
        (
            {"init": "refuse_reinitialization", "back": "roll_back"},
            ["refuse_reinitialization", "roll_back"],
            ["init", "rollback", "clip"],
        ),
    ],
)
def test_the_most_thorough_one_acts(
    acting: dict[str, str], done: list[str], asked: list[str]
) -> None:
    hands, _ = made(**acting)
    assert looked(hands) == done
    assert asked == ASKED


def test_nothing_is_asked_while_new_weights_are_pending() -> None:
    hands, training = made(init="reinitialize", rate="lower_rate")
    assert looked(hands) == []
    ASKED.clear()
    limits = len(training.controls.guard.limits)
    training.controls.guard.did([5.0], clipped=1)
    assert hands.look(11, 11, None, "unknown", None) == ([], {})
    assert ASKED == []
    assert len(training.controls.guard.limits) == limits
    assert training.controls.factor.value == 1.0


def test_new_weights_come_with_the_next_batch() -> None:
    hands, training = made(init="reinitialize")
    assert hands.before(["a", "b"], 1) == (["a", "b"], [])
    looked(hands)
    given, done = hands.before(["c", "d"], 1)
    assert given == ["taken", "c"]
    assert [intervention.action for intervention in done] == ["reinitialize"]
    assert training.model.weights.tolist() == [100.0, 100.0]
    # Once; and what the others saw is of weights that are gone.
    assert hands.before(["e"], 1) == (["e"], [])
    assert hands.good_states is not None
    assert hands.good_states.state == hands.good_states.policy.begin("")
    training.model.weights[:] = -1.0
    hands.good_states.go_back()
    assert training.model.weights.tolist() == [100.0, 100.0]
    assert hands.clipping is not None
    assert hands.clipping.state == 0.0


def test_a_failure_with_the_batch_is_said_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, *args: Any, **options: Any) -> Any:
        model.weights[:] = 0.0
        raise RuntimeError("broken")

    monkeypatch.setattr(new_weights, "reinitialize", fail)
    hands, training = made(init="reinitialize")
    looked(hands)
    given, (done,) = hands.before(["c"], 1)
    assert given == ["taken", "c"]
    assert done.action == "refuse_reinitialization"
    assert done.reason == "test. But it failed: RuntimeError('broken')."
    assert training.model.weights.tolist() == [3.0, 4.0]
    assert hands.before(["e"], 1) == (["e"], [])


def test_the_first_weights_come_back_with_the_users_rate() -> None:
    hands, training = made(init="reinitialize", rate="lower_rate")
    looked(hands)
    hands.before(["c"], 1)
    assert hands.new_weights is not None
    hands.new_weights.policy = Init(acts="")
    assert looked(hands, 20) == ["lower_rate"]
    assert training.controls.factor.value == 0.25
    hands.new_weights.policy = Init(acts="take_back_weights")
    ASKED.clear()
    assert looked(hands, 30) == ["take_back_weights"]
    assert ASKED == ["init", "clip"]
    assert training.model.weights.tolist() == [3.0, 4.0]
    assert training.controls.factor.value == 1.0
    # Nothing is there to be taken back again: nothing is said.
    assert looked(hands, 40) == []


def test_a_rollback_lowers_the_rate_and_distrusts_its_state() -> None:
    hands, training = made(back="roll_back")
    assert hands.good_states is not None
    training.model.weights[:] = 5.0
    hands.good_states.keep(1.0)
    for expected, factor in ((5.0, 0.5), (3.0, 0.25), (3.0, 0.125)):
        training.model.weights[:] = -1.0
        assert looked(hands) == ["roll_back"]
        assert training.model.weights[0] == expected
        assert training.controls.factor.value == factor
        # What is left of the state's updates has the rate that there is now.
        assert training.optimizer.velocity == factor
    assert not training.model.stop_training


def test_a_stop_gives_the_state_back_first() -> None:
    hands, training = made(back="stop")
    training.model.weights[:] = -1.0
    assert looked(hands) == ["stop"]
    assert training.model.stop_training
    assert training.model.weights.tolist() == [3.0, 4.0]


def test_a_good_state_is_kept_but_not_while_a_larger_rate_is_on_trial() -> None:
    hands, training = made(keeps=True)
    training.model.weights[:] = 5.0
    looked(hands)
    hands.rate.state = 2.0
    training.model.weights[:] = 6.0
    looked(hands)
    assert hands.good_states is not None
    hands.good_states.go_back()
    assert training.model.weights[0] == 5.0


def test_a_trial_that_failed_takes_the_weights_back() -> None:
    hands, training = made(rate="restore_rate")
    training.model.weights[:] = 5.0
    assert looked(hands) == ["restore_rate"]
    assert training.controls.factor.value == 4.0
    training.model.weights[:] = 6.0
    hands.rate.policy = Rate(acts="take_back_rate")
    done, _ = hands.look(20, 20, None, "unknown", None)
    assert [intervention.action for intervention in done] == ["take_back_rate"]
    assert done[0].reason == "test.; the weights go back with it"
    assert training.model.weights[0] == 5.0
    assert training.controls.factor.value == 1.0
    assert training.optimizer.velocity == 1.0


@pytest.mark.parametrize(
    "acting",
    [
        {"init": "reinitialize"},
        {"init": "take_back_weights"},
        {"back": "roll_back"},
        {"back": "stop"},
        {"rate": "lower_rate"},
    ],
)
def test_a_dry_run_says_it_and_does_nothing(acting: dict[str, str]) -> None:
    hands, training = made(dry_run=True, **acting)
    training.model.weights[:] = 5.0
    done, _ = hands.look(10, 10, None, "unknown", None)
    expected = [] if "take_back_weights" in acting.values() else [*acting.values()]
    assert [intervention.action for intervention in done] == expected
    assert all(intervention.dry_run for intervention in done)
    assert training.model.weights[0] == 5.0
    assert training.controls.factor is None
    assert training.optimizer.velocity == 1.0
    assert not training.model.stop_training
    assert hands.before(["a"], 1) == (["a"], [])


def test_a_model_is_built_before_its_first_step_and_the_start_kept() -> None:
    hands, training = made(built_before=False)
    assert training.backend.log == []
    assert hands.before(["a", "b"], 1) == (["taken", "a"], [])
    assert ASKED == ["build"]
    assert training.backend.log == ["build_optimizer", "snapshot", "snapshot"]
    assert hands.before(["b"], 1) == (["b"], [])


def test_numbers_of_the_steps_since_the_last_look() -> None:
    hands, training = made(rate="lower_rate")
    training.controls.guard.did([1.0, 2.0, 9.0, 9.0], clipped=1, skipped=2)
    training.controls.losses.noted = [0.5, 0.25]
    seen: list[Observation] = []
    hands._acts = lambda observation: iter([seen.append(observation)][:0])  # type: ignore
    _, numbers = hands.look(10, 4, None, "healthy", True)
    assert numbers == {
        "gradients/learning_rate": 0.1,
        "gradients/clipped_fraction": 0.25,
        "gradients/skipped_steps": 2.0,
    }
    (observation,) = seen
    assert (observation.step, observation.verdict, observation.learned) == (10, "healthy", True)
    log = observation.log
    assert (log.norms, log.losses) == ((1.0, 2.0, 9.0, 9.0), (0.5, 0.25))
    assert (log.clipped, log.skipped, log.stalled) == (1, 2, False)
    assert (log.rate, log.momentum) == (0.1, 0.9)
    # No update since: the run stands still.
    _, numbers = hands.look(10, 4, None, "healthy", True)
    assert seen[-1].log.stalled
    assert numbers == {"gradients/learning_rate": 0.1}
