"""Packs many tensors into few matrices.

On a small model, the time is spent on many tiny operations and not on arithmetic. So small tensors
are packed into one matrix, and every reduction runs once for all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.constants import reshaped, shared
from keras_vanish.capture.tensorflow.statistics.sampling import RUN, every_entry, sampled_runs

# Packing copies. Above this size, the copy costs more than the saved operations.
LARGEST_PACKED_SIZE = 1 << 16

# The same limit if operations are cheap, as on a CPU without XLA.
_LARGEST_PACKED_SIZE_ON_CPU = 1 << 12

# The largest size of a group. A packed matrix is a copy, which takes memory during the step.
LARGEST_GROUP_SIZE = 1 << 20

# The width of a packed matrix. It lets a bias fill one row, and keeps the number of rows small.
WIDTH = 128


def largest_packed_size(xla: bool) -> int:
    """Returns the size of a tensor above which packing costs more than it saves.

    Args:
        xla: Whether XLA compiles the graph.
    """
    if xla or tf.config.list_logical_devices("GPU"):
        return LARGEST_PACKED_SIZE
    return _LARGEST_PACKED_SIZE_ON_CPU


def computing_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype that statistics of a tensor are computed in: at least float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors that are packed into one matrix. Each one begins in a new row.

    Attributes:
        members: The indices of these tensors in the list of all tensors.
        sizes: The number of entries of each.
        width: The number of entries of a row. Zeros fill up the last row of a member.
        dtype: The dtype of the matrix.
    """

    members: tuple[int, ...]
    sizes: tuple[int, ...]
    width: int
    dtype: tf.DType

    @functools.cached_property
    def lengths(self) -> list[int]:
        """The number of rows of each member."""
        return [-(-size // self.width) for size in self.sizes]

    @functools.cached_property
    def owners(self) -> npt.NDArray[np.int32]:
        """The index in `members` that each row belongs to: int32 of shape `[rows]`."""
        return np.repeat(np.arange(len(self.members), dtype=np.int32), self.lengths)

    @functools.cached_property
    def entries(self) -> npt.NDArray[np.int32]:
        """The number of entries of each row without padding: int32 of shape `[rows]`."""
        entries = np.full(len(self.owners), self.width, np.int32)
        entries[np.cumsum(self.lengths) - 1] -= self.padding
        return entries

    @functools.cached_property
    def padding(self) -> npt.NDArray[np.int32]:
        """The number of zeros that fill up each member: int32 of shape `[members]`."""
        return np.array(self.lengths, np.int32) * self.width - np.array(self.sizes, np.int32)

    def sum(self, rows: tf.Tensor) -> tf.Tensor:
        """Sums the rows of each member: from `[rows, ...]` to `[members, ...]`."""
        return self._reduced(tf.math.unsorted_segment_sum, rows)

    def min(self, rows: tf.Tensor) -> tf.Tensor:
        """Takes the minimum of the rows of each member: from `[rows, ...]` to `[members, ...]`."""
        return self._reduced(tf.math.unsorted_segment_min, rows)

    def max(self, rows: tf.Tensor) -> tf.Tensor:
        """Takes the maximum of the rows of each member: from `[rows, ...]` to `[members, ...]`."""
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
        stride: Returns the distance between the runs to take from a tensor of this shape; 1 takes
            all entries.
        largest: The largest number of taken entries with which a tensor shares a group.

    Attributes:
        groups: The groups. Those with several members come first.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[tf.DType],
        stride: Callable[[Sequence[int]], int] = every_entry,
        largest: int = LARGEST_PACKED_SIZE,
    ) -> None:
        self._sizes = [math.prod(shape) for shape in shapes]
        self._strides = [stride(shape) for shape in shapes]
        taken = [
            RUN * len(sampled_runs(size, step)) if step > 1 else size
            for size, step in zip(self._sizes, self._strides)
        ]
        groups: list[list[int]] = []
        open_groups: dict[tf.DType, list[int]] = {}
        for i, (size, dtype) in enumerate(zip(taken, dtypes)):
            if size > largest:
                groups.append([i])
                continue
            group = open_groups.get(computing_dtype(dtype))
            if group is None or sum(taken[j] for j in group) + size > LARGEST_GROUP_SIZE:
                group = open_groups[computing_dtype(dtype)] = []
                groups.append(group)
            group.append(i)
        groups.sort(key=lambda group: len(group) == 1)
        self.groups = [
            Group(
                members=tuple(group),
                sizes=tuple(taken[i] for i in group),
                width=WIDTH if len(group) > 1 else taken[group[0]],
                dtype=computing_dtype(dtypes[group[0]]),
            )
            for group in groups
        ]
        order = [i for group in self.groups for i in group.members]
        self._inverse = np.argsort(order)

    def pack(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns one matrix of shape `[rows, width]` for each group, in the group's dtype.

        Args:
            tensors: The tensors, in the order of the shapes.
        """
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
                parts.append(shared((0,) * int(padding), group.dtype))
        return reshaped(concatenated(parts), shape)

    def _taken(self, i: int, tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Returns the entries to take from the tensor with this index."""
        size, stride = self._sizes[i], self._strides[i]
        if stride == 1:
            return reshaped(tensor, shape)
        if size % RUN:
            tensor = reshaped(tensor, (size,))[: size - size % RUN]
        runs = reshaped(tensor, (size // RUN, RUN))
        # A strided slice takes several times as long.
        places = shared(tuple(sampled_runs(size, stride)))
        return reshaped(tf.raw_ops.GatherV2(params=runs, indices=places, axis=shared(0)), shape)

    def unpack(self, rows: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the rows of all members in the order of the tensors.

        Args:
            rows: Tensors of shape `[members, ...]` in the order of the groups.
        """
        joined = concatenated(rows)
        if np.array_equal(self._inverse, np.arange(len(self._inverse))):
            return joined
        return tf.gather(joined, self._inverse)


def concatenated(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenates tensors along their first axis. A single tensor stays as it is."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)
