from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_vanish.records.combining import combine
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS, Statistics

StatisticsOf = Callable[..., Statistics]
AssertEqual = Callable[..., None]


MISSING = Statistics(5.0, *[math.nan] * (len(COLUMNS) - 1))

finite = st.one_of(
    st.just(0.0), st.floats(-1e30, 1e30), st.floats(-1e-20, 1e-20), st.floats(-1.0, 1.0)
)

anything = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))

variable = st.lists(st.tuples(anything, finite, finite), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(variable, min_size=1, max_size=5))
@example([[(math.nan, 1.0, 0.1)], [(math.inf, 0.0, 0.0), (-math.inf, 0.0, 0.0)]])
@example([[(math.nan, 1.0, 0.1)], [(3.0, 0.0, 0.0), (1e-30, 2.0, 0.0)]])
def test_combining_equals_the_statistics_of_everything_at_once(
    assert_equal: AssertEqual, statistics_of: StatisticsOf, variables: list[Any]
) -> None:
    parts = [np.array(v, np.float64).T for v in variables]
    together = statistics_of(*np.concatenate(parts, axis=1))
    assert_equal(combine(statistics_of(*part) for part in parts), together)


@pytest.mark.smoke
def test_squares_outside_of_float64_do_not_spoil_a_combined_rms(
    statistics_of: StatisticsOf,
) -> None:
    for scale in (1e-200, 1e200):
        one = statistics_of(np.ones(2), np.ones(2), np.ones(2))
        part = dataclasses.replace(
            one, gradient_rms=scale, gradient_norm=scale, weight_rms=scale, update_rms=scale
        )
        both = combine([part, part])
        assert both.weight_rms == pytest.approx(scale, rel=1e-12)
        assert both.update_rms == pytest.approx(scale, rel=1e-12)
        assert both.gradient_norm == pytest.approx(math.sqrt(2) * scale, rel=1e-12)


@pytest.mark.smoke
def test_parts_without_a_gradient_are_left_out(
    assert_equal: AssertEqual, statistics_of: StatisticsOf
) -> None:
    part = statistics_of(np.array([1.0, 0.0, -2.0]), np.ones(3), np.ones(3))
    for parts in ([part, MISSING], [MISSING, part], [MISSING, part, MISSING]):
        assert_equal(combine(parts), part, but=("size",))


@pytest.mark.smoke
@pytest.mark.parametrize("count", [1, 3])
def test_all_missing_is_nan_and_not_zero(count: int) -> None:
    combined = combine([MISSING] * count)
    assert combined.size == 5 * count
    values = dataclasses.asdict(combined)
    assert all(math.isnan(values[name]) for name in COLUMNS if name != "size")


def test_infinite_counts_of_a_file_are_no_warning() -> None:
    table = np.zeros([2, len(COLUMNS)])
    table[:, COLUMNS.index("size")] = table[:, COLUMNS.index("inf_count")] = math.inf
    reading = Reading(0, 0.0, ("a", "b"), (1, 1), table)
    assert reading.model.inf_count == math.inf
    assert math.isnan(reading.model.gradient_rms)


def test_a_layer_with_a_part_missing_counts_for_what_it_has(
    assert_equal: AssertEqual, statistics_of: StatisticsOf
) -> None:
    a = statistics_of(np.array([1.0, 0.0]), np.ones(2), np.ones(2))
    b = statistics_of(np.array([4.0, 3.0, 3.0]), np.ones(3) * 7, np.ones(3))
    nested = combine([combine([a, MISSING]), combine([b])])
    assert_equal(nested, combine([a, b]), but=("size",))
