"""Every statistic against a slow, independent reference in float64."""

from __future__ import annotations

import functools
import gc
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_vanish.capture.tensorflow.statistics import statistics
from keras_vanish.records.bins import BINS, ZERO_BIN
from keras_vanish.records.statistics import MOMENTS

MODES = ("eager", "graph", "xla")

#: Also as a graph in which all but the smallest tensors are reduced by themselves.
PACKED = (*MODES, "alone")

#: Shapes that interleave, so that the packed order is not the given one; of every dtype.
TENSORS = (
    ((3, 4), tf.float32),
    ((5,), tf.float32),
    ((3, 4), tf.float16),
    ((), tf.float32),
    ((3, 4), tf.float32),
    ((5,), tf.bfloat16),
    ((2, 3, 2), tf.float64),
    ((5,), tf.float32),
    ((1,), tf.float64),
    ((3, 4), tf.float16),
)
TOTAL = sum(math.prod(shape) for shape, _ in TENSORS)

#: TensorFlow may flush numbers below the smallest normal one to zero.
FLUSHED = 1.2e-38

Array = npt.NDArray[Any]

_special = st.sampled_from(
    [0.0, -0.0, 1e-30, -1e-30, 1e30, 3e38, 1e-40, 1e-45, 2.0**-126, math.nan, math.inf, -math.inf]
).map(lambda value: float(np.float32(value)))
_wild = hnp.arrays(
    np.float32, TOTAL, elements=st.one_of(_special, st.floats(width=32)), fill=_special
)
_tame = st.builds(
    lambda x, scale: (x * 10.0**scale).astype(np.float32),
    hnp.arrays(np.float64, TOTAL, elements=st.floats(0.01, 1.0).map(lambda v: v - 0.4)),
    st.integers(-12, 12),
)
values = st.one_of(_wild, _tame)


def tensors_of(flat: Array) -> list[Array]:
    """Cuts an array of `TOTAL` entries into arrays with the shapes and dtypes of `TENSORS`."""
    result, start = [], 0
    with np.errstate(all="ignore"):
        for shape, dtype in TENSORS:
            stop = start + math.prod(shape)
            result.append(flat[start:stop].reshape(shape).astype(dtype.as_numpy_dtype))
            start = stop
    return result


def in_mode(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    if mode == "eager":
        return function
    return tf.function(function, jit_compile=mode == "xla")


def statistics_of(
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[tf.DType],
    tensors: Sequence[tf.Tensor],
    xla: bool,
    largest: int = 1 << 16,
) -> tuple[tf.Tensor, ...]:
    packing = statistics.Packing(shapes, dtypes, largest=largest)
    sampling = statistics.Packing(shapes, dtypes, statistics.histogram_stride)
    packed = packing.pack(tensors)
    return (
        packing.unpack(statistics.moments(packing.groups, packed, xla)),
        packing.unpack([statistics.root_mean_squares(packing.groups, packed, xla)]),
        statistics.exponent_histograms(sampling.groups, sampling.pack(tensors)),
    )


@functools.cache
def rows_in(mode: str) -> Callable[[Sequence[Array]], tuple[Array, Array, Array]]:
    """Moments, RMS and histograms of tensors like `TENSORS`, one row a tensor."""
    shapes, dtypes = zip(*TENSORS)

    def compute(tensors: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        largest = 5 if mode == "alone" else 1 << 16
        return statistics_of(shapes, dtypes, tensors, mode == "xla", largest)

    compiled = in_mode(compute, mode)
    return lambda arrays: tuple(r.numpy() for r in compiled([tf.constant(a) for a in arrays]))


#: Entries that follow each other in a sample.
RUN = 8


def visited_by(stride: Callable[[Sequence[int]], int], shape: Sequence[int]) -> Array:
    """The entries of a tensor that are sampled, in storage order."""
    entries, distance = np.arange(math.prod(shape)), stride(shape)
    if distance == 1:
        return entries
    runs = entries[: len(entries) // RUN * RUN].reshape(-1, RUN)
    return runs[::distance].ravel()


def reference_moments(x: Array) -> list[float]:
    flat = np.asarray(x).reshape(-1).astype(np.float64)
    finite = flat[np.isfinite(flat)]
    counts = [float(np.isnan(flat).sum()), float(np.isinf(flat).sum())]
    if not len(finite):
        return [math.nan] * 4 + counts
    rms = math.sqrt(np.mean(np.square(finite)))
    return [rms, float(np.mean(finite)), float(finite.min()), float(finite.max()), *counts]


def reference_histogram(x: Array) -> Array:
    counts = np.zeros(BINS)
    with np.errstate(all="ignore"):
        for value in np.asarray(x).reshape(-1).astype(np.float32):
            if not np.isfinite(value):
                counts[255] += 1
            elif value == 0:
                counts[ZERO_BIN] += 1
            else:
                # frexp: |value| = m * 2**e with m in [0.5, 1).
                counts[max(int(np.frexp(np.abs(value))[1]) + 126, 0)] += 1
    return counts


def largest_finite(x: Array) -> float:
    flat = np.abs(np.asarray(x).reshape(-1).astype(np.float64))
    return float(max(flat[np.isfinite(flat)], default=0.0))


def check_moments(row: Array, x: Array, rtol: float = 1e-5) -> None:
    named = dict(zip(MOMENTS, reference_moments(x)))
    for name, got in zip(MOMENTS, row):
        # A mean of entries that cancel is as exact as the entries are.
        slack = 1e-6 * largest_finite(x) if name == "mean" else 0.0
        np.testing.assert_allclose(got, named[name], rtol=rtol, atol=slack + FLUSHED, err_msg=name)


@pytest.mark.parametrize("mode", PACKED)
def test_nan_among_zeros_is_seen(mode: str) -> None:
    flat = np.zeros(77, np.float32)
    flat[0] = math.nan
    arrays = tensors_of(flat)
    for row, x in zip(rows_in(mode)(arrays)[0], arrays):
        check_moments(row, x)


@pytest.mark.parametrize("mode", PACKED)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_moments_equal_the_reference(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    moments, _, _ = rows_in(mode)(arrays)
    assert moments.dtype == np.float32
    assert moments.shape == (len(TENSORS), len(MOMENTS))
    for row, x in zip(moments, arrays):
        check_moments(row, x)


@pytest.mark.parametrize("mode", PACKED)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_root_mean_squares_equal_the_reference(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    _, rms, _ = rows_in(mode)(arrays)
    for got, x in zip(rms, arrays):
        if np.isfinite(np.asarray(x, np.float64)).all():
            np.testing.assert_allclose(got, reference_moments(x)[0], rtol=1e-5, atol=FLUSHED)
        else:
            assert not np.isfinite(got)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(flat=values)
def test_histograms_equal_frexp(mode: str, flat: Array) -> None:
    arrays = tensors_of(flat)
    # Float64 below the range of float32 has a test of its own.
    arrays = [np.where(np.abs(x) < 2.0**-126, 0, x) if x.dtype == float else x for x in arrays]
    _, _, counts = rows_in(mode)(arrays)
    for row, x in zip(counts, arrays):
        assert row.sum() == np.size(x)
        np.testing.assert_array_equal(row, reference_histogram(x))


def constant_rows(mode: str, value: float) -> tuple[Array, Array, Array]:
    return rows_in(mode)(tensors_of(np.full(TOTAL, value, np.float32)))


@pytest.mark.smoke
@pytest.mark.parametrize("mode", PACKED)
def test_zeros_have_an_rms_of_zero_and_a_bin_of_their_own(mode: str) -> None:
    moments, rms, counts = constant_rows(mode, 0.0)
    assert not moments.any()
    assert not rms.any()
    sizes = [math.prod(shape) for shape, _ in TENSORS]
    np.testing.assert_array_equal(counts[:, ZERO_BIN], sizes)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [1e-45, -1e-45, 1e-39, 1.17e-38])
def test_subnormal_numbers_are_told_from_zeros(mode: str, value: float) -> None:
    _, _, counts = constant_rows(mode, value)
    for row, (shape, dtype) in zip(counts, TENSORS):
        if dtype == tf.float32:
            assert row[0] == math.prod(shape)
            assert row[ZERO_BIN] == 0


@pytest.mark.smoke
@pytest.mark.usefixtures("op_determinism")
@pytest.mark.parametrize("xla", [False, True])
def test_with_op_determinism_counts_need_nothing_that_a_gpu_refuses(xla: bool) -> None:
    x = tf.constant([0.0, 1e-45, 1e-3, -1e-3, 1.0, math.inf, math.nan])
    count = tf.function(statistics.counts_by_exponent, jit_compile=xla)
    np.testing.assert_array_equal(count(x), reference_histogram(x.numpy()))
    operations = count.get_concrete_function(x).graph.get_operations()
    assert not [op.name for op in operations if "Bincount" in op.type]


@pytest.mark.parametrize("mode", MODES)
def test_float64_below_the_range_of_float32_is_told_from_zeros(mode: str) -> None:
    packing = statistics.Packing([(3,)], [tf.float64])

    def compute(x: tf.Tensor) -> tf.Tensor:
        return statistics.exponent_histograms(packing.groups, packing.pack([x]))

    (counts,) = in_mode(compute, mode)(tf.constant([1e-39, -1e-200, 0.0], tf.float64)).numpy()
    assert counts[0] == 2
    assert counts[ZERO_BIN] == 1


@pytest.mark.smoke
@pytest.mark.parametrize("mode", MODES)
def test_without_a_finite_entry_moments_are_missing_and_counts_are_not(mode: str) -> None:
    moments, rms, counts = constant_rows(mode, math.nan)
    sizes = [math.prod(shape) for shape, _ in TENSORS]
    assert np.isnan(moments[:, :4]).all()
    assert np.isnan(rms).all()
    np.testing.assert_array_equal(moments[:, 4], sizes)
    np.testing.assert_array_equal(moments[:, 5], 0)
    np.testing.assert_array_equal(counts[:, 255], sizes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copied", [1 << 16, 1 << 22])
def test_a_large_tensor_is_exact_over_all_entries(
    mode: str, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_LARGEST_COPIED_SIZE", copied)
    shape = (260, 257)

    def compute(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return statistics_of([shape] * 2, [tf.float32] * 2, [a, b], mode == "xla")

    compiled = in_mode(compute, mode)
    visited = visited_by(statistics.histogram_stride, shape)
    assert visited[-1] < math.prod(shape) - 1
    # At either end the squares leave the range of float32.
    for scale in (1e-30, 1e-14, 1.0, 1e18, 1e30):
        x = (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)
        x[-1, -1] = 50 * scale  # in no sample
        moments, rms, counts = (t.numpy() for t in compiled(tf.constant(x), tf.constant(-x)))
        for i, array in enumerate((x, -x)):
            check_moments(moments[i], array, rtol=1e-4)
            np.testing.assert_allclose(rms[i], reference_moments(x)[0], rtol=1e-4)
            expected = reference_histogram(array.reshape(-1)[visited])
            np.testing.assert_array_equal(counts[i], expected)
            assert counts[i].sum() == len(visited)


@pytest.mark.parametrize("mode", MODES)
def test_a_sum_over_millions_of_entries_stays_exact(mode: str) -> None:
    # One running float32 sum would lose the small terms: 2% at 20 million entries.
    x = 1 + np.random.default_rng(0).normal(size=(1, 4_000_000)).astype(np.float32)
    exact = math.sqrt(np.mean(np.square(x, dtype=np.float64)))

    def compute(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moments, rms, _ = statistics_of([x.shape], [x.dtype], [x], mode == "xla")
        return moments, rms

    moments, rms = in_mode(compute, mode)(tf.constant(x))
    np.testing.assert_allclose(moments[0, 0], exact, rtol=1e-4)
    np.testing.assert_allclose(rms[0], exact, rtol=1e-4)


shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
dtypes = st.sampled_from([tf.float16, tf.bfloat16, tf.float32, tf.float64])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=12))
def test_unpacking_restores_the_order(tensors: list[tuple[tuple[int, ...], tf.DType]]) -> None:
    packing = statistics.Packing([s for s, _ in tensors], [d for _, d in tensors])
    packed = packing.pack([tf.fill(s, tf.cast(i, d)) for i, (s, d) in enumerate(tensors)])
    largest = [group.max(tf.reduce_max(x, 1)) for group, x in zip(packing.groups, packed)]
    rows = packing.unpack([tf.cast(x, tf.float32) for x in largest])
    np.testing.assert_array_equal(rows, np.arange(len(tensors)))


@pytest.mark.smoke
def test_small_tensors_of_one_dtype_are_packed_together() -> None:
    large = (257, 256)
    packing = statistics.Packing(
        [(2, 3), (300,), large, (2, 3), (3,), large],
        [tf.float32] * 3 + [tf.float16, tf.float64] + [tf.float32],
    )
    assert [group.members for group in packing.groups] == [(0, 1, 3), (2,), (4,), (5,)]
    together = packing.groups[0]
    # A tensor begins in a row of its own.
    assert together.owners.tolist() == [0, 1, 1, 1, 2]
    assert together.entries.tolist() == [6, 128, 128, 44, 6]
    assert [group.width for group in packing.groups[1:]] == [257 * 256, 3, 257 * 256]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("xla", "members"), [(False, [(1, 2, 4), (0,), (3,)]), (True, [(0, 1, 2, 3, 4)])]
)
def test_what_costs_more_to_pack_than_to_reduce_is_left_alone(
    xla: bool, members: list[tuple[int, ...]]
) -> None:
    if tf.config.list_logical_devices("GPU"):
        members = [(0, 1, 2, 3, 4)]
    shapes = [(64, 65), (64, 64), (3,), (64, 65), (4,)]
    largest = statistics.largest_packed_size(xla)
    packing = statistics.Packing(shapes, [tf.float32] * 5, largest=largest)
    assert [group.members for group in packing.groups] == members


@pytest.mark.parametrize(
    ("shape", "dtypes", "conditions"),
    [
        ((65, 65), [tf.float32] * 9, 1),
        ((65, 65), [tf.float32] * 4 + [tf.float64] * 4, 2),
        ((1024, 600), [tf.float32] * 3, 3),
    ],
)
def test_one_condition_for_as_many_as_may_be_packed(
    shape: tuple[int, int], dtypes: list[tf.DType], conditions: int
) -> None:
    packing = statistics.Packing([shape] * len(dtypes), dtypes, largest=1 << 12)
    assert len(packing.groups) == len(dtypes)

    @tf.function
    def read(tensors: list[tf.Tensor]) -> tf.Tensor:
        rows = statistics.moments(packing.groups, packing.pack(tensors), False)
        return packing.unpack(rows)

    tensors = [tf.fill(shape, tf.cast(i, dtype)) for i, dtype in enumerate(dtypes)]
    graph = read.get_concrete_function(tensors).graph
    assert sum(op.type in ("If", "StatelessIf") for op in graph.get_operations()) == conditions
    np.testing.assert_allclose(read(tensors)[:, 0], np.arange(len(dtypes)), rtol=1e-6)


@pytest.mark.smoke
def test_a_packed_matrix_does_not_grow_without_bound() -> None:
    packing = statistics.Packing([(256, 256)] * 40, [tf.float32] * 40)
    assert [len(group.members) for group in packing.groups] == [16, 16, 8]


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.soak)])
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=6), st.sampled_from([-1, 1]))
def test_padding_is_in_no_statistic(mode: str, sizes: list[int], sign: int) -> None:
    # The zeros of the padding would be an extreme of each, and in the bin of zeros.
    arrays = [sign * np.linspace(1, 2, size, dtype=np.float32) for size in sizes]
    moments, rms, counts = (
        rows.numpy()
        for rows in in_mode(
            lambda *x: statistics_of([a.shape for a in x], [tf.float32] * len(x), x, mode == "xla"),
            mode,
        )(*map(tf.constant, arrays))
    )
    for row, root, count, x in zip(moments, rms, counts, arrays):
        check_moments(row, x)
        np.testing.assert_allclose(root, reference_moments(x)[0], rtol=1e-5)
        np.testing.assert_array_equal(count, reference_histogram(x))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: tf.DType) -> None:
    packing = statistics.Packing([(4,)], [dtype])
    (packed,) = packing.pack([tf.constant([300.0] * 4, dtype)])
    assert packed.dtype == tf.float32
    # In float16 the square of 300 is infinite.
    assert statistics.moments(packing.groups, [packed], False)[0][0, 0] == 300


matrices = st.one_of(
    st.tuples(st.integers(1, 4000), st.integers(1, 600)),
    st.tuples(st.just(3), st.just(3), st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 2_000_000)),
)


STRIDES = (statistics.histogram_stride, statistics.update_stride)


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
    rows = np.unique(visited_by(statistics.histogram_stride, shape) // shape[1])
    gap = 1 + RUN * statistics.histogram_stride(shape) // shape[1]
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


def test_constants_are_made_once_a_graph() -> None:
    shapes = [(64, 64)] * 20
    packing = statistics.Packing(shapes, [tf.float32] * 20, statistics.histogram_stride)

    @tf.function
    def sample(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return packing.pack(tensors)

    graph = sample.get_concrete_function([tf.ones(shape) for shape in shapes]).graph
    assert sum(operation.type == "Const" for operation in graph.get_operations()) < 20


def test_constants_go_with_their_graph() -> None:
    packing = statistics.Packing([(64, 64)], [tf.float32], statistics.histogram_stride)

    def graph() -> weakref.ref[Any]:
        sample = tf.function(lambda x: packing.pack([x]))
        return weakref.ref(sample.get_concrete_function(tf.ones((64, 64))).graph)

    graphs = [graph() for _ in range(3)]
    gc.collect()
    assert not any(graph() for graph in graphs)


def test_no_constant_has_the_size_of_a_gradient() -> None:
    @tf.function
    def compute(x: tf.Tensor) -> tf.Tensor:
        return statistics.careful_parts(x)

    graph = compute.get_concrete_function(tf.TensorSpec([1, 300_000])).graph
    large = {
        operation.type
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.num_elements() == 300_000
    }
    assert not large & {"BroadcastTo", "Const", "Fill", "OnesLike", "SequenceMask", "ZerosLike"}
    assert "IsNan" in large


@pytest.mark.smoke
@pytest.mark.parametrize("stride", STRIDES)
def test_a_small_tensor_is_seen_whole(stride: Callable[[Sequence[int]], int]) -> None:
    for shape in ((), (1,), (1024,), (32, 32), (3, 3, 8, 8)):
        assert stride(shape) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_is_evenly_spaced_runs_of_each_member(mode: str) -> None:
    shape = (50, 47)
    x = np.arange(2 * 2350, dtype=np.float32).reshape(2, *shape)

    def stride(shape: Sequence[int]) -> int:
        return 11 if len(shape) == 2 else 1

    packing = statistics.Packing([shape, (3,), shape], [tf.float32] * 3, stride)

    def sample(a: tf.Tensor, b: tf.Tensor) -> list[tf.Tensor]:
        return packing.pack([a, tf.constant([1.0, 2.0, 3.0]), b])

    (packed,) = in_mode(sample, mode)(tf.constant(x[0]), tf.constant(x[1]))
    # 2350 entries are 293 runs of 8 and a rest; of these runs, each 11th is taken: 27.
    runs = (88 * np.arange(27)[:, np.newaxis] + np.arange(8)).ravel()
    expected = [runs, [1, 2, 3], 2350 + runs]
    (group,) = packing.groups
    assert group.sizes == (216, 3, 216)
    for member, entries in enumerate(expected):
        rows = packed.numpy()[group.owners == member].ravel()
        np.testing.assert_array_equal(rows[: len(entries)], entries)
        assert not rows[len(entries) :].any()
