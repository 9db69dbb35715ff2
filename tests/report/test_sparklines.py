from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vanish.report.sparklines import BLOCKS, MISSING, NONFINITE, ZERO, heatmap, line, spans


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 100))
def test_spans_are_everything_once_and_in_order(count: int, most: int) -> None:
    found = spans(count, most)
    assert [place for span in found for place in range(count)[span]] == list(range(count))
    assert len(found) == min(count, most)
    assert len({span.stop - span.start for span in found}) <= 2


def test_a_block_is_a_decade() -> None:
    values = np.array([[3 * 10.0**-exponent for exponent in range(2, 12)]])
    assert heatmap(values, 9, 99) == (["█▇▆▅▄▃▂▁▁▁"], -2)


def test_a_decade_begins_at_the_power_of_ten() -> None:
    assert heatmap(np.array([[1e-1, 0.99e-1, 1e-2, 0.99e-2]]), 9, 99) == (["█▇▇▆"], -1)


def test_what_is_no_positive_number_has_a_sign_of_its_own() -> None:
    lines, top = heatmap(np.array([[math.nan, 0.0, math.inf, 1e-3]]), 9, 99)
    assert lines == [MISSING + ZERO + NONFINITE + "█"]
    assert top == -3
    assert not {MISSING, ZERO, NONFINITE} & set(BLOCKS)


def test_nothing_but_zeros() -> None:
    assert heatmap(np.zeros([2, 3]), 9, 99) == (["000", "000"], 0)


def test_a_cell_for_several_is_their_geometric_mean() -> None:
    # 1e-1 and 1e-5 give 1e-3; a known number stands for one that is missing or zero.
    values = np.array([[1e-1, 1e-1, 1e-1, 1e-5, 1e-1, math.nan, 1e-1, 0.0]])
    assert heatmap(values, 9, 4) == (["█▆██"], -1)
    assert heatmap(np.array([[1e-1], [1e-5]]), 1, 9) == (["█"], -3)


def test_one_that_is_not_finite_is_never_averaged_away() -> None:
    values = np.full([10, 100], 1e-2)
    values[3, 57] = math.inf
    lines, _ = heatmap(values, 2, 10)
    assert lines == ["█████X████", "█" * 10]


def test_a_line_of_shares() -> None:
    assert line([0.0, 0.124, 0.125, 0.49, 0.5, 0.99, 1.0, math.nan], 99) == "▁▁▂▄▅██·"
    assert line([0, 10, 20], 99, largest=20) == "▁▅█"


def test_a_block_of_a_line_is_the_largest_it_is_for() -> None:
    assert line([0.0, 1.0, 0.0, math.nan, math.nan, math.nan], 3) == "█▁·"


@pytest.mark.parametrize("value", [-0.5, 1.5, math.inf])
def test_a_line_stays_within_its_blocks(value: float) -> None:
    assert line([value if value != math.inf else 1e300], 9) in "▁█"
