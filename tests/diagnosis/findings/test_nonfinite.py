from __future__ import annotations

import pytest
from diagnosis_helpers import Outcome
from factories import MakeReading

from keras_vanish.diagnosis import diagnose


@pytest.mark.smoke
def test_all_layers_with_nan_are_to_blame_where_nothing_more_is_known(outcome: Outcome) -> None:
    assert outcome([1.0] * 3, nan_count=[1, 0, 2]) == ("nonfinite", "", ("dense_0", "dense_2"))


def test_nan_and_infinite_entries_count(make_reading: MakeReading) -> None:
    nan = make_reading(rms=[1.0] * 3, nan_count=[2, 0, 0], inf_count=[0, 0, 1])
    assert diagnose(nan).blame == ("dense_0", "dense_2")
    assert diagnose(nan).decisive
