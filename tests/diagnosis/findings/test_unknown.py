from __future__ import annotations

import math

import pytest
from factories import MakeReading

from keras_vanish.diagnosis import diagnose


@pytest.mark.smoke
@pytest.mark.parametrize("rms", [[1.0], [0.0, 0.0, 0.0], [math.nan] * 3, [0.0, 1.0, math.nan]])
def test_where_depth_cannot_be_known_the_verdict_is_unknown(
    make_reading: MakeReading, rms: list[float]
) -> None:
    diagnosis = diagnose(make_reading(rms=rms, update_rms=math.nan))
    assert diagnosis.verdict == "unknown"
    assert math.isnan(diagnosis.vanishing_score)
    assert math.isnan(diagnosis.exploding_score)
    assert diagnosis.advice


@pytest.mark.smoke
def test_all_zero_gradients_are_unknown_and_named(make_reading: MakeReading) -> None:
    assert diagnose(make_reading(rms=[0.0, 0.0])).blame == ("dense_0", "dense_1")
    assert diagnose(make_reading(rms=[0.0, math.nan, 1.0])).blame == ("dense_0",)


def test_a_sentence_lists_no_zero_layers_where_there_are_none(make_reading: MakeReading) -> None:
    for rms in ([1.0], [math.nan, math.nan]):
        sentence = diagnose(make_reading(rms=rms)).sentence()
        assert sentence == "Too few layers have a gradient that tells."
