from __future__ import annotations

import dataclasses
import math

import pytest
from diagnosis_helpers import NOT_LEARNED, Close, Outcome
from factories import MakeProbed, MakeReading
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_vanish.diagnosis import diagnose

#: Of a run that has not learned anything.


calm = st.lists(st.floats(-0.5, 0.5).map(lambda e: 10**e), min_size=3, max_size=20)


@given(calm, st.data())
def test_one_layer_that_is_quiet_by_construction_raises_no_alarm(
    make_reading: MakeReading, rms: list[float], data: st.DataObject
) -> None:
    # A bias that softmax or a normalisation cancels: rounding noise, anywhere.
    place = data.draw(st.integers(0, len(rms)))
    noise = data.draw(st.sampled_from([1e-10, 1e-17, 0.0]))
    reading = make_reading(rms=[*rms[:place], noise, *rms[place:]])
    assert diagnose(reading).verdict == "healthy"


@given(calm, st.sets(st.integers(0, 19)))
def test_frozen_layers_are_absent_and_missed_by_nobody(
    make_reading: MakeReading, rms: list[float], frozen: set[int]
) -> None:
    left = [value for i, value in enumerate(rms) if i not in frozen]
    assume(len(left) > 1)
    assert diagnose(make_reading(rms=left)).verdict == "healthy"


@pytest.mark.smoke
def test_a_zero_initialised_head_is_no_alarm_in_its_first_steps(
    close: Close, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    # Step 0: the head is zero, and so is every gradient behind it.
    first = make_reading(
        rms=[0.0, 0.0, 0.0, 1.0],
        weight_rms=[1, 1, 1, 0],
        update_rms=[0, 0, 0, 0.01],
        probed=make_probed([0.0, 0.0, 0.0, 1.0], dead_fraction=[0.1, 0.1, 0.1, math.nan]),
    )
    for reading in (first, dataclasses.replace(first, probed=None)):
        assert diagnose(reading, NOT_LEARNED).verdict == "unknown"
        assert diagnose(reading).blame == ("dense_0", "dense_1", "dense_2")
    # Step 1: it holds back most of the gradient, and changes by its own size.
    second = make_reading(
        rms=[1e-4, 1e-4, 1e-4, 1.0],
        weight_rms=[1, 1, 1, 0.01],
        update_rms=[1e-6] * 3 + [0.01],
        probed=make_probed([1e-4, 1e-4, 1e-4, 1.0]),
    )
    assert diagnose(second).verdict == "healthy"
    assert diagnose(second).vanishing_score == close(0.0)
    # The same with a head that does not open is vanishing.
    stuck = make_reading(rms=[1e-4, 1e-4, 1e-4, 1.0], weight_rms=1.0, update_rms=0.09)
    assert diagnose(stuck).verdict == "vanishing"


def test_zero_initialised_branches_beside_skips_are_no_alarm(make_reading: MakeReading) -> None:
    # Stem, then blocks of (branch, scale) with scale 0: the branches get nothing yet.
    rms = [1.0, *[0.0, 1.0] * 4, 1.0]
    assert diagnose(make_reading(rms=rms)).verdict == "healthy"
    rms = [1.0, *[1e-4, 1.0] * 4, 1.0]
    ratio = [1e-3, *[1e-3, 1.0] * 4, 1e-3]
    reading = make_reading(rms=rms, weight_rms=1.0, update_rms=ratio)
    assert diagnose(reading).verdict == "healthy"


@pytest.mark.smoke
def test_a_healthy_reading_has_no_cause_and_no_blame(outcome: Outcome) -> None:
    assert outcome() == ("healthy", "", ())
