"""Tensors to try statistics on, and slow, independent references in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modes import MODES

from keras_vanish.capture.tensorflow.statistics.histograms import exponent_histograms
from keras_vanish.capture.tensorflow.statistics.moments import moments as compute_moments
from keras_vanish.capture.tensorflow.statistics.moments import root_mean_squares
from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.capture.tensorflow.statistics.sampling import histogram_stride
from keras_vanish.records.bins import BINS, ZERO_BIN
from keras_vanish.records.statistics import MOMENTS

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
    packing = Packing(shapes, dtypes, largest=largest)
    sampling = Packing(shapes, dtypes, histogram_stride)
    packed = packing.pack(tensors)
    return (
        packing.unpack(compute_moments(packing.groups, packed, xla)),
        packing.unpack([root_mean_squares(packing.groups, packed, xla)]),
        exponent_histograms(sampling.groups, sampling.pack(tensors)),
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


def constant_rows(mode: str, value: float) -> tuple[Array, Array, Array]:
    return rows_in(mode)(tensors_of(np.full(TOTAL, value, np.float32)))
