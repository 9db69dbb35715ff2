from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from factories import MakeReading

from keras_vanish.diagnosis import Diagnosis, diagnose
from keras_vanish.diagnosis.findings import illness_of
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.float16 import cut_by_float16, note


@pytest.mark.parametrize("spread", [np.random.Generator.normal, np.random.Generator.laplace])
@pytest.mark.parametrize("dead", [0.0, 0.5])
@pytest.mark.parametrize(
    ("exponent", "float16", "expected"),
    [
        (-23, True, True),
        (-25, True, True),
        (-14, True, False),  # Nothing to speak of is lost.
        (-23, False, False),
        (-25, False, False),
        (-40, False, False),
    ],
)
def test_what_float16_rounds_to_zero_is_told_from_other_zeros(
    spread: Callable[..., Any],
    dead: float,
    exponent: int,
    float16: bool,
    expected: bool,
    make_reading: MakeReading,
) -> None:
    random = np.random.default_rng(0)
    gradient = spread(random, size=4096) * 2.0**exponent * (random.uniform(size=4096) >= dead)
    gradient = gradient.astype(np.float16 if float16 else np.float32).astype(np.float64)
    reading = make_reading(
        rms=[1e-3, np.sqrt(np.mean(gradient**2))],
        names=["other", "cut"],
        size=4096,
        zero_fraction=[0.1, np.mean(gradient == 0)],
        float16_underflow=[0.0, np.mean((gradient != 0) & (np.abs(gradient) < 2.0**-25))],
    )
    assert cut_by_float16(reading.layers) == ["cut"] * expected


def test_too_few_entries_do_not_show_what_float16_lost(make_reading: MakeReading) -> None:
    tiny = {"rms": [2e-7], "zero_fraction": 0.2}
    assert cut_by_float16(make_reading(size=4096, **tiny).layers)
    assert not cut_by_float16(make_reading(size=64, **tiny).layers)
    assert not cut_by_float16(make_reading(rms=[0.0], zero_fraction=1.0).layers)
    assert not cut_by_float16(make_reading(rms=[math.nan], zero_fraction=math.nan).layers)


@pytest.mark.smoke
def test_what_float16_rounds_to_zero_is_said_first_and_of_healthy_runs_too(
    make_reading: MakeReading,
) -> None:
    def of(names: Sequence[str], **columns: Any) -> Diagnosis:
        cut = {"rms": [2e-7] * len(names), "zero_fraction": 0.2, "size": 4096.0}
        return diagnose(make_reading(names=names, **cut, **columns))

    found = of(["{layers}", "b"])
    assert found.verdict == "healthy"
    (line,) = found.advice
    assert line.startswith("float16 rounds gradients below 6e-8 to zero, here in {layers}, b:")
    assert "auto_scale_loss=True" in line
    assert "mixed_bfloat16" in line
    assert note(Evidence(found.reading)) == line
    # The advice of an illness follows.
    sick = of(["b", "c"], update_rms=1.0)
    assert sick.verdict == "exploding"
    assert sick.advice[0].startswith("float16 rounds gradients")
    assert sick.advice[1:] == illness_of("exploding", "update").advice
    many = of([f"l{i}" for i in range(8)])
    assert many.advice[0].count("l5 and 2 more:") == 1


def test_nothing_is_said_where_float16_lost_nothing(make_reading: MakeReading) -> None:
    assert note(Evidence(make_reading())) == ""
