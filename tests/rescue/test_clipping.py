"""The limits of clipping, and the account of what they did."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
from fake_backend import TwiceTheLargest, fake_training

from keras_vanish.capture.backend import Controls, GuardSettings
from keras_vanish.interventions import AdaptiveClipping, NormClipping, Observation
from keras_vanish.records.step_log import StepLog
from keras_vanish.rescue.clipping import Clipping


def entered(policy: Any, guard: bool = True) -> tuple[Clipping, Any]:
    clipping = Clipping(policy)
    controls = Controls(guard=clipping.settings(dry_run=False) if guard else None)
    training = fake_training(controls)
    clipping.enter(training)
    return clipping, training


def observed(norms: Sequence[float] = (), clipped: int = 0, skipped: int = 0) -> Observation:
    return Observation(7, None, "unknown", None, StepLog(tuple(norms), (), clipped, skipped))


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("policy", "smallest"), [(NormClipping(1.0), None), (AdaptiveClipping(0.1, eps=0.02), 0.02)]
)
def test_how_the_guard_is_built(policy: Any, smallest: float | None, dry_run: bool) -> None:
    settings = Clipping(policy).settings(dry_run)
    assert settings == GuardSettings(enforces=not dry_run, smallest_norm=smallest)


def test_limits_are_those_of_what_was_seen() -> None:
    clipping, training = entered(TwiceTheLargest())
    clipping.set_limits()
    clipping.see([1.0, 3.0])
    clipping.set_limits()
    clipping.see([2.0])
    clipping.set_limits()
    nothing = (math.inf, math.inf, math.inf)
    assert training.controls.guard.limits == [nothing, (6.0, 3.0, math.inf), (6.0, 3.0, math.inf)]
    # No norm of weights was asked for, which would cost a kernel at each look.
    assert "weights_norm" not in training.backend.log


def test_the_reach_follows_the_norm_of_the_weights() -> None:
    clipping, training = entered(TwiceTheLargest(reach=0.5))
    for weights in ([3.0, 4.0], [6.0, 8.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]):
        training.model.weights[:] = weights
        clipping.set_limits()
    reaches = [reach for _, _, reach in training.controls.guard.limits]
    # Weights of which nothing can be said bound nothing.
    assert reaches == [2.5, 5.0, math.inf, math.inf, math.inf]
    # The function is made once: it is traced.
    assert training.backend.log == ["weights_norm"]


def test_new_weights_are_judged_by_what_they_do() -> None:
    clipping, training = entered(TwiceTheLargest())
    clipping.see([3.0])
    clipping.renew()
    clipping.set_limits()
    assert training.controls.guard.limits == [(math.inf, math.inf, math.inf)]


def test_every_skip_is_said() -> None:
    clipping, _ = entered(NormClipping(1.0))
    for _ in range(2):
        (act,) = clipping.account(observed([1.0, math.nan, 2.0], skipped=1))
        assert (act.step, act.action, act.after) == (7, "skip", {"skipped": 1.0})
        assert act.reason == "NaN or Inf in the gradient, in 1 of 3 steps"
    # Of an accumulated update, more steps may be skipped than there are norms.
    (act,) = clipping.account(observed([], skipped=2))
    assert act.reason.endswith("in 2 of 2 steps")


def test_clipping_is_said_as_it_begins() -> None:
    clipping, _ = entered(NormClipping(1.0))
    (act,) = clipping.account(observed([0.5, 8.0, math.inf], clipped=2))
    assert act.action == "clip"
    assert act.reason == "2 of 3 updates were beyond the limit, with global norms up to 8"
    assert (act.before, act.after) == ({"global_norm": 8.0}, {"clipped": 2.0})
    assert clipping.firing
    assert list(clipping.account(observed([9.0], clipped=1))) == []
    assert list(clipping.account(observed([0.5]))) == []
    assert not clipping.firing
    assert [act.action for act in clipping.account(observed([9.0], clipped=1))] == ["clip"]


def test_skips_and_clips_of_one_look() -> None:
    clipping, _ = entered(NormClipping(1.0))
    done = clipping.account(observed([math.nan, 9.0], clipped=1, skipped=1))
    assert [act.action for act in done] == ["skip", "clip"]


def test_a_norm_that_is_not_known_is_nan() -> None:
    clipping, _ = entered(NormClipping(1.0))
    (act,) = clipping.account(observed([math.inf], clipped=1))
    assert math.isnan(act.before["global_norm"])


def test_what_the_guard_did_is_read_once() -> None:
    clipping, training = entered(NormClipping(1.0))
    training.controls.guard.did([1.0, 2.0], clipped=1)
    log = clipping.read()
    assert log is not None
    assert (log.norms.tolist(), log.clipped) == ([1.0, 2.0], 1)
    assert clipping.read().clipped == 0  # type: ignore[union-attr]


def test_a_step_without_a_guard() -> None:
    clipping, _ = entered(TwiceTheLargest(reach=0.5), guard=False)
    clipping.set_limits()
    assert clipping.read() is None


@pytest.mark.parametrize("how", ["left", "copied"])
def test_the_training_is_let_go_of(how: str) -> None:
    clipping, training = entered(TwiceTheLargest(reach=0.5))
    clipping.see([3.0])
    clipping.firing = True
    clipping.set_limits()
    if how == "left":
        clipping.leave()
    else:
        clipping = copy.deepcopy(clipping)
    clipping.set_limits()
    assert clipping.read() is None
    assert len(training.controls.guard.limits) == 1
    # What it knows of the run stays.
    assert (clipping.state, clipping.firing) == (3.0, True)
    again = fake_training(Controls(guard=clipping.settings(False)))
    clipping.enter(again)
    clipping.set_limits()
    assert again.controls.guard.limits == [(6.0, 3.0, 2.5)]
