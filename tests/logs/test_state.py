from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_vanish.diagnosis.diagnosis import diagnose
from keras_vanish.interventions import (
    Intervention,
    LearningRateControl,
    PercentileClipping,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.clipping import NormHistory
from keras_vanish.interventions.learning_rate import RateState
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.file_system import write_whole
from keras_vanish.logs.interventions_log import append
from keras_vanish.logs.state import NAME, State, begun, find
from keras_vanish.records.readings import Reading
from keras_vanish.rescue.rescue import Rescue

MakeReading = Callable[..., Reading]


def rescue(**options: Any) -> Rescue:
    given: dict[str, Any] = {
        "clipping": ZScoreClipping(history=2),
        "rate": LearningRateControl(),
        "rollback": Rollback(),
        "init": Reinitialization(),
    }
    return Rescue(**(given | options))


def test_policies_are_taken_up() -> None:
    before = rescue()
    before._clip_state = NormHistory(3, 1.0, 0.5, 2.0)
    before._rate_state = replace(RateState(), factor=0.25, cuts=2)
    before._rollback_factor, before._firing, before._seed = 0.5, True, 3
    after = rescue()
    after.resume(json.loads(json.dumps(before.state(), allow_nan=False)))
    assert after.state() == before.state()
    assert after._factor() == 0.125
    assert after._clip_state == before._clip_state


def test_velocities_of_the_process_before_hold_its_rate_already() -> None:
    before = rescue()
    before._rate_state = replace(RateState(), factor=0.25)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    for velocity in model.optimizer.momentums:
        velocity.assign(keras.ops.ones_like(velocity))
    after = rescue()
    step_controls = after.step_controls(xla=False)
    after.begin(model, model.optimizer, updates=5, gives_batches=True)
    after.resume(before.state())
    after._set_factor()
    assert step_controls.factor is not None
    assert step_controls.factor.value == 0.25
    assert all((velocity.numpy() == 1).all() for velocity in model.optimizer.momentums)
    # From then on they go with it.
    after._rate_state = replace(RateState(), factor=0.125)
    after._set_factor()
    assert all((velocity.numpy() == 0.5).all() for velocity in model.optimizer.momentums)


def test_percentiles_are_taken_up() -> None:
    before = rescue(clipping=PercentileClipping())
    before._clip_state = before._clipping.after({}, [0.1, 0.2, 1e-30])
    after = rescue(clipping=PercentileClipping())
    after.resume(json.loads(json.dumps(before.state())))
    assert after._clip_state == before._clip_state


def test_a_policy_that_is_another_one_begins_anew() -> None:
    before = rescue(rate=None)
    before._clip_state = NormHistory(3, 1.0, 0.5, 2.0)
    after = rescue(clipping=PercentileClipping())
    after.resume(before.state())
    assert after._clip_state == {}
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
    before._clip_state = NormHistory(3, 1.0, 0.5, 2.0)
    before._rate_state = replace(RateState(), factor=0.25)
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


def written(folder: Path, *readings: Reading) -> str:
    writer = EventWriter(folder)
    for reading in readings:
        writer.write(diagnose(reading), None, "healthy")
    writer.close()
    return str(folder / "gradients")


def test_a_folder_without_readings(tmp_path: Path) -> None:
    assert find(str(tmp_path)) is None
    assert find(str(tmp_path / "nowhere")) is None
    assert begun(str(tmp_path / "nowhere"), 7.0) == State(7.0, 0)


def test_the_past_of_a_run(tmp_path: Path, make_reading: MakeReading) -> None:
    directory = written(tmp_path, *(make_reading(step=step) for step in range(3)))
    acts = [Intervention(step, "clip", "large") for step in range(3)]
    append(directory, acts)
    past = find(directory, "d_optimizer")
    assert past is not None
    assert [d.step for d in past.history] == [0, 1, 2]
    assert {d.optimizer for d in past.history} == {"d_optimizer"}
    assert past.interventions == acts
    # Of another run that began later, only what is its own.
    state = State(make_reading(step=1).wall_time, 2, {"a": 1})
    write_whole(f"{directory}/{NAME}", state.to_json())
    past = find(directory)
    assert past is not None
    assert [d.step for d in past.history] == [1, 2]
    assert past.interventions == acts[2:]
    assert past.state == state
    assert begun(directory, 7.0) == State(7.0, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"version": 2, "since": 0, "earlier": 0, "policies": {}}',
        b'{"version": 1, "since": "x", "earlier": 0, "policies": {}}',
        b'{"version": 1, "since": 0, "earlier": -1, "policies": {}}',
        b'{"version": 1, "since": 0, "earlier": 0, "policies": []}',
        b'{"version": 1, "since": 0, "earlier": 0}',
        b'{"version": 1, "since": 0, "earlier": 0, "policies": {}, "more": 1}',
        b" " * 2_000_000,
    ],
)
def test_a_file_that_is_spoiled(tmp_path: Path, make_reading: MakeReading, content: bytes) -> None:
    directory = written(tmp_path, make_reading())
    Path(directory, NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"The state of the run cannot be read: .*Received: ") as e:
        find(directory)
    assert str(e.value).endswith(f"{NAME}. Remove the file.")
    assert len(str(e.value)) < 500
