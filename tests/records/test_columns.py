from __future__ import annotations

import pytest

from keras_vanish.records.columns import (
    BINS,
    FLOATS,
    MOMENTS,
    ZERO_BIN,
)


@pytest.mark.smoke
def test_a_row_begins_with_the_moments() -> None:
    assert FLOATS[: len(MOMENTS)] == MOMENTS
    assert len(set(FLOATS)) == len(FLOATS)
    assert ZERO_BIN == BINS - 1
