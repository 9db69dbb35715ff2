from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from factories import MakeReading

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.histograms import Histograms, histogram_rows
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.records.bins import BINS, ZERO_BIN

MakeHistogram = Callable[..., Histograms]


def test_histogram_edges_are_log10_of_powers_of_two(histogram: MakeHistogram) -> None:
    (rows,) = histogram_rows(histogram(size=8, _97=2, _99=2))
    assert rows is not None
    expected = np.log10(2.0 ** np.arange(97 - 127, 99 - 126 + 1))
    np.testing.assert_allclose(rows[:, 0], expected[:-1])
    np.testing.assert_allclose(rows[:, 1], expected[1:])
    np.testing.assert_array_equal(rows[:, 2], [4, 0, 4])


def test_histogram_counts_stand_for_the_whole_variable(histogram: MakeHistogram) -> None:
    # A quarter zeros, a quarter NaN: half of the thousand entries remain.
    (rows,) = histogram_rows(histogram(size=1000, _100=2, **{f"_{ZERO_BIN}": 1, "_255": 1}))
    assert rows is not None
    assert rows[:, 2].tolist() == [500]


@pytest.mark.parametrize("bins", [{}, {f"_{ZERO_BIN}": 5}, {"_255": 5}, {"_100": math.nan}])
def test_no_histogram_of_nothing(histogram: MakeHistogram, bins: dict[str, float]) -> None:
    assert histogram_rows(histogram(**bins)) == [None]


def test_each_histogram_has_its_own_range() -> None:
    counts = np.zeros([4, BINS])
    counts[0, [90, 92]] = 1
    counts[1] = math.nan  # No gradient.
    counts[2, ZERO_BIN] = 1
    counts[3, 100] = 2
    first, none, zeros, last = histogram_rows(
        Histograms(("a",) * 4, ("w", "x", "y", "z"), (2, 2, 2, 6), counts)
    )
    assert none is None
    assert zeros is None
    assert first is not None
    assert last is not None
    assert first[:, 2].tolist() == [1, 0, 1]
    assert last[:, 2].tolist() == [6]
    np.testing.assert_allclose(last[0, :2], np.log10(2.0) * np.array([-27, -26]))
    np.testing.assert_allclose(first[0, 0], np.log10(2.0) * -37)


@pytest.mark.parametrize("shape", [(1, 3), (2, BINS), (BINS,)])
def test_histograms_of_another_shape(shape: tuple[int, ...]) -> None:
    message = f"need 257 counts a variable. Received: counts of shape {shape} for 1 variables"
    with pytest.raises(ValueError, match=re.escape(message)):
        histogram_rows(Histograms(("dense_0",), ("kernel",), (3,), np.ones(shape)))


def test_histogram_of_another_layer(histogram: MakeHistogram, make_reading: MakeReading) -> None:
    with pytest.raises(ValueError, match="Received: layer='conv'. Pass the layer's name"):
        StepEvents().event(diagnose(make_reading()), histogram(layer="conv", _9=1), "healthy")
