from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from keras_vanish.records.statistics import COLUMNS, RULES, SIGNED, Statistics

StatisticsOf = Callable[..., Statistics]


MISSING = Statistics(5.0, *[math.nan] * (len(COLUMNS) - 1))


@pytest.mark.smoke
def test_update_ratio_is_missing_where_all_weights_are_zero(statistics_of: StatisticsOf) -> None:
    one = statistics_of(np.ones(2), np.ones(2) * 4, np.ones(2))
    assert one.update_ratio == 0.25
    assert math.isnan(dataclasses.replace(one, weight_rms=0.0).update_ratio)
    assert math.isnan(dataclasses.replace(one, weight_rms=math.nan).update_ratio)
    assert math.isnan(dataclasses.replace(one, update_rms=math.nan).update_ratio)


def test_nonfinite_counts_nan_and_inf(statistics_of: StatisticsOf) -> None:
    gradient = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert statistics_of(gradient, np.ones(4), np.ones(4)).nonfinite_count == 3
    assert math.isnan(MISSING.nonfinite_count)


@pytest.mark.smoke
def test_weights_are_nonfinite_only_where_they_were_seen(statistics_of: StatisticsOf) -> None:
    one = statistics_of(np.ones(2), np.ones(2) * 4, np.ones(2))
    assert not one.weights_nonfinite
    for lost in (math.nan, math.inf):
        assert dataclasses.replace(one, weight_rms=lost).weights_nonfinite
    assert not MISSING.weights_nonfinite
    assert math.isnan(MISSING.weight_rms)


def test_every_statistic_has_one_rule_and_one_source() -> None:
    assert tuple(RULES) == COLUMNS
    for name, rule in RULES.items():
        sources = [source for source in (rule.moment, rule.column, rule.bins) if source]
        # The size is known beforehand; the norm follows from RMS and size.
        assert len(sources) == (0 if name in ("size", "gradient_norm") else 1), name


def test_what_may_be_negative() -> None:
    assert {"gradient_mean", "gradient_min", "gradient_max"} == SIGNED
