"""Gradients become fixed-width rows of numbers, inside the compiled train step.

Everything here must compile under XLA: no dynamic shapes, no `tf.summary`, no
`tf.histogram_fixed_width`.

Many tiny operations, not arithmetic, are what costs time on a small model. So
tensors of one shape are stacked, and every reduction runs once a shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_vanish.capture.columns import BINS, ZERO_BIN

# A sum of squares of float32 below this is inexact: squares of entries under
# about 1e-19 are no longer normal numbers.
_SMALLEST_EXACT_MEAN_SQUARE = 1e-30

# Stacking copies. Above this size the copy costs more than the operations it saves.
_LARGEST_STACKED_SIZE = 1 << 16

# The smallest and the largest sample of a variable, and its share of the entries.
_HISTOGRAM_SAMPLE = (1024, 16384, 16)
_UPDATE_SAMPLE = (16384, 32768, 16)

# Rows of a dot product longer than this lose digits: XLA adds up in one register.
_LONGEST_DOT = 4096

# Below this, the loop over the chunks of a large tensor costs more than its memory.
_SHORTEST_CHUNK = 1024


def _stride(shape: Sequence[int], sample: tuple[int, int, int]) -> int:
    """The distance between sampled entries of a tensor in storage order.

    A distance that shares a factor with the length of an axis would visit only some of
    its positions: a dead unit would be seen always or never.
    """
    size = math.prod(shape)
    smallest, largest, share = sample
    wanted = max(1, min(size, max(smallest, min(largest, size // share))))
    step = max(1, size // wanted)
    # Rather more entries than wanted, up to twice as many, than fewer.
    for distance in (*range(step, step // 2, -1), *range(step, size)):
        if all(math.gcd(distance, axis) == 1 for axis in shape):
            return distance
    return 1


def histogram_stride(shape: Sequence[int]) -> int:
    """The distance between the entries that a variable's histogram counts."""
    return _stride(shape, _HISTOGRAM_SAMPLE)


def update_stride(shape: Sequence[int]) -> int:
    """The distance between the entries on which weights and updates are measured."""
    return _stride(shape, _UPDATE_SAMPLE)


def computing_dtype(dtype: tf.DType) -> tf.DType:
    """Statistics of half-precision tensors are computed in float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


class Packing:
    """Which of a list of tensors are stacked into one, by shape and dtype.

    Args:
        shapes: Fully known shapes of the tensors, in order.
        dtypes: Their dtypes, in the same order.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], dtypes: Sequence[tf.DType]) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        groups: dict[object, list[int]] = {}
        for i, (shape, dtype) in enumerate(zip(self.shapes, dtypes)):
            stacked = math.prod(shape) <= _LARGEST_STACKED_SIZE
            groups.setdefault((shape, dtype) if stacked else i, []).append(i)
        self.groups = list(groups.values())
        self.group_shapes = [self.shapes[group[0]] for group in self.groups]
        order = [i for group in self.groups for i in group]
        self._inverse = [order.index(i) for i in range(len(order))]

    def pack(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor of shape `[members, entries]` a group, in the computing dtype."""
        packed = []
        for group in self.groups:
            first = tensors[group[0]]
            stacked = first if len(group) == 1 else tf.stack([tensors[i] for i in group])
            # What comes of a sparse gradient has lost its shape.
            flat = tf.reshape(stacked, [len(group), math.prod(self.shapes[group[0]])])
            packed.append(tf.cast(flat, computing_dtype(first.dtype)))
        return packed

    def sample(
        self, packed: Sequence[tf.Tensor], stride: Callable[[Sequence[int]], int]
    ) -> list[tf.Tensor]:
        """Evenly spaced entries of each member: every `stride(shape)`th, a tensor a group."""
        return [
            x if stride(shape) == 1 else x[:, :: stride(shape)]
            for shape, x in zip(self.group_shapes, packed)
        ]

    def sampled(self, stride: Callable[[Sequence[int]], int]) -> list[tuple[int, int]]:
        """The shapes of what `sample` gives."""
        return [
            (len(group), -(-math.prod(shape) // stride(shape)))
            for group, shape in zip(self.groups, self.group_shapes)
        ]

    def unpack(self, rows: Sequence[tf.Tensor]) -> tf.Tensor:
        """Rows of all groups, `[members, ...]` each, in the order of the tensors."""
        joined = rows[0] if len(rows) == 1 else tf.concat(rows, 0)
        if self._inverse == list(range(len(self._inverse))):
            return joined
        return tf.gather(joined, self._inverse)


def sum_of_squares(x: tf.Tensor, xla: bool) -> tf.Tensor:
    """`sum(x**2, axis=1)` with no temporary of the size of a large `x`.

    On a CPU, XLA's compiler materialises the squares; dot products are twice as fast
    there, and on one long row five times slower than `tf.nn.l2_loss` elsewhere.
    """
    if xla and tf.config.list_logical_devices("GPU"):
        return tf.reduce_sum(tf.square(x), 1)
    members, entries = x.shape
    if members == 1 and not xla:
        return (2 * tf.nn.l2_loss(x))[tf.newaxis]
    length = _divisor(entries, _LONGEST_DOT)
    rows = tf.reshape(x, [members * (entries // length), 1, length])
    squares = tf.matmul(rows, rows, transpose_b=True)
    return tf.reduce_sum(tf.reshape(squares, [members, entries // length]), 1)


def _careful(x: tf.Tensor) -> tf.Tensor:
    """Moments over the finite entries, free of overflow and underflow: `[k, MOMENTS]`."""
    members, entries = x.shape
    length = _divisor(entries, _LARGEST_STACKED_SIZE)
    if members == 1 and _SHORTEST_CHUNK <= length < entries:
        # In one go, this would need room for several copies of a large gradient.
        chunks = tf.reshape(x, [entries // length, length])
        parts = tf.map_fn(
            lambda chunk: _careful_parts(chunk[tf.newaxis])[0],
            chunks,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([_PARTS], x.dtype),
        )[tf.newaxis]
    else:
        parts = _careful_parts(x)[:, tf.newaxis]
    count, scale, squares, total, low, high, nan, inf = tf.unstack(parts, axis=2)
    counts = tf.reduce_sum(count, 1)
    largest = tf.reduce_max(scale, 1, keepdims=True)
    share = scale / tf.where(largest > 0, largest, tf.ones_like(largest))
    moments = [
        largest[:, 0] * tf.sqrt(tf.reduce_sum(share * share * squares, 1) / counts),
        largest[:, 0] * (tf.reduce_sum(share * total, 1) / counts),
        tf.reduce_min(low, 1),
        tf.reduce_max(high, 1),
    ]
    missing = tf.fill(tf.shape(counts), tf.constant(math.nan, x.dtype))
    moments = [tf.where(counts > 0, moment, missing) for moment in moments]
    rows = [*moments, tf.reduce_sum(nan, 1), tf.reduce_sum(inf, 1)]
    return tf.cast(tf.stack(rows, 1), tf.float32)


_PARTS = 8


def _careful_parts(x: tf.Tensor) -> tf.Tensor:
    """Of each row: finite entries, largest, sums scaled by it, extremes, NaN and Inf."""
    dtype = x.dtype
    nan = tf.math.is_nan(x)
    inf = tf.math.is_inf(x)
    finite = tf.logical_not(tf.logical_or(nan, inf))
    safe = tf.where(finite, x, tf.zeros_like(x))
    largest = tf.reduce_max(tf.abs(safe), 1)
    scaled = safe / tf.where(largest > 0, largest, tf.ones_like(largest))[:, tf.newaxis]
    parts = [
        tf.reduce_sum(tf.cast(finite, dtype), 1),
        largest,
        tf.reduce_sum(scaled * scaled, 1),
        tf.reduce_sum(scaled, 1),
        tf.reduce_min(tf.where(finite, x, tf.fill(tf.shape(x), dtype.max)), 1),
        tf.reduce_max(tf.where(finite, x, tf.fill(tf.shape(x), dtype.min)), 1),
        tf.reduce_sum(tf.cast(nan, dtype), 1),
        tf.reduce_sum(tf.cast(inf, dtype), 1),
    ]
    return tf.stack(parts, 1)


def _divisor(number: int, largest: int) -> int:
    """The largest divisor of `number` that is at most `largest`."""
    return max(d for d in range(1, min(number, largest) + 1) if number % d == 0)


def moments(packed: Sequence[tf.Tensor], xla: bool) -> list[tf.Tensor]:
    """The moments of gradients, exact over all their entries.

    Args:
        packed: Tensors of shape `[members, entries]`, float32 or float64.
        xla: Whether the graph is going to be compiled by XLA.

    Returns:
        A float32 tensor of shape `[members, len(MOMENTS)]` for each. RMS, mean,
        minimum and maximum are over the finite entries, and NaN if there is none.
    """
    found: dict[int, tf.Tensor] = {}
    small = [i for i, x in enumerate(packed) if x.shape[1] <= _LARGEST_STACKED_SIZE]
    # A large gradient is read by itself: its memory is free as soon as it is read.
    for group in [small, *([i] for i in range(len(packed)) if i not in small)]:
        if group:
            found.update(zip(group, _moments([packed[i] for i in group], xla)))
    return [found[i] for i in range(len(packed))]


def _moments(packed: Sequence[tf.Tensor], xla: bool) -> list[tf.Tensor]:
    columns = []
    for x in packed:
        square = sum_of_squares(x, xla) / x.shape[1]
        columns.append(
            [
                tf.sqrt(square),
                tf.reduce_sum(x, 1) / x.shape[1],
                tf.reduce_min(x, 1),
                tf.reduce_max(x, 1),
            ]
        )
    # A sum of squares is finite only if every entry is. The careful formulas cost
    # several more passes over the gradients, and are needed on sick models only.
    holds = tf.reduce_all(
        tf.concat([_exact(rms * rms, low, high) for rms, _, low, high in columns], 0)
    )

    def fast() -> list[tf.Tensor]:
        return [
            tf.cast(tf.stack([*row, none, none], 1), tf.float32)
            for row in columns
            for none in [tf.zeros_like(row[0])]
        ]

    return tf.cond(holds, fast, lambda: [_careful(x) for x in packed])


def _exact(mean_square: tf.Tensor, smallest: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """Whether a mean square lost nothing to overflow or underflow."""
    normal = tf.logical_and(
        mean_square >= _SMALLEST_EXACT_MEAN_SQUARE, mean_square < tf.float32.max
    )
    return tf.logical_or(normal, tf.logical_and(smallest == 0, largest == 0))


def root_mean_squares(packed: Sequence[tf.Tensor], xla: bool) -> list[tf.Tensor]:
    """The RMS of each member: a float32 tensor of shape `[members]` for each tensor.

    For samples: it computes in float64, in which no square leaves the range. Unlike in
    `moments`, an entry that is not finite makes it NaN or Inf.
    """
    rows = []
    for x in packed:
        squares = sum_of_squares(tf.cast(x, tf.float64), xla)
        rows.append(tf.cast(tf.sqrt(squares / x.shape[1]), tf.float32))
    return rows


def clipped_root_mean_squares(
    packed: Sequence[tf.Tensor], unclipped: Sequence[tf.Tensor], xla: bool
) -> list[tf.Tensor]:
    """The RMS of clipped gradients: a float32 tensor of shape `[members]` for each.

    Args:
        packed: The clipped gradients, of shape `[members, entries]`.
        unclipped: Their RMS before clipping, float32 of shape `[members]`.
        xla: Whether the graph is going to be compiled by XLA.
    """
    rows = []
    for x, rms in zip(packed, unclipped):
        square = sum_of_squares(x, xla) / x.shape[1]
        # What is too small to be squared is too small to be clipped.
        tiny = square < _SMALLEST_EXACT_MEAN_SQUARE
        rows.append(tf.where(tiny, rms, tf.cast(tf.sqrt(square), tf.float32)))
    return rows


def exponent_histograms(samples: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Counts of sampled entries by binary exponent.

    Args:
        samples: Float tensors of shape `[members, entries]`.

    Returns:
        A float32 tensor of shape `[members, BINS]` for each.
    """
    members = [x.shape[0] for x in samples]
    bits = tf.concat([tf.reshape(_magnitude_bits(x), [-1]) for x in samples], 0)
    bins = tf.where(bits == 0, ZERO_BIN, tf.bitwise.right_shift(bits, 23))
    first = BINS * np.arange(sum(members), dtype=np.int32)
    counts = tf.raw_ops.DenseBincount(
        input=bins + tf.repeat(first, np.repeat([x.shape[1] for x in samples], members)),
        size=sum(members) * BINS,
        weights=tf.zeros([0], tf.int32),
        binary_output=False,
    )
    return tf.split(tf.cast(tf.reshape(counts, [-1, BINS]), tf.float32), members)


def _magnitude_bits(x: tf.Tensor) -> tf.Tensor:
    # Reading the bits, and not comparing with 0.0, tells subnormal numbers from
    # zeros on machines that flush them.
    bits = tf.bitwise.bitwise_and(tf.bitcast(tf.cast(x, tf.float32), tf.int32), 0x7FFFFFFF)
    if x.dtype == tf.float64:
        # What is too small for float32 is not zero.
        bits = tf.where(tf.logical_and(bits == 0, x != 0), 1, bits)
    return bits
