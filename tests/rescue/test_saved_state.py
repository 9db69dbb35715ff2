"""What the flags know of a run, in a file and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import keras
import pytest

from keras_vanish.capture.tensorflow.backend import BACKEND
from keras_vanish.capture.tensorflow.control.step_controls import built
from keras_vanish.interventions import (
    LearningRateControl,
    PercentileClipping,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.clipping import NormHistory
from keras_vanish.interventions.learning_rate import RateState
from keras_vanish.rescue.rescue import Rescue
from keras_vanish.rescue.training import Training


def rescue(**options: Any) -> Any:
    given: dict[str, Any] = {
        "clipping": ZScoreClipping(history=2),
        "rate": LearningRateControl(),
        "rollback": Rollback(),
        "init": Reinitialization(),
    }
    return Rescue(**(given | options))


def test_policies_are_taken_up() -> None:
    before = rescue()
    before.clipping.state = NormHistory(3, 1.0, 0.5, 2.0)
    before.rate.state = replace(RateState(), factor=0.25, cuts=2)
    before.rate.rollback_factor, before.clipping.firing, before.new_weights.seed = 0.5, True, 3
    after = rescue()
    after.resume(json.loads(json.dumps(before.state(), allow_nan=False)))
    assert after.state() == before.state()
    assert after.rate.factor == 0.125
    assert after.clipping.state == before.clipping.state


def test_velocities_of_the_process_before_hold_its_rate_already() -> None:
    before = rescue()
    before.rate.state = replace(RateState(), factor=0.25)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    for velocity in model.optimizer.momentums:
        velocity.assign(keras.ops.ones_like(velocity))
    after = rescue()
    controls = built(after.controls(), xla=False)
    after.enter(Training(BACKEND, model, model.optimizer, controls, 5, gives_batches=True))
    after.resume(before.state())
    after.rate.apply()
    assert controls.factor is not None
    assert controls.factor.value == 0.25
    assert all((velocity.numpy() == 1).all() for velocity in model.optimizer.momentums)
    # From then on they go with it.
    after.rate.state = replace(RateState(), factor=0.125)
    after.rate.apply()
    assert all((velocity.numpy() == 0.5).all() for velocity in model.optimizer.momentums)


def test_percentiles_are_taken_up() -> None:
    before = rescue(clipping=PercentileClipping())
    before.clipping.state = before.clipping.policy.after({}, [0.1, 0.2, 1e-30])
    after = rescue(clipping=PercentileClipping())
    after.resume(json.loads(json.dumps(before.state())))
    assert after.clipping.state == before.clipping.state


def test_a_policy_that_is_another_one_begins_anew() -> None:
    before = rescue(rate=None)
    before.clipping.state = NormHistory(3, 1.0, 0.5, 2.0)
    after = rescue(clipping=PercentileClipping())
    after.resume(before.state())
    assert after.clipping.state == {}
    assert after.state()["policies"]["rate"] == rescue().state()["policies"]["rate"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rate", "factor"), -1.0),
        (("rate", "factor"), 0),
        (("rate", "factor"), "inf"),
        (("rate", "factor"), "nan"),
        (("rate", "cuts"), 10**15),
        (("rate", "trend"), []),
        (("rate", "trend", "tail"), ["x"]),
        (("rollback", "barren"), 10**9),
        (("rollback", "born"), 5),
        (("clip", "variance"), -1.0),
        (("clip", "mean"), "nan"),
        (("clip", "count"), 0.5),
        (("init", "course"), {"count": 1}),
        (("init", "more"), 1),
    ],
)
def test_nothing_is_taken_up_of_what_is_spoiled(place: tuple[str, ...], value: Any) -> None:
    before = rescue()
    before.clipping.state = NormHistory(3, 1.0, 0.5, 2.0)
    before.rate.state = replace(RateState(), factor=0.25)
    state = json.loads(json.dumps(before.state()))
    inner = state["policies"][place[0]]["state"]
    for name in place[1:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    after = rescue()
    fresh = after.state()
    with pytest.raises(ValueError, match=r"."):
        after.resume(state)
    assert after.state() == fresh


@pytest.mark.parametrize(
    "spoiled",
    [
        {"rollback_factor": 0},
        {"rollback_factor": "inf"},
        {"seed": -1},
        {"firing": 1},
        {"more": 1},
        {"refused": None},
    ],
)
def test_other_fields_that_are_spoiled(spoiled: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        rescue().resume(rescue().state() | spoiled)


@pytest.mark.parametrize("policies", [None, [], {"clip": None}, {"clip": []}, {"rate": {}}])
def test_policies_that_are_not_there_begin_anew(policies: Any) -> None:
    after = rescue()
    after.resume(rescue().state() | {"policies": policies})
    assert after.state() == rescue().state()
