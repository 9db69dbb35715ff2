"""Matrices of layers by steps hold what the readings hold, and say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_vanish.records.quantities import QUANTITIES, matrix, merged, shown, through_time

Make = Callable[..., Any]


def test_a_column_is_a_reading_and_a_row_a_layer(make_reading: Make) -> None:
    readings = [make_reading(step=0, rms=[1, 2]), make_reading(step=1, rms=[3, 4])]
    names, values = matrix(readings, QUANTITIES["gradient_rms"])
    assert names == ["dense_0", "dense_1"]
    assert values.tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("count", ["nan_count", "inf_count"])
def test_a_gradient_with_nan_or_inf_is_infinite(make_reading: Make, count: str) -> None:
    reading = make_reading(rms=[1, 2], **{count: [0, 1]})
    assert matrix([reading], QUANTITIES["gradient_rms"])[1].ravel().tolist() == [1, np.inf]


def test_a_layer_without_a_gradient_is_missing(make_reading: Make) -> None:
    values = matrix([make_reading(rms=[np.nan, 2])], QUANTITIES["gradient_rms"])[1]
    assert np.isnan(values).ravel().tolist() == [True, False]


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("update_ratio", [1e-3, 2e-3]),
        ("zero_fraction", [0.25, 0.5]),
        ("activation_gradient_rms", [5, 6]),
        ("dead_fraction", [1, 0]),
        ("saturated_fraction", [0.5, 0.25]),
    ],
)
def test_every_quantity_is_what_the_reading_has(
    make_reading: Make, make_probed: Make, quantity: str, expected: list[float]
) -> None:
    probed = make_probed(rms=[5, 6], dead_fraction=[1, 0], saturated_fraction=[0.5, 0.25])
    reading = make_reading(
        rms=[1, 1],
        weight_rms=0.1,
        update_rms=[1e-4, 2e-4],
        zero_fraction=[0.25, 0.5],
        probed=probed,
    )
    values = matrix([reading], QUANTITIES[quantity])[1]
    np.testing.assert_allclose(values.ravel(), expected)


def test_layers_of_which_the_probe_tells_nothing_are_left_out(
    make_reading: Make, make_probed: Make
) -> None:
    reading = make_reading(probed=make_probed(dead_fraction=[np.nan, 0.5, np.nan]))
    names, values = matrix([reading], QUANTITIES["dead_fraction"])
    assert names == ["dense_1"]
    assert values.tolist() == [[0.5]]


def test_without_the_probe_nothing_is_known_of_activations(make_reading: Make) -> None:
    names, values = matrix([make_reading()], QUANTITIES["saturated_fraction"])
    assert names == []
    assert values.shape == (0, 1)


def test_where_layers_change_their_rows_stay_apart(make_reading: Make) -> None:
    readings = [
        make_reading(step=0, rms=[1, 2], names=["a", "c"]),
        make_reading(step=1, rms=[3, 4, 5], names=["a", "b", "c"]),
    ]
    names, values = matrix(readings, QUANTITIES["gradient_rms"])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(values, [[1, 3], [np.nan, 4], [2, 5]])


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([], []),
        ([["a", "b"]], ["a", "b"]),
        ([["a", "old", "b"], ["a", "b", "c"]], ["a", "old", "b", "c"]),
        ([["old", "a"], ["a", "b"]], ["old", "a", "b"]),
        ([["b", "a"], ["a", "b"]], ["a", "b"]),
        ([["a", "a", "b"]], ["a", "b"]),
    ],
)
def test_orders_are_merged(sequences: list[list[str]], expected: list[str]) -> None:
    assert merged(sequences) == expected


def test_all_readings_are_shown_where_there_is_room(make_reading: Make) -> None:
    readings = [make_reading(step=step) for step in (0, 3, 100)]
    assert shown(readings, 3) == readings


def test_columns_are_even_over_the_steps(make_reading: Make) -> None:
    readings = [make_reading(step=step) for step in range(100)]
    assert [reading.step for reading in shown(readings, 10)] == list(range(9, 100, 10))


def test_nan_is_not_hidden_by_other_readings(make_reading: Make) -> None:
    readings = [make_reading(step=step, nan_count=float(step in (42, 43))) for step in range(100)]
    assert [reading.step for reading in shown(readings, 10)][4] == 42


def test_the_gradient_through_time_is_a_share_of_the_last_time_step(
    make_reading: Make, make_probed: Make
) -> None:
    profiles = [[1e-5, 0.5, 2.0], [1.0, 4.0], []]
    readings = [
        make_reading(step=step, probed=make_probed(profiles={"lstm": profile}))
        for step, profile in enumerate(profiles)
    ] + [make_reading(step=3)]
    back, values, horizons = through_time(readings, "lstm", 100)
    assert back == [0, 1, 2]
    nan = np.nan
    expected = [[1, 1, nan, nan], [0.25, 0.25, nan, nan], [5e-6, nan, nan, nan]]
    np.testing.assert_allclose(values, expected)
    np.testing.assert_array_equal(horizons, [1, 1, nan, nan])


def test_long_sequences_are_thinned(make_reading: Make, make_probed: Make) -> None:
    reading = make_reading(probed=make_probed(profiles={"lstm": np.arange(1, 1001)}))
    back, values, horizons = through_time([reading], "lstm", 5)
    assert back == [0, 249, 499, 749, 999]
    np.testing.assert_allclose(values[:, 0], (1000 - np.array(back)) / 1000)
    assert horizons == [990]
