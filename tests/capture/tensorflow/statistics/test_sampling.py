"""Which entries a sample takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_reference import RUN, visited_by

from keras_vanish.capture.tensorflow.statistics.sampling import histogram_stride, update_stride

matrices = st.one_of(
    st.tuples(st.integers(1, 4000), st.integers(1, 600)),
    st.tuples(st.just(3), st.just(3), st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 2_000_000)),
)


STRIDES = (histogram_stride, update_stride)


@settings(deadline=None)
@given(matrices)
def test_a_sample_visits_every_column(shape: tuple[int, ...]) -> None:
    for stride in STRIDES:
        visited = visited_by(stride, shape)
        if len(visited) >= RUN * shape[-1]:
            assert len(np.unique(visited % shape[-1])) == shape[-1]


@settings(deadline=None)
@given(matrices)
def test_a_sample_visits_all_columns_about_as_often(shape: tuple[int, ...]) -> None:
    rows, columns = math.prod(shape[:-1]), shape[-1]
    for stride in STRIDES:
        often = np.bincount(visited_by(stride, shape) % columns, minlength=columns)
        if rows > 1 and often.sum() >= 4 * RUN * columns:
            assert often.max() <= 2 * often.min() + 1


@settings(deadline=None)
@given(matrices)
def test_a_sample_reaches_the_end(shape: tuple[int, ...]) -> None:
    for stride in STRIDES:
        left = math.prod(shape) - 1 - visited_by(stride, shape)[-1]
        assert left < 2 * RUN * stride(shape) if stride(shape) > 1 else left == 0


@pytest.mark.parametrize("shape", [(64, 32), (60, 60), (500, 6), (330, 182), (1024, 1024)])
def test_a_sample_visits_all_regions_of_the_rows(shape: tuple[int, ...]) -> None:
    rows = np.unique(visited_by(histogram_stride, shape) // shape[1])
    gap = 1 + RUN * histogram_stride(shape) // shape[1]
    assert rows[0] == 0
    assert rows[-1] >= shape[0] - 1 - 2 * gap
    assert np.diff(rows).max() <= gap


@settings(deadline=None)
@given(matrices)
def test_sample_sizes_are_bounded(shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    for stride, fewest, most in zip(STRIDES, (1024, 2048), (16384, 32768)):
        count = len(visited_by(stride, shape))
        # The next stride that shares no factor with an axis may be several times as long.
        assert min(size, fewest) / 8 <= count <= min(size, 2 * most)


@pytest.mark.smoke
@pytest.mark.parametrize("stride", STRIDES)
def test_a_small_tensor_is_seen_whole(stride: Callable[[Sequence[int]], int]) -> None:
    for shape in ((), (1,), (1024,), (32, 32), (3, 3, 8, 8)):
        assert stride(shape) == 1
