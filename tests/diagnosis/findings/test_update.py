from __future__ import annotations

import math
from typing import Any

import pytest
from factories import MakeReading
from hypothesis import given
from hypothesis import strategies as st

from keras_vanish.diagnosis import Diagnosis, diagnose, steadied
from keras_vanish.diagnosis.findings.update import DECISIVE_UPDATE, by_update


@pytest.mark.smoke
def test_updates_of_the_median_layer_against_its_weights(make_reading: MakeReading) -> None:
    def of(updates: Any, weights: Any = 1.0) -> float:
        return by_update(make_reading(weight_rms=weights, update_rms=updates).layers)

    assert of([0.5, 1.0, 3.0]) == 0.5
    assert of([0.5, 0.25, 3.0]) == pytest.approx(1 / 3)
    assert of([0.5, 1.0, 3.0], [1.0, 1.0, 0.0]) == pytest.approx(0.75 / 1.75)
    assert of(math.inf) == 1.0
    assert math.isnan(of(math.nan))
    assert math.isnan(of(1.0, 0.0))


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_larger_updates_are_a_higher_score(
    make_reading: MakeReading, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    low, high = (by_update(make_reading(update_rms=update).layers) for update in (less, more))
    assert 0 <= low <= high <= 1


@pytest.mark.smoke
def test_layers_that_are_thrown_about_are_to_blame(make_reading: MakeReading) -> None:
    found = diagnose(make_reading(weight_rms=1.0, update_rms=[0.5, 1.0, 3.0]))
    assert (found.verdict, found.cause) == ("exploding", "update")
    assert found.blame == ("dense_1", "dense_2")


@pytest.mark.smoke
def test_an_update_far_beyond_the_weights_counts_at_once(make_reading: MakeReading) -> None:
    def thrown(ratio: float, **columns: Any) -> Diagnosis:
        return diagnose(make_reading(weight_rms=1.0, update_rms=ratio, **columns))

    limit = DECISIVE_UPDATE / (1 - DECISIVE_UPDATE)
    healthy, little, far = thrown(0.01), thrown(0.99 * limit), thrown(1.01 * limit)
    assert [d.verdict for d in (healthy, little, far)] == ["healthy", "exploding", "exploding"]
    assert [d.decisive for d in (healthy, little, far)] == [False, False, True]
    assert steadied("healthy", [healthy, healthy, little]) == "healthy"
    assert steadied("healthy", [healthy, healthy, far]) == "exploding"
    assert steadied("unknown", [far]) == "exploding"
    assert steadied("exploding", [far, healthy, healthy]) == "exploding"
    # NaN is what the verdict rests on, and growth is never certain by itself.
    assert thrown(2 * limit, nan_count=1.0).decisive
    assert not diagnose(make_reading(rms=[1e9, 1.0, 1.0])).decisive
