"""The picture of a run, line by line; `test_doctor.py` has it as a part of the whole page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from factories import MakeReading

from keras_vanish.diagnosis import Diagnosis, diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.records.probed import Probed
from keras_vanish.report.timeline import timeline


def lines(
    history: Sequence[Diagnosis], done: Sequence[Intervention] = (), width: int = 60
) -> list[str]:
    return [text.plain for text in timeline(history, "unknown", done, width)]


@pytest.fixture
def history(make_reading: MakeReading) -> list[Diagnosis]:
    rows = [[1e-3, 1e-2], [1e-5, 1e-2], [0.0, 1e-2], [math.nan, 1e-2]]
    return [diagnose(make_reading(step=10 * n, rms=rms)) for n, rms in enumerate(rows)]


def test_the_output_is_above_the_input(history: list[Diagnosis]) -> None:
    found = lines(history)
    assert found[0] == "Gradient RMS, from the layer next to the output down to the input:"
    assert found[1].split() == ["1", "dense_1", "████", "1.0e-02"]
    assert found[2].split()[-4:] == ["0", "dense_0", "▇▅0·", "·"]
    assert found[3].split() == ["step", "0", "to", "30"]


def test_interventions_stand_in_the_column_of_their_step(history: list[Diagnosis]) -> None:
    (done,) = [line for line in lines(history, [Intervention(25, "clip", "")]) if "done" in line]
    (top,) = [line for line in lines(history) if "dense_1" in line]
    assert done.index("▲") == top.index("████") + 2
    assert not any("done" in line for line in lines(history))


def test_the_horizon_is_of_the_steps_that_there_are(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    probed = make_probed(profiles={"lstm": [0.0, 1.0, 1.0]})
    last = lines([diagnose(make_reading(probed=probed))])[-1]
    assert last.startswith("horizon lstm")
    assert last.endswith(" 1 of 2")


@pytest.mark.parametrize("width", [60, 100])
def test_columns_are_as_many_as_fit(make_reading: MakeReading, width: int) -> None:
    found = lines([diagnose(make_reading(step=n)) for n in range(300)], width=width)
    assert max(map(len, found[1:4])) <= width
