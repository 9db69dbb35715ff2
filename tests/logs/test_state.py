"""The state of a run that another process takes up."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_files import write
from factories import MakeReading

from keras_vanish.interventions import Intervention
from keras_vanish.logs.file_system import write_whole
from keras_vanish.logs.interventions_log import append
from keras_vanish.logs.state import NAME, State, begun, find


def test_a_folder_without_readings(tmp_path: Path) -> None:
    assert find(str(tmp_path)) is None
    assert find(str(tmp_path / "nowhere")) is None
    assert begun(str(tmp_path / "nowhere"), 7.0) == State(7.0, 0)


def test_the_past_of_a_run(tmp_path: Path, make_reading: MakeReading) -> None:
    write(tmp_path, *(make_reading(step=step) for step in range(3)))
    directory = str(tmp_path / "gradients")
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
    write(tmp_path, make_reading())
    directory = str(tmp_path / "gradients")
    Path(directory, NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"The state of the run cannot be read: .*Received: ") as e:
        find(directory)
    assert str(e.value).endswith(f"{NAME}. Remove the file.")
    assert len(str(e.value)) < 500
