"""What the page is told of a run, without a server."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensorboard.data.provider import TensorDatum

from keras_vanish.diagnosis import diagnose
from keras_vanish.records.quantities import QUANTITIES
from keras_vanish.tensorboard_tab import answers
from keras_vanish.tensorboard_tab.source import StoredRun

Make = Callable[..., Any]


@pytest.fixture
def run(make_reading: Make, make_probed: Make) -> StoredRun:
    probed = make_probed(profiles={"dense_1": [1e-4, 1e-2, 1.0]})
    rms = [[1e-3, 0.0, math.nan], [1e-3, 1e-2, 1e-1]]
    readings = [make_reading(step=n, rms=row, probed=probed) for n, row in enumerate(rms)]
    return StoredRun("1", tuple(readings), ())


def test_a_frame_is_a_padded_header_and_float32() -> None:
    data = answers.framed({"a": 1}, np.array([[1.0, math.nan], [-math.inf, 2.0]]))
    length = int.from_bytes(data[:4], "little")
    assert length % 4 == 0
    assert json.loads(data[4 : 4 + length]) == {"a": 1, "shape": [2, 2]}
    np.testing.assert_array_equal(
        np.frombuffer(data[4 + length :], "<f4"), [1.0, math.nan, -math.inf, 2.0]
    )


def test_only_quantities_that_are_known_are_offered(run: StoredRun, make_reading: Make) -> None:
    names = [one["id"] for one in answers.about(run)["quantities"]]
    assert names == ["gradient_rms", "update_ratio", "activation_gradient_rms", "zero_fraction"]
    plain = StoredRun("1", (make_reading(),), ())
    assert "activation_gradient_rms" not in str(answers.about(plain)["quantities"])
    assert answers.about(run)["recurrent"] == ["dense_1"]


def test_curves_hold_no_number_that_json_lacks(run: StoredRun) -> None:
    found = answers.curves(run, "dense_1", 10)
    (gradient,) = [one for one in found["curves"] if one["id"] == "gradient_rms"]
    assert gradient["values"] == ["-inf", -2.0]
    json.dumps(found, allow_nan=False)
    (gradient,) = [
        one for one in answers.curves(run, "dense_2", 10)["curves"] if one["id"] == "gradient_rms"
    ]
    assert gradient["values"] == [None, -1.0]


def test_a_table_leaves_missing_numbers_empty(run: StoredRun) -> None:
    rows = list(csv.reader(io.StringIO(answers.table(run, QUANTITIES["gradient_rms"]))))
    assert rows[0] == ["step", "dense_0", "dense_1", "dense_2"]
    assert rows[1] == ["0", "0.001", "0.0", ""]
    assert rows[2] == ["1", "0.001", "0.01", "0.1"]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_no_name_is_a_formula(make_reading: Make, name: str) -> None:
    run = StoredRun("1", (make_reading(rms=[1.0], names=[name]),), ())
    text = answers.table(run, QUANTITIES["gradient_rms"])
    assert next(csv.reader(io.StringIO(text)))[1] == f"'{name}"


def test_scores_say_each_sentence_once(make_reading: Make) -> None:
    sick, well = [1e-9, 1e-8, 1e-3, 1e-3], [1e-3] * 4
    found = [diagnose(make_reading(step=n, rms=rms)) for n, rms in enumerate([well, sick, sick])]
    told = answers.scores("vanishing", found, True)
    assert told["says"] == [0, 1, 1]
    assert told["sentences"] == [found[0].sentence(), found[1].sentence()]
    assert told["blame"] == list(found[1].blame)
    assert told["steps"] == [0, 1, 2]
    assert answers.scores("unknown", [], False)["sentence"] == "The readings so far do not agree."


def test_ridges_are_few_and_finite() -> None:
    bins = np.array([[0.0, 1.0, 2.0], [1.0, math.nan, 3.0]])
    data = [TensorDatum(step=step, wall_time=0.0, numpy=bins) for step in reversed(range(100))]
    ((kernel),) = answers.ridges({"kernel": data, "bias": []})
    assert kernel["variable"] == "kernel"
    steps = [ridge["step"] for ridge in kernel["ridges"]]
    assert len(steps) == 24
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 99)
    assert kernel["ridges"][0]["bins"] == [[0.0, 1.0, 2.0]]
