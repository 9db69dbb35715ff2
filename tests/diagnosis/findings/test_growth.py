from __future__ import annotations

import math
from typing import Any

import pytest
from diagnosis_helpers import Close, Falling, through_time
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import THRESHOLD, diagnose
from keras_vanish.diagnosis.findings.growth import growth_by_time
from keras_vanish.diagnosis.profiles import CRITICAL_DECAY


@pytest.mark.smoke
def test_growth_through_time(falling: Falling, close: Close) -> None:
    layers = through_time([1.0, 1.0], falling(20, CRITICAL_DECAY)[::-1], [math.nan, 1.0])
    assert growth_by_time(layers) == close(0.5)
    assert growth_by_time(through_time(falling(20, 9.0))) == 0.0
    assert math.isnan(growth_by_time({}))
    assert math.isnan(growth_by_time(through_time([0.0, 0.0])))


@given(st.lists(st.floats(1e-20, 1e20), min_size=2, max_size=40), st.floats(-12, 12))
def test_a_constant_factor_changes_no_score_through_time(
    close: Close, rms: list[float], exponent: float
) -> None:
    one, other = through_time(rms), through_time([value * 10.0**exponent for value in rms])
    assert growth_by_time(other) == close(growth_by_time(one))


def test_blame_for_growth_names_the_layers_that_grew(make_reading: MakeReading) -> None:
    # The last layer opens, which has nothing to do with the growth of the others.
    reading = make_reading(
        rms=[1e4, 1e3, 1e2, 1e1, 1.0, 1.0], weight_rms=1.0, update_rms=[1e-3] * 5 + [1.0]
    )
    diagnosis = diagnose(reading)
    assert diagnosis.verdict == "exploding"
    assert diagnosis.blame[0] == "dense_0"


@pytest.mark.smoke
def test_layers_that_grew_are_to_blame_by_weights_by_activations_and_through_time(
    falling: Falling, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    def of(*args: Any, **columns: Any) -> tuple[str, str, tuple[str, ...]]:
        found = diagnose(make_reading(*args, **columns))
        return found.verdict, found.cause, found.blame

    high = falling(3, 4.0)[::-1]
    names = ["dense_0", "relu", "out"]
    assert of(rms=high) == ("exploding", "growth", ("dense_0", "dense_1"))
    assert of(probed=make_probed(high, names)) == ("exploding", "growth", ("dense_0", "relu"))
    # A layer that both profiles name is named once.
    both = ("dense_0", "dense_1", "relu")
    assert of(rms=high, probed=make_probed(high, names)) == ("exploding", "growth", both)
    profiles = {"ok": [1.0, 1.0], "rnn": falling(30, 5.0)[::-1]}
    assert of(probed=make_probed(profiles=profiles)) == ("exploding", "growth", ("rnn",))


@pytest.mark.smoke
def test_growth_of_saturated_activations_is_vanishing(
    falling: Falling, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    probed = make_probed(falling(6, 6.0)[::-1], saturated_fraction=0.9)
    found = diagnose(make_reading(rms=falling(6, 6.0)[::-1], probed=probed))
    assert (found.verdict, found.cause) == ("vanishing", "saturated")
    assert found.exploding_score > THRESHOLD
