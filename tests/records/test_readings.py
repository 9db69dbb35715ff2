from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from factories import MakeReading

from keras_vanish.records.combining import combine
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading
from keras_vanish.records.statistics import COLUMNS, Statistics

StatisticsOf = Callable[..., Statistics]
AssertEqual = Callable[..., None]


Array = npt.NDArray[Any]


def make(table: Array | None = None, **changes: Any) -> Reading:
    fields = {
        "step": 3,
        "wall_time": 2.0,
        "names": ("a", "b"),
        "units": (4, 5),
        "table": np.arange(2.0 * len(COLUMNS)).reshape(2, -1) if table is None else table,
    }
    return Reading(**{**fields, **changes})


@pytest.mark.smoke
def test_a_reading_cannot_be_changed() -> None:
    reading = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.step = 4  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        reading.table[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.layers[0].name = "c"  # type: ignore[misc]


def test_a_reading_is_independent_of_the_array_it_was_made_of() -> None:
    base = np.zeros((3, len(COLUMNS)))
    reading = make(base[:2])
    base[:] = 1.0
    assert not reading.table.any()
    whole = np.zeros((2, len(COLUMNS)))
    make(whole)
    whole[:] = 1.0  # the caller's own array stays as it was


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"names": ("a",)}, r"1 names, 2 widths and a table of shape \(2, 14\)"),
        ({"units": (4,)}, r"2 names, 1 widths and a table of shape \(2, 14\)"),
        ({"table": np.zeros((2, 13))}, r"2 names, 2 widths and a table of shape \(2, 13\)"),
        ({"table": np.zeros(28)}, r"2 names, 2 widths and a table of shape \(28,\)"),
    ],
)
def test_shapes_must_agree(changes: dict[str, Any], received: str) -> None:
    message = "one name, one width and one row of 14 numbers a layer. Received: " + received
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_equality_looks_at_all_fields_and_takes_nan_for_nan() -> None:
    table = np.full((2, len(COLUMNS)), math.nan)
    reading = make(table)
    assert reading == make(table.copy())
    changed = table.copy()
    changed[1, 2] = 0.0
    assert reading != make(changed)
    for changes in ({"step": 4}, {"wall_time": 1.0}, {"names": ("a", "c")}, {"units": (4, 6)}):
        assert reading != make(table.copy(), **changes)
    assert reading != "a reading"


@pytest.mark.smoke
def test_layers_are_named_records_of_the_rows_in_order() -> None:
    reading = make()
    first, second = reading.layers
    assert isinstance(first, LayerReading)
    assert (second.name, second.depth, second.units) == ("b", 1, 5)
    for layer, row in zip((first, second), reading.table):
        assert [getattr(layer, name) for name in COLUMNS] == row.tolist()
        assert all(type(getattr(layer, name)) is float for name in COLUMNS)


def test_the_model_is_all_layers_together(
    assert_equal: AssertEqual, statistics_of: StatisticsOf
) -> None:
    parts = [
        statistics_of(np.array([1.0, -8.0]), np.ones(2), np.ones(2)),
        statistics_of(np.array([math.nan, 2.0, 0.0]), np.ones(3) * 3, np.zeros(3)),
    ]
    model = make(np.array([dataclasses.astuple(part) for part in parts])).model
    assert not isinstance(model, LayerReading)
    assert_equal(model, combine(parts))
    assert model.gradient_norm == pytest.approx(math.sqrt(69))
    assert (model.gradient_min, model.gradient_max, model.nan_count) == (-8, 2, 1)


def test_what_the_probe_saw(make_probed: Callable[..., Probed], make_reading: MakeReading) -> None:
    probed = make_probed(
        rms=[1e-3, 2e-3], names=["a", "b/c"], dead_fraction=[math.nan, 0.5], profiles={"a": [1, 2]}
    )
    reading = make_reading(probed=probed)
    first, second = reading.activations
    assert (first.name, first.depth, first.gradient_rms) == ("a", 0, 1e-3)
    assert (second.name, second.depth, second.dead_fraction) == ("b/c", 1, 0.5)
    assert math.isnan(first.dead_fraction)
    assert reading.timesteps == {"a": RecurrentReading((1.0, 2.0))}


def test_without_the_probe(make_reading: MakeReading) -> None:
    assert make_reading().activations == ()
    assert make_reading().timesteps == {}
