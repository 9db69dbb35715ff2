"""The device-resident buffer that one optimizer's readings are written to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics import sparse, statistics
from keras_vanish.capture.tensorflow.variables import unmanaged, value_of
from keras_vanish.records.bins import BINS
from keras_vanish.records.statistics import FLOATS

#: An update number that no run reaches: nothing is recorded until the host says so.
NEVER = np.iinfo(np.int64).max

# Numbers pass through a float32 buffer in two halves: each stays exact.
_HALF = 1 << 20

# The row's serial number, from 1 on, and the number of the update, in halves.
_HEAD = 4


class Row(NamedTuple):
    """What one recorded update left in the buffer.

    Attributes:
        update: How many updates the optimizer had applied before it.
        floats: Float32 array of shape `[variables, len(FLOATS)]`.
        counts: Float32 array of shape `[variables, BINS]`: the sampled histogram.
        probed: Float32 array: what the probe returned; None without one.
    """

    update: int
    floats: np.ndarray
    counts: np.ndarray
    probed: np.ndarray | None


class Half(NamedTuple):
    """The half of a row that is known before the update.

    Attributes:
        numbers: Float32 tensor of shape `[variables * (len(FLOATS) - 1 + BINS)]`.
        weights: The sample of the weights as they were: a matrix a group of the packing. Empty
            where it was kept before.
    """

    numbers: tf.Tensor
    weights: list[tf.Tensor]


class Recorder:
    """Writes a row for a recorded update, and lets the host read the last ones.

    An update is recorded in two halves, around the optimizer's own work: gradients are
    read before it, so that none has to be kept for longer than training keeps it.

    Its variables are its own: they are in no model, optimizer or checkpoint.

    Args:
        shapes: Fully known shapes of the trained variables.
        dtypes: Their dtypes.
        every: Updates from one recorded update to the next, at least 1; `NEVER`
            if only `arm` starts a recording.
        first: The first update number to record.
        slots: How many rows the buffer holds: as many as may be written before
            the host comes to read.
        xla: Whether the train step is compiled by XLA.
        always: Whether every step that is traced with this recorder is a recorded one:
            the host runs another function on the others.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[tf.DType],
        every: int,
        first: int,
        slots: int,
        xla: bool,
        always: bool,
    ) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        self.slots = slots
        self._every = every
        self.xla = xla
        self.always = always
        self._dtypes = list(dtypes)
        self._packings: dict[tuple[int, ...], tuple[statistics.Packing, statistics.Packing]] = {}
        self._largest = statistics.largest_packed_size(xla)
        self._updates = statistics.Packing(
            self.shapes, dtypes, statistics.update_stride, self._largest
        )
        half = len(self.shapes) * (len(FLOATS) - 1 + BINS)
        with tf.init_scope():
            self._due_at = unmanaged(first, tf.int64, [])
            self._written = unmanaged(0, tf.int64, [])
            self._half = unmanaged(0, tf.float32, [half])
            # One buffer holds all that the host wants, so that it has to wait only once.
            self._buffer = unmanaged(0, tf.float32, [slots, _HEAD + half + len(self.shapes)])
            self._probed: Any = None
            self._weights = [
                unmanaged(0, group.dtype, [len(group.owners), group.width])
                for group in self._updates.groups
            ]

    def due(self, update: tf.Tensor) -> tf.Tensor:
        """Whether the update with this int64 number is to be recorded: a bool scalar."""
        return update >= self._due_at

    def before(
        self,
        gradients: Sequence[Any],
        clipped: Sequence[Any] | None,
        weights: Sequence[tf.Tensor] | None,
    ) -> Half:
        """Reads the gradients, and samples the weights as they are.

        Args:
            gradients: What the update is going to be made from, before clipping: tensors or
                `IndexedSlices`.
            clipped: The same after clipping; None where nothing clips.
            weights: The trained variables, in the order of the shapes; None after
                `keep_weights`.

        Returns:
            What `after` needs, or `keep` where that is called in another branch.
        """
        if weights is None:
            samples = [variable.read_value() for variable in self._weights]
        else:
            samples = self._updates.pack(weights)
        weight_rms = statistics.root_mean_squares(self._updates.groups, samples, self.xla)
        moments, after_clipping, counts = self._read(gradients, clipped)
        columns = [
            moments,
            after_clipping[:, tf.newaxis],
            self._updates.unpack([weight_rms])[:, tf.newaxis],
            counts,
        ]
        numbers = tf.reshape(tf.concat(columns, 1), [-1])
        return Half(numbers, [] if weights is None else samples)

    def keep(self, half: Half) -> None:
        """Keeps what `before` gave until `after`."""
        self._half.assign(half.numbers)
        self._keep_samples(half.weights)

    def keep_weights(self, weights: Sequence[tf.Tensor]) -> None:
        """Keeps a sample of the weights as they are.

        Args:
            weights: The trained variables before the update, in the order of the shapes.
        """
        self._keep_samples(self._updates.pack(weights))

    def _keep_samples(self, samples: Sequence[tf.Tensor]) -> None:
        for variable, sample in zip(self._weights, samples):
            variable.assign(sample)

    def _read(
        self, gradients: Sequence[Any], clipped: Sequence[Any] | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Moments, RMS after clipping and histograms, one row a gradient."""
        slices = [
            i for i, g in enumerate(gradients) if isinstance(g, tf.IndexedSlices) and not self.xla
        ]
        full = [i for i in range(len(gradients)) if i not in slices]
        parts = [self._read_sparse(i, gradients[i], clipped and clipped[i]) for i in slices]
        if full:
            parts.append(
                self._read_full(
                    full,
                    [tf.convert_to_tensor(gradients[i]) for i in full],
                    None if clipped is None else [tf.convert_to_tensor(clipped[i]) for i in full],
                )
            )
        if len(parts) == 1:
            return parts[0]
        places = np.argsort(slices + full)
        moments, after_clipping, counts = (
            tf.gather(tf.concat(rows, 0), places) for rows in zip(*parts)
        )
        return moments, after_clipping, counts

    def _read_full(
        self, which: Sequence[int], gradients: list[tf.Tensor], clipped: list[tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        packing, histograms = self._packings_of(which)
        moments = statistics.moments(packing.groups, packing.pack(gradients), self.xla)
        after_clipping = [rows[:, 0] for rows in moments]
        if clipped is not None:
            after_clipping = statistics.clipped_root_mean_squares(
                packing.groups, packing.pack(clipped), after_clipping, self.xla
            )
        counts = statistics.exponent_histograms(histograms.groups, histograms.pack(gradients))
        return packing.unpack(moments), packing.unpack(after_clipping), counts

    def _packings_of(self, which: Sequence[int]) -> tuple[statistics.Packing, statistics.Packing]:
        """How to pack whole gradients, and their samples."""
        key = tuple(which)
        if key not in self._packings:
            shapes = [self.shapes[i] for i in which]
            dtypes = [self._dtypes[i] for i in which]
            self._packings[key] = (
                statistics.Packing(shapes, dtypes, largest=self._largest),
                statistics.Packing(shapes, dtypes, statistics.histogram_stride),
            )
        return self._packings[key]

    def _read_sparse(
        self, which: int, gradient: tf.IndexedSlices, clipped: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows = sparse.rows_of(gradient, self.shapes[which])
        moments = sparse.moments(rows)
        after_clipping = moments[0]
        if clipped is not None:
            after_clipping = sparse.clipped_root_mean_square(
                sparse.rows_of(clipped, self.shapes[which]), after_clipping
            )
        counts = sparse.exponent_histogram(rows)
        return moments[tf.newaxis], after_clipping[tf.newaxis], counts[tf.newaxis]

    def keep_probed(self, probed: tf.Tensor | None) -> None:
        """Keeps what a probe found at the update that `before` reads next.

        Args:
            probed: Float32 vector, always of the same length; None without a probe.
        """
        if probed is None:
            return
        if self._probed is None:
            with tf.init_scope():
                self._probed = unmanaged(math.nan, tf.float32, [self.slots, probed.shape[0]])
        slot = self._written % self.slots
        self._probed.scatter_update(tf.IndexedSlices(probed[tf.newaxis], slot[tf.newaxis]))

    def after(
        self, update: tf.Tensor, weights: Sequence[tf.Tensor], half: Half | None = None
    ) -> None:
        """Measures by how much the update changed the weights, and completes the row.

        Args:
            update: Int64 scalar, the number of the update.
            weights: The trained variables after the update.
            half: What `before` gave; None where that was kept.
        """
        packing = self._updates
        numbers, samples = (self._half, self._weights) if half is None else half
        changes = [after - before for after, before in zip(packing.pack(weights), samples)]
        rms = statistics.root_mean_squares(packing.groups, changes, self.xla)
        written = self._written.assign_add(1)
        halves = tf.stack([written, update])
        head = tf.cast(tf.reshape([halves // _HALF, halves % _HALF], [-1]), tf.float32)
        row = tf.concat([head, numbers, packing.unpack([rms])], 0)
        slot = (written - 1) % self.slots
        self._buffer.scatter_update(tf.IndexedSlices(row[tf.newaxis], slot[tf.newaxis]))
        self._due_at.assign(update + self._every if self._every < NEVER else NEVER)

    def arm(self) -> None:
        """Makes the next update a recorded one."""
        self._due_at.assign(0)

    def due_at(self) -> int:
        """The number of the next update that is going to be recorded."""
        return int(value_of(self._due_at))

    def read(self, seen: int) -> tuple[int, list[Row]]:
        """Reads what has been written; waits for the device.

        Args:
            seen: How many rows had been written at the last look.

        Returns:
            How many have been written by now, and those since, oldest first; at most
            `slots`: what is older has been written over.
        """
        buffer = value_of(self._buffer)
        probed = None if self._probed is None else value_of(self._probed)
        numbers = buffer[:, :_HEAD].astype(np.int64)
        serials, updates = (numbers[:, :2] * _HALF + numbers[:, 2:]).T
        rows = []
        variables, columns = len(self.shapes), len(FLOATS) - 1
        for slot in np.argsort(serials):
            if serials[slot] > seen:
                half = buffer[slot, _HEAD:-variables].reshape(variables, -1)
                floats = np.empty([variables, columns + 1], np.float32)
                floats[:, :columns] = half[:, :columns]
                floats[:, columns] = buffer[slot, -variables:]
                rows.append(
                    Row(
                        update=int(updates[slot]),
                        floats=floats,
                        counts=half[:, columns:],
                        probed=None if probed is None else probed[slot],
                    )
                )
        return int(serials.max()), rows
