from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from diagnosis_helpers import NOT_LEARNED, Close, Falling, Outcome, through_time
from factories import MakeProbed, MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import LearningProgress, diagnose, diagnoses
from keras_vanish.diagnosis.findings.time import by_time
from keras_vanish.diagnosis.profiles import CRITICAL_DECAY
from keras_vanish.diagnosis.progress import LEARNED_SHARE, PATIENCE
from keras_vanish.records.probed import Probed

LEARNED = LearningProgress(count=2, share=0.0, best=LEARNED_SHARE)


@pytest.mark.smoke
def test_vanishing_through_time_counts_in_a_run_that_does_not_learn(
    falling: Falling, close: Close
) -> None:
    layers = through_time([1.0, 1.0], falling(20, CRITICAL_DECAY))
    assert by_time(layers, NOT_LEARNED) == close(0.5)
    assert by_time(layers, LEARNED) == 0.0
    assert math.isnan(by_time(layers, LearningProgress()))
    assert math.isnan(by_time(layers, dataclasses.replace(NOT_LEARNED, count=PATIENCE - 1)))
    assert math.isnan(by_time({}, NOT_LEARNED))
    assert math.isnan(by_time({}, LEARNED))
    assert math.isnan(by_time(through_time([1.0]), NOT_LEARNED))


@given(st.lists(st.floats(1e-20, 1e20), min_size=2, max_size=40), st.floats(-12, 12))
def test_a_constant_factor_changes_no_score_through_time(
    close: Close, rms: list[float], exponent: float
) -> None:
    one, other = through_time(rms), through_time([value * 10.0**exponent for value in rms])
    assert by_time(other, NOT_LEARNED) == close(by_time(one, NOT_LEARNED))


@pytest.mark.smoke
def test_vanishing_through_time_needs_the_course(
    falling: Falling, close: Close, make_reading: MakeReading, make_probed: MakeProbed
) -> None:
    reading = make_reading(probed=make_probed(profiles={"lstm": falling(30, 6.0)}))
    assert diagnose(reading).verdict == "healthy"
    assert math.isnan(diagnose(reading).components["time"])
    assert diagnose(reading, NOT_LEARNED).components["time"] == close(1 - 2**-3)
    learned = dataclasses.replace(NOT_LEARNED, best=0.5)
    assert diagnose(reading, learned).components["time"] == 0.0
    assert diagnose(reading, learned).verdict == "healthy"


@pytest.mark.smoke
def test_recurrent_layers_that_lose_too_much_are_to_blame(
    falling: Falling, outcome: Outcome
) -> None:
    profiles = {"ok": falling(9, 1.9), "lstm": falling(30, 6.0), "gru": falling(30, 2.1)}
    assert outcome(probed={"profiles": profiles}) == ("vanishing", "time", ("lstm", "gru"))


def test_the_blame_for_time_is_not_empty_at_the_very_threshold(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    probed = make_probed(profiles={"lstm": [13 / 1e5, 13 / 1e3]}, loss=1.0, shuffled_loss=1.0)
    readings = [make_reading(step=step, probed=probed) for step in range(3)]
    last = diagnoses(readings)[-1]
    assert (last.verdict, last.cause, last.blame) == ("vanishing", "time", ("lstm",))


def test_the_sentence_says_how_far_back_in_time_the_gradient_reaches(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    profile = [10.0**exponent for exponent in range(-9, 1)]
    probed = make_probed(profiles={"lstm": profile}, loss=1.0, shuffled_loss=1.0)
    last = diagnoses([make_reading(step=step, probed=probed) for step in range(3)])[-1]
    assert last.sentence().endswith("They reach back only so far: lstm (2 of 9 steps).")
