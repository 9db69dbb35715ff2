"""Gradients become fixed-width rows of numbers, inside the compiled train step.

Everything here must compile under XLA: no dynamic shapes, no `tf.summary`, no
`tf.histogram_fixed_width`.

Many tiny operations, not arithmetic, are what costs time on a small model. So small
tensors are packed into one matrix, and every reduction runs once for all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import is_deterministic
from keras_vanish.records.columns import BINS, ZERO_BIN

# A sum of squares of float32 below this is inexact: squares of entries under
# about 1e-19 are no longer normal numbers.
_SMALLEST_EXACT_MEAN_SQUARE = 1e-30

# Packing copies. Above this size the copy costs more than the operations it saves.
_LARGEST_PACKED_SIZE = 1 << 16

# The same where operations are cheap, as they are on a CPU without XLA.
_LARGEST_PACKED_SIZE_ON_CPU = 1 << 12

# A packed matrix is a copy, which takes memory for the time of the step.
_LARGEST_GROUP_SIZE = 1 << 20

# The width of a packed matrix: a bias fills one row, and rows are few.
_WIDTH = 128

# A sample is made of runs of so many neighbours: half a line of a processor's cache each, and
# copied in one go.
_RUN = 8

# The smallest and the largest sample of a variable, and its share of the entries.
_HISTOGRAM_SAMPLE = (1024, 16384, 16)
_UPDATE_SAMPLE = (2048, 32768, 16)

# Rows of a dot product longer than this lose digits: XLA adds up in one register.
_LONGEST_DOT = 4096

# Of a tensor with more entries, a few copies would take too much memory.
_LARGEST_COPIED_SIZE = 1 << 22

# Below this, the loop over the chunks of a large tensor costs more than its memory.
_SHORTEST_CHUNK = 1024


def _stride(shape: Sequence[int], sample: tuple[int, int, int]) -> int:
    """The distance between sampled runs of a tensor in storage order, in runs.

    A distance that shares a factor with the length of an axis would visit only some of
    its positions: a dead unit would be seen always or never.
    """
    size = math.prod(shape)
    smallest, largest, share = sample
    wanted = max(1, min(size, max(smallest, min(largest, size // share))))
    step = max(1, size // wanted)
    # Rather more runs than wanted, up to twice as many, than fewer.
    for distance in (*range(step, step // 2, -1), *range(step, size)):
        if all(math.gcd(distance, axis) == 1 for axis in shape):
            return distance
    return 1


def every_entry(shape: Sequence[int]) -> int:
    """The distance between runs where none is left out."""
    return 1


def histogram_stride(shape: Sequence[int]) -> int:
    """The distance between the runs of entries that a variable's histogram counts."""
    return _stride(shape, _HISTOGRAM_SAMPLE)


def update_stride(shape: Sequence[int]) -> int:
    """The distance between the runs of entries on which weights and updates are measured."""
    return _stride(shape, _UPDATE_SAMPLE)


def largest_packed_size(xla: bool) -> int:
    """The size of a tensor above which it costs less to reduce it by itself than to pack it."""
    if xla or tf.config.list_logical_devices("GPU"):
        return _LARGEST_PACKED_SIZE
    return _LARGEST_PACKED_SIZE_ON_CPU


def computing_dtype(dtype: tf.DType) -> tf.DType:
    """Statistics of half-precision tensors are computed in float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors that are packed into one matrix, each from a row of its own on.

    Attributes:
        members: Where they stand in the list of all tensors.
        sizes: How many entries each of them has.
        width: Entries a row; the last row of a member is filled up with zeros.
        dtype: The dtype of the matrix.
    """

    members: tuple[int, ...]
    sizes: tuple[int, ...]
    width: int
    dtype: tf.DType

    @functools.cached_property
    def lengths(self) -> list[int]:
        """How many rows each member has."""
        return [-(-size // self.width) for size in self.sizes]

    @functools.cached_property
    def owners(self) -> npt.NDArray[np.int32]:
        """For each row, which of `members` it belongs to."""
        return np.repeat(np.arange(len(self.members), dtype=np.int32), self.lengths)

    @functools.cached_property
    def entries(self) -> npt.NDArray[np.int32]:
        """How many entries of each row are the member's."""
        entries = np.full(len(self.owners), self.width, np.int32)
        entries[np.cumsum(self.lengths) - 1] -= self.padding
        return entries

    @functools.cached_property
    def padding(self) -> npt.NDArray[np.int32]:
        """How many zeros fill up each member."""
        return np.array(self.lengths, np.int32) * self.width - np.array(self.sizes, np.int32)

    def sum(self, rows: tf.Tensor) -> tf.Tensor:
        """Adds up what rows gave: from `[rows, ...]` to `[members, ...]`."""
        return self._reduced(tf.math.unsorted_segment_sum, rows)

    def min(self, rows: tf.Tensor) -> tf.Tensor:
        """The least of what the rows of a member gave: `[members, ...]`."""
        return self._reduced(tf.math.unsorted_segment_min, rows)

    def max(self, rows: tf.Tensor) -> tf.Tensor:
        """The largest of what the rows of a member gave: `[members, ...]`."""
        return self._reduced(tf.math.unsorted_segment_max, rows)

    def _reduced(self, reduction: Callable[..., tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        if len(self.owners) == len(self.members):
            return rows
        return reduction(rows, self.owners, len(self.members))


class Packing:
    """Packs a list of tensors, or evenly spaced runs of their entries, into few matrices.

    Args:
        shapes: Fully known shapes of the tensors, in order.
        dtypes: Their dtypes, in the same order.
        stride: The distance between the runs to take of a tensor of a given shape; 1 takes all.
        largest: A tensor of which more entries are taken is a group of its own.

    Attributes:
        groups: Those with several members come first.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[tf.DType],
        stride: Callable[[Sequence[int]], int] = every_entry,
        largest: int = _LARGEST_PACKED_SIZE,
    ) -> None:
        self._sizes = [math.prod(shape) for shape in shapes]
        self._strides = [stride(shape) for shape in shapes]
        taken = [
            _RUN * len(_places(size, step)) if step > 1 else size
            for size, step in zip(self._sizes, self._strides)
        ]
        groups: list[list[int]] = []
        open_groups: dict[tf.DType, list[int]] = {}
        for i, (size, dtype) in enumerate(zip(taken, dtypes)):
            if size > largest:
                groups.append([i])
                continue
            group = open_groups.get(computing_dtype(dtype))
            if group is None or sum(taken[j] for j in group) + size > _LARGEST_GROUP_SIZE:
                group = open_groups[computing_dtype(dtype)] = []
                groups.append(group)
            group.append(i)
        groups.sort(key=lambda group: len(group) == 1)
        self.groups = [
            Group(
                members=tuple(group),
                sizes=tuple(taken[i] for i in group),
                width=_WIDTH if len(group) > 1 else taken[group[0]],
                dtype=computing_dtype(dtypes[group[0]]),
            )
            for group in groups
        ]
        order = [i for group in self.groups for i in group.members]
        self._inverse = np.argsort(order)

    def pack(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor of shape `[rows, width]` a group, in the group's dtype."""
        return [self._packed(group, tensors) for group in self.groups]

    def _packed(self, group: Group, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        shape = (len(group.owners), group.width)
        if len(group.members) == 1:
            (i,) = group.members
            return tf.cast(self._taken(i, tensors[i], shape), group.dtype)
        parts = []
        for i, size, padding in zip(group.members, group.sizes, group.padding):
            parts.append(tf.cast(self._taken(i, tensors[i], (size,)), group.dtype))
            if padding:
                parts.append(_shared((0,) * int(padding), group.dtype))
        return _reshaped(_joined(parts), shape)

    def _taken(self, i: int, tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """What is taken of the tensor with this number."""
        size, stride = self._sizes[i], self._strides[i]
        if stride == 1:
            return _reshaped(tensor, shape)
        if size % _RUN:
            tensor = _reshaped(tensor, (size,))[: size - size % _RUN]
        runs = _reshaped(tensor, (size // _RUN, _RUN))
        # A slice with a stride takes several times as long.
        places = _shared(tuple(_places(size, stride)))
        return _reshaped(tf.raw_ops.GatherV2(params=runs, indices=places, axis=_shared(0)), shape)

    def unpack(self, rows: Sequence[tf.Tensor]) -> tf.Tensor:
        """Rows of all groups, `[members, ...]` one after the other, in the order of the tensors."""
        joined = _joined(rows)
        if np.array_equal(self._inverse, np.arange(len(self._inverse))):
            return joined
        return tf.gather(joined, self._inverse)


def _places(size: int, stride: int) -> range:
    """Which of the whole runs of a tensor of so many entries are sampled."""
    return range(0, size // _RUN, stride)


def _reshaped(x: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    # What comes of a sparse gradient has lost its shape.
    return x if x.shape == shape else tf.reshape(x, _shared(shape))


_CONSTANTS = "_keras_vanish_constants"


def _shared(value: int | tuple[int, ...], dtype: tf.DType = tf.int32) -> tf.Tensor:
    """A constant of the graph that is built, one for all that need it.

    Operations take memory, some ten kilobytes each by the time that a graph runs, and half of
    them would be the constants that the others need.
    """
    if tf.executing_eagerly():
        return tf.constant(value, dtype)
    # They hold the graph: kept anywhere else, they would keep it for good.
    graph = tf.compat.v1.get_default_graph()
    made: dict[Any, tf.Tensor] | None = getattr(graph, _CONSTANTS, None)
    if made is None:
        made = {}
        setattr(graph, _CONSTANTS, made)
    if (value, dtype) not in made:
        made[value, dtype] = tf.constant(value, dtype)
    return made[value, dtype]


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


def _sum_of_squares(x: tf.Tensor, xla: bool) -> tf.Tensor:
    """`sum(x**2, axis=1)` with no temporary of the size of a large `x`.

    On a CPU, XLA's compiler materialises the squares; dot products are twice as fast there.
    """
    if not xla:
        return tf.square(tf.math.reduce_euclidean_norm(x, _shared(1)))
    if tf.config.list_logical_devices("GPU"):
        return tf.reduce_sum(tf.square(x), 1)
    rows, entries = x.shape
    length = _divisor(entries, _LONGEST_DOT)
    parts = tf.reshape(x, [rows * (entries // length), 1, length])
    squares = tf.matmul(parts, parts, transpose_b=True)
    return tf.reduce_sum(tf.reshape(squares, [rows, entries // length]), 1)


def _careful(group: Group, x: tf.Tensor, xla: bool) -> tf.Tensor:
    """Moments over the finite entries, free of overflow and underflow: `[k, MOMENTS]`."""
    rows, width = x.shape
    length = _divisor(width, _LARGEST_PACKED_SIZE)
    largest_whole = length if xla else _LARGEST_COPIED_SIZE
    if rows == 1 and width > largest_whole and length >= _SHORTEST_CHUNK:
        # The loop takes memory, in the graph, whether it ever runs or not; under XLA the copies do.
        group = Group(group.members, group.sizes, length, group.dtype)
        parts = tf.map_fn(
            lambda chunk: careful_parts(chunk[tf.newaxis])[0],
            tf.reshape(x, [width // length, length]),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([_PARTS], x.dtype),
        )
    else:
        parts = careful_parts(x, group.entries)
    count, scale, squares, total, low, high, nan, inf = tf.unstack(parts, axis=1)
    counts = group.sum(count)
    largest = group.max(scale)
    divisor = tf.gather(largest, group.owners)
    share = scale / tf.where(divisor > 0, divisor, tf.ones_like(divisor))
    moments = [
        largest * tf.sqrt(group.sum(share * share * squares) / counts),
        largest * (group.sum(share * total) / counts),
        group.min(low),
        group.max(high),
    ]
    missing = tf.constant(math.nan, x.dtype)
    moments = [tf.where(counts > 0, moment, missing) for moment in moments]
    return tf.cast(tf.stack([*moments, group.sum(nan), group.sum(inf)], 1), tf.float32)


_PARTS = 8


def careful_parts(x: tf.Tensor, entries: npt.NDArray[np.int32] | None = None) -> tf.Tensor:
    """Of each row: finite entries, largest, sums scaled by it, extremes, NaN and Inf.

    Args:
        x: Tensor of shape `[rows, width]`.
        entries: How many entries of each row count; None for all.
    """
    dtype = x.dtype
    nan = tf.math.is_nan(x)
    inf = tf.math.is_inf(x)
    finite = tf.logical_not(tf.logical_or(nan, inf))
    if entries is not None and (entries < x.shape[1]).any():
        finite = tf.logical_and(finite, tf.sequence_mask(entries, x.shape[1]))
    # Scalars: what has the shape of `x` and holds one number, TensorFlow makes a constant of, which
    # takes memory in each copy of the graph.
    safe = tf.where(finite, x, tf.zeros([], dtype))
    largest = tf.reduce_max(tf.abs(safe), 1)
    scaled = safe / tf.where(largest > 0, largest, tf.ones_like(largest))[:, tf.newaxis]
    parts = [
        tf.reduce_sum(tf.cast(finite, dtype), 1),
        largest,
        tf.reduce_sum(scaled * scaled, 1),
        tf.reduce_sum(scaled, 1),
        tf.reduce_min(tf.where(finite, x, dtype.max), 1),
        tf.reduce_max(tf.where(finite, x, dtype.min), 1),
        tf.reduce_sum(tf.cast(nan, dtype), 1),
        tf.reduce_sum(tf.cast(inf, dtype), 1),
    ]
    return tf.stack(parts, 1)


def _divisor(number: int, largest: int) -> int:
    """The largest divisor of `number` that is at most `largest`."""
    return max(d for d in range(1, min(number, largest) + 1) if number % d == 0)


def moments(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> list[tf.Tensor]:
    """The moments of gradients, exact over all their entries.

    Args:
        groups: The groups of a packing.
        packed: Their matrices, float32 or float64.
        xla: Whether the graph is going to be compiled by XLA.

    Returns:
        Float32 tensors of shape `[members, len(MOMENTS)]`, one for some consecutive groups each.
        RMS, mean, minimum and maximum are over the finite entries, and NaN if there is none.
    """
    # The memory of a large gradient is free as soon as it is read: it waits for no other.
    return [_moments(groups[batch], packed[batch], xla) for batch in _batches(groups)]


def _batches(groups: Sequence[Group]) -> list[slice]:
    """Consecutive groups of one dtype that have no more entries together than one may have."""
    batches: list[slice] = []
    size = 0
    for i, group in enumerate(groups):
        size += sum(group.sizes)
        if batches and groups[i - 1].dtype == group.dtype and size <= _LARGEST_GROUP_SIZE:
            batches[-1] = slice(batches[-1].start, i + 1)
        else:
            batches.append(slice(i, i + 1))
            size = sum(group.sizes)
    return batches


def _moments(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    square = _mean_squares(groups, packed, xla)
    sums = [group.sum(tf.reduce_sum(x, _shared(1))) for group, x in zip(groups, packed)]
    mean = _joined(sums) / _sizes(groups, packed[0].dtype)
    low, high = map(_joined, zip(*map(_extremes, groups, packed)))
    none = tf.zeros_like(mean)
    # A sum of squares is finite only if every entry is. The careful formulas cost
    # several more passes over the gradients, and are needed on sick models only.
    return tf.cond(
        tf.reduce_all(exact(square, low, high)),
        lambda: tf.cast(tf.stack([tf.sqrt(square), mean, low, high, none, none], 1), tf.float32),
        lambda: _careful(*_in_one(groups, packed), xla),
    )


def _mean_squares(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    # On one long row `l2_loss` is five times faster. Groups of one member come last.
    alone = [x for x in packed if x.shape[0] == 1 and not xla]
    sums = [
        group.sum(_sum_of_squares(x, xla))
        for group, x in zip(groups, packed[: len(packed) - len(alone)])
    ]
    if alone:
        sums.append(2 * tf.stack([tf.nn.l2_loss(x) for x in alone]))
    return _joined(sums) / _sizes(groups, packed[0].dtype)


def _sizes(groups: Sequence[Group], dtype: tf.DType) -> npt.NDArray[Any]:
    return np.array([size for group in groups for size in group.sizes], dtype.as_numpy_dtype)


def _in_one(groups: Sequence[Group], packed: Sequence[tf.Tensor]) -> tuple[Group, tf.Tensor]:
    """One group of all members, and its matrix."""
    if len(groups) == 1:
        return groups[0], packed[0]
    sizes = tuple(size for group in groups for size in group.sizes)
    together = Group(tuple(range(len(sizes))), sizes, _WIDTH, groups[0].dtype)
    rows = []
    for group, x in zip(groups, packed):
        if group.width != _WIDTH:  # One member, in one row.
            if group.width % _WIDTH:
                x = tf.pad(x, [[0, 0], [0, -group.width % _WIDTH]])
            x = tf.reshape(x, _shared((-1, _WIDTH)))
        rows.append(x)
    return together, tf.concat(rows, 0)


def _extremes(group: Group, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The least and the largest entry of each member, padding left out."""
    low, high = tf.reduce_min(x, _shared(1)), tf.reduce_max(x, _shared(1))
    (filled_up,) = np.nonzero(group.entries < group.width)
    if filled_up.size:
        rows = tf.gather(x, filled_up)
        # The first entry of a row stands in for its padding.
        rows = tf.where(tf.sequence_mask(group.entries[filled_up], group.width), rows, rows[:, :1])
        where = filled_up[:, np.newaxis]
        low = tf.tensor_scatter_nd_update(low, where, tf.reduce_min(rows, 1))
        high = tf.tensor_scatter_nd_update(high, where, tf.reduce_max(rows, 1))
    return group.min(low), group.max(high)


def exact(mean_square: tf.Tensor, smallest: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """Whether a mean square lost nothing to overflow or underflow."""
    normal = tf.logical_and(
        mean_square >= _SMALLEST_EXACT_MEAN_SQUARE, mean_square < tf.float32.max
    )
    # The extremes alone may be blind to NaN.
    zero = tf.logical_and(mean_square == 0, tf.logical_and(smallest == 0, largest == 0))
    return tf.logical_or(normal, zero)


def root_mean_squares(groups: Sequence[Group], packed: Sequence[tf.Tensor], xla: bool) -> tf.Tensor:
    """The RMS of the members of all groups, one after the other: float32 of shape `[members]`.

    For samples: it computes in float64, in which no square leaves the range. Unlike in
    `moments`, an entry that is not finite makes it NaN or Inf.
    """
    packed = [tf.cast(x, tf.float64) for x in packed]
    return tf.cast(tf.sqrt(_mean_squares(groups, packed, xla)), tf.float32)


def clipped_root_mean_squares(
    groups: Sequence[Group], packed: Sequence[tf.Tensor], unclipped: Sequence[tf.Tensor], xla: bool
) -> list[tf.Tensor]:
    """The RMS of clipped gradients: float32 tensors of shape `[members]`, as `moments` has them.

    Args:
        groups: The groups of a packing.
        packed: The clipped gradients in it.
        unclipped: Their RMS before clipping, in the same shapes.
        xla: Whether the graph is going to be compiled by XLA.
    """
    rows = []
    for batch, rms in zip(_batches(groups), unclipped):
        square = _mean_squares(groups[batch], packed[batch], xla)
        # What is too small to be squared is too small to be clipped.
        rows.append(tf.where(tiny(square), rms, tf.cast(tf.sqrt(square), tf.float32)))
    return rows


def tiny(mean_square: tf.Tensor) -> tf.Tensor:
    """Whether a mean square may have lost digits to underflow."""
    return mean_square < _SMALLEST_EXACT_MEAN_SQUARE


def exponent_histograms(groups: Sequence[Group], packed: Sequence[tf.Tensor]) -> tf.Tensor:
    """Counts of entries by binary exponent.

    Args:
        groups: The groups of a packing.
        packed: Their matrices, float32 or float64.

    Returns:
        A float32 tensor of shape `[tensors, BINS]`, in the order of the tensors.
    """
    tensors = sum(len(group.members) for group in groups)
    padding = np.zeros([tensors, 1], np.int32)
    shifted = []
    for group, x in zip(groups, packed):
        members = np.array(group.members, np.int32)
        padding[members, 0] = group.padding
        bins = _bins(x)
        shifted.append(tf.reshape(bins + BINS * members[group.owners][:, np.newaxis], [-1]))
    counts = tf.reshape(_counted(tf.concat(shifted, 0), tensors * BINS), [tensors, BINS])
    counts = tf.concat([counts[:, :ZERO_BIN], counts[:, ZERO_BIN:] - padding], 1)
    return tf.cast(counts, tf.float32)


def counts_by_exponent(x: tf.Tensor) -> tf.Tensor:
    """Counts of the entries of a float32 or float64 tensor of one axis: int32, `[BINS]`."""
    return _counted(_bins(x), BINS)


def _counted(bins: tf.Tensor, size: int) -> tf.Tensor:
    if is_deterministic():
        # With it, a GPU refuses to run the operation below, and training would end. This one is
        # several times slower.
        return tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, size)
    return tf.raw_ops.DenseBincount(
        input=bins, size=size, weights=tf.zeros([0], tf.int32), binary_output=False
    )


def _bins(x: tf.Tensor) -> tf.Tensor:
    bits = _magnitude_bits(x)
    return tf.where(bits == 0, ZERO_BIN, tf.bitwise.right_shift(bits, 23))


def _magnitude_bits(x: tf.Tensor) -> tf.Tensor:
    # Reading the bits, and not comparing with 0.0, tells subnormal numbers from
    # zeros on machines that flush them.
    bits = tf.bitwise.bitwise_and(tf.bitcast(tf.cast(x, tf.float32), tf.int32), 0x7FFFFFFF)
    if x.dtype == tf.float64:
        # What is too small for float32 is not zero.
        bits = tf.where(tf.logical_and(bits == 0, x != 0), 1, bits)
    return bits
