"""New weights: put off until a batch, refused, undone, and taken back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from fake_backend import fake_training

from keras_vanish.interventions import Intervention, Reinitialization
from keras_vanish.rescue import new_weights
from keras_vanish.rescue.new_weights import NewWeights
from keras_vanish.rescue.reinitialize.reinitialize import Reinitialized, Touched

PLANNED = Intervention(9, "reinitialize", "It vanishes.", {"loss": 2.0})


@pytest.fixture(autouse=True)
def draws(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, list[Any], int]]:
    """Stands in for what needs a Keras model; returns inputs, protected layers and seeds."""
    called: list[tuple[Any, list[Any], int]] = []

    def drawn(model: Any, x: Any, protect: Any, seed: int) -> Reinitialized:
        called.append((x, list(protect), seed))
        model.weights[:] = 100.0 + seed
        touched = tuple(Touched(f"dense_{i}", "tanh", 0.1 * i, 1.0) for i in (1, 2))
        return Reinitialized(touched, {}, whole=True)

    monkeypatch.setattr(new_weights, "reinitialize", drawn)
    monkeypatch.setattr(new_weights, "pretrained", lambda model: frozenset({"embedding"}))
    return called


def entered(protect: tuple[str, ...] = (), **options: Any) -> tuple[NewWeights, Any]:
    hand = NewWeights(Reinitialization(protect=protect))
    training = fake_training(**options)
    hand.enter(training)
    hand.start()
    return hand, training


def test_they_are_put_off_until_the_next_batch() -> None:
    hand, training = entered()
    assert list(hand.plan(PLANNED)) == []
    assert hand.pending is PLANNED
    assert training.model.weights.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"updates": 1}, "the model has been trained before this fit"),
        ({"gives_batches": False}, "a custom training loop does not hand over its batches"),
        (
            {"updates": 1, "gives_batches": False},
            "a custom training loop does not hand over its batches",
        ),
    ],
)
def test_they_are_refused_once(options: dict[str, Any], why: str) -> None:
    hand, _ = entered(**options)
    (act,) = hand.plan(PLANNED)
    assert (act.step, act.action) == (9, "refuse_reinitialization")
    assert act.reason == f"It vanishes. But {why}."
    assert hand.pending is None
    assert list(hand.plan(PLANNED)) == []


def test_the_model_is_given_new_weights_from_the_start(draws: list[Any]) -> None:
    hand, training = entered(protect=("head",))
    training.model.weights[:] = 50.0
    training.optimizer.velocity = 7.0
    done, whole = hand.carry_out(PLANNED, "a batch")
    assert whole
    assert (done.step, done.action, done.reason) == (9, "reinitialize", "It vanishes.")
    assert done.before == {"dense_1": 0.1, "dense_2": 0.2}
    assert done.after == {"dense_1": 1.0, "dense_2": 1.0}
    assert training.model.weights.tolist() == [100.0, 100.0]
    # What the optimizer remembers is of the start too.
    assert training.optimizer.velocity == 1.0
    assert training.model.resets == 1
    # Each has its own draws.
    assert hand.carry_out(PLANNED, "another")[0].action == "reinitialize"
    assert draws == [
        ("a batch", ["head", "embedding"], 0),
        ("another", ["head", "embedding"], 1),
    ]


def test_a_model_of_which_every_layer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Reinitialized((), {"dense_0": "frozen"}, whole=False)
    monkeypatch.setattr(new_weights, "reinitialize", lambda *args, **options: found)
    hand, _ = entered()
    done, whole = hand.carry_out(PLANNED, "a batch")
    assert done.action == "refuse_reinitialization"
    assert done.reason == (
        "It vanishes. But every layer is left alone: pretrained, protected, frozen, or without a "
        "kernel."
    )
    assert not whole
    assert not hand.renewed
    assert not hand.take_back()


def test_a_failure_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, *args: Any, **options: Any) -> Any:
        model.weights[:] = 0.0
        raise RuntimeError("broken")

    monkeypatch.setattr(new_weights, "reinitialize", fail)
    hand, training = entered()
    with pytest.raises(RuntimeError, match="broken"):
        hand.carry_out(PLANNED, "a batch")
    assert training.model.weights.tolist() == [0.0, 0.0]
    hand.undo()
    assert training.model.weights.tolist() == [3.0, 4.0]
    assert not hand.renewed


def test_they_are_taken_back_only_if_they_were_given() -> None:
    hand, training = entered()
    training.model.weights[:] = 50.0
    list(hand.plan(PLANNED))
    # Planned is not given: these are the weights as training made them.
    assert not hand.take_back()
    assert training.model.weights.tolist() == [50.0, 50.0]
    hand.carry_out(PLANNED, "a batch")
    assert hand.take_back()
    assert training.model.weights.tolist() == [3.0, 4.0]
    # Once.
    training.model.weights[:] = 60.0
    assert not hand.take_back()
    assert training.model.weights.tolist() == [60.0, 60.0]


def refused(hand: NewWeights) -> bool:
    return [act.action for act in hand.plan(PLANNED)] == ["refuse_reinitialization"]


def left(hand: NewWeights) -> NewWeights:
    hand.leave()
    return hand


@pytest.mark.parametrize("how", [left, copy.deepcopy])
def test_what_is_bound_to_a_training_goes_with_it(how: Callable[[NewWeights], NewWeights]) -> None:
    hand, training = entered()
    list(hand.plan(PLANNED))
    hand.carry_out(PLANNED, "a batch")
    hand.refused = True
    hand = how(hand)
    hand.undo()
    assert not hand.take_back()
    assert training.model.weights.tolist() == [100.0, 100.0]
    # What it knows of the run stays; another fit begins with nothing pending or given.
    assert (hand.refused, hand.seed) == (True, 1)
    hand.enter(fake_training())
    assert (hand.pending, hand.renewed) == (None, False)


def test_weights_that_are_let_go_of_are_not_restored() -> None:
    hand, training = entered()
    hand.carry_out(PLANNED, "a batch")
    hand.let_start_go()
    assert not hand.take_back()
    assert refused(hand)
    assert training.model.weights.tolist() == [100.0, 100.0]
