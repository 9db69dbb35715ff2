from __future__ import annotations

import numpy as np
import pytest

from keras_vanish.records.bins import BINS, ZERO_BIN
from keras_vanish.records.columns import by_name
from keras_vanish.records.statistics import FLOATS, MOMENTS


@pytest.mark.smoke
def test_a_row_begins_with_the_moments() -> None:
    assert FLOATS[: len(MOMENTS)] == MOMENTS
    assert len(set(FLOATS)) == len(FLOATS)
    assert ZERO_BIN == BINS - 1


def test_a_table_of_other_columns_is_arranged_by_name() -> None:
    table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = by_name(table, ["c", "unknown", "a"], ["a", "b", "c"])
    np.testing.assert_array_equal(found, [[3.0, np.nan, 1.0], [6.0, np.nan, 4.0]])


@pytest.mark.parametrize("shape", [(2, 2), (3,), (), (1, 2, 3)])
def test_a_table_has_one_column_a_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the record has 3 columns and the shape"):
        by_name(np.ones(shape), ["a", "b", "c"], ["a"])
