from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from factories import MakeReading

from keras_vanish.diagnosis import diagnose


@pytest.mark.smoke
def test_sentences(make_reading: MakeReading) -> None:
    def sentence(rms: list[float], **columns: Any) -> str:
        return diagnose(make_reading(rms=rms, **columns)).sentence()

    assert sentence([1.0] * 4) == "Gradients reach the whole network."
    assert sentence([1e-6, 1e-5, 1.0, 1.0]) == (
        "Gradients vanish on the way to the input. Starved: dense_0, dense_1."
    )
    assert sentence([1e4, 1.0]) == "Gradients explode. Too large: dense_0."
    assert sentence([1.0] * 2, update_rms=2.0) == (
        "Updates are as large as the weights. Thrown about: dense_0, dense_1."
    )
    assert sentence([1.0] * 2, nan_count=1.0) == (
        "Gradients are NaN or infinite. In dense_0, dense_1."
    )
    assert sentence([0.0, 1.0]) == (
        "Too few layers have a gradient that tells. Exactly zero: dense_0."
    )


def test_a_diagnosis_equals_that_of_an_equal_reading(make_reading: MakeReading) -> None:
    for rms in ([1.0, 1.0], [1.0], [math.nan]):
        assert diagnose(make_reading(rms=rms)) == diagnose(make_reading(rms=rms))
    assert diagnose(make_reading(rms=[1.0, 1.0])) != diagnose(make_reading(rms=[1.0, 2.0]))
    assert diagnose(make_reading(step=7)).step == 7


@pytest.mark.smoke
def test_a_diagnosis_whose_cause_was_changed_still_has_words(make_reading: MakeReading) -> None:
    healthy = diagnose(make_reading())
    sick = dataclasses.replace(healthy, verdict="vanishing", blame=("a",))
    assert sick.sentence() == "Gradients vanish on the way to the input. Starved: a."
    assert not sick.decisive
    nonfinite = dataclasses.replace(healthy, verdict="nonfinite")
    assert nonfinite.decisive
    # The name that earlier versions gave it.
    assert nonfinite.certain
    assert not sick.certain
