"""The buffer on the device that holds one optimizer's recorded updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics.finite_moments import MEASURED_MOMENTS
from keras_vanish.capture.tensorflow.statistics.gradients import GradientReader
from keras_vanish.capture.tensorflow.statistics.moments import root_mean_squares
from keras_vanish.capture.tensorflow.statistics.packing import Packing, largest_packed_size
from keras_vanish.capture.tensorflow.statistics.sampling import update_stride
from keras_vanish.capture.tensorflow.variables import unmanaged, value_of
from keras_vanish.records.bins import BINS
from keras_vanish.records.statistics import FLOATS

#: An update number that no run reaches. Nothing is recorded until the host arms the recorder.
NEVER = np.iinfo(np.int64).max

# Integers pass through a float32 buffer in two halves, so that each half stays exact.
_HALF = 1 << 20

# A row begins with its serial number, which counts from 1, and the number of the update, in halves.
_HEAD = 4

# The columns that `Recorder.before` and `Recorder.after` measure, in the order of the buffer. To
# record another column, name it here and measure it there. `FLOATS` defines its place for readers.
_BEFORE = (*MEASURED_MOMENTS, "rms_after_clipping", "weight_rms")
_AFTER = ("update_rms",)


class Row(NamedTuple):
    """The record of one update.

    Attributes:
        update: The number of updates that the optimizer had applied before.
        floats: Float32 array of shape `[variables, len(FLOATS)]`.
        counts: Float32 array of shape `[variables, BINS]`: the sampled histogram.
        probed: The float32 vector of the probe; None without a probe.
    """

    update: int
    floats: np.ndarray
    counts: np.ndarray
    probed: np.ndarray | None


class Half(NamedTuple):
    """The half of a row that is known before the update.

    Attributes:
        numbers: A float32 tensor of shape `[variables * (columns + BINS)]`.
        weights: The sample of the weights before the update: one matrix for each group of the
            packing. The list is empty if the sample was kept already.
    """

    numbers: tf.Tensor
    weights: list[tf.Tensor]


class Recorder:
    """Writes a row for each recorded update, and lets the host read the last rows.

    An update is recorded in two halves, before and after the optimizer's work. The gradients are
    read before it, so that no gradient stays in memory longer than training needs it.

    The variables belong to the recorder alone. No model, optimizer or checkpoint contains them.

    Args:
        shapes: Fully known shapes of the trained variables.
        dtypes: Their dtypes.
        every: The number of updates between two recorded ones, at least 1. With `NEVER`, only `arm`
            starts a recording.
        first: The first update number to record.
        slots: The number of rows in the buffer: as many as may be written before the host reads
            them.
        xla: Whether XLA compiles the train step.
        always: Whether every step that is traced with this recorder is recorded, because the host
            runs another function on the other steps.
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
        self._gradients = GradientReader(self.shapes, dtypes, xla)
        self._updates = Packing(self.shapes, dtypes, update_stride, largest_packed_size(xla))
        half = len(self.shapes) * (len(_BEFORE) + BINS)
        self._rest = len(self.shapes) * len(_AFTER)
        with tf.init_scope():
            self._due_at = unmanaged(first, tf.int64, [])
            self._written = unmanaged(0, tf.int64, [])
            self._half = unmanaged(0, tf.float32, [half])
            # One buffer holds everything for the host, which then has to wait only once.
            self._buffer = unmanaged(0, tf.float32, [slots, _HEAD + half + self._rest])
            self._probed: Any = None
            self._weights = [
                unmanaged(0, group.dtype, [len(group.owners), group.width])
                for group in self._updates.groups
            ]

    def due(self, update: tf.Tensor) -> tf.Tensor:
        """Returns whether to record the update with this int64 number: a bool scalar."""
        return update >= self._due_at

    def before(
        self,
        gradients: Sequence[Any],
        clipped: Sequence[Any] | None,
        weights: Sequence[tf.Tensor] | None,
    ) -> Half:
        """Reads the gradients, and takes a sample of the present weights.

        Args:
            gradients: The gradients before clipping: tensors or `IndexedSlices`.
            clipped: The same after clipping; None without clipping.
            weights: The trained variables, in the order of the shapes; None after `keep_weights`.

        Returns:
            The first half of the row. Pass it to `after`, or to `keep` if another branch calls
            `after`.
        """
        if weights is None:
            samples = [variable.read_value() for variable in self._weights]
        else:
            samples = self._updates.pack(weights)
        weight_rms = root_mean_squares(self._updates.groups, samples, self.xla)
        moments, after_clipping, counts = self._gradients.read(gradients, clipped)
        columns = [
            moments,
            after_clipping[:, tf.newaxis],
            self._updates.unpack([weight_rms])[:, tf.newaxis],
        ]
        numbers = tf.reshape(tf.concat([*columns, counts], 1), [-1])
        return Half(numbers, [] if weights is None else samples)

    def keep(self, half: Half) -> None:
        """Keeps the first half of a row until `after` is called."""
        self._half.assign(half.numbers)
        self._keep_samples(half.weights)

    def keep_weights(self, weights: Sequence[tf.Tensor]) -> None:
        """Keeps a sample of the present weights.

        Args:
            weights: The trained variables before the update, in the order of the shapes.
        """
        self._keep_samples(self._updates.pack(weights))

    def _keep_samples(self, samples: Sequence[tf.Tensor]) -> None:
        for variable, sample in zip(self._weights, samples):
            variable.assign(sample)

    def keep_probed(self, probed: tf.Tensor | None) -> None:
        """Keeps the result of a probe at the update that `before` reads next.

        Args:
            probed: A float32 vector, always of the same length; None without a probe.
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
        """Measures how much the update changed the weights, and completes the row.

        Args:
            update: The number of the update, an int64 scalar.
            weights: The trained variables after the update.
            half: The half that `before` returned; None if `keep` kept it.
        """
        packing = self._updates
        numbers, samples = (self._half, self._weights) if half is None else half
        changes = [after - before for after, before in zip(packing.pack(weights), samples)]
        rms = root_mean_squares(packing.groups, changes, self.xla)
        written = self._written.assign_add(1)
        halves = tf.stack([written, update])
        head = tf.cast(tf.reshape([halves // _HALF, halves % _HALF], [-1]), tf.float32)
        columns = [packing.unpack([rms])]
        row = tf.concat([head, numbers, *columns], 0)
        slot = (written - 1) % self.slots
        self._buffer.scatter_update(tf.IndexedSlices(row[tf.newaxis], slot[tf.newaxis]))
        self._due_at.assign(update + self._every if self._every < NEVER else NEVER)

    def arm(self) -> None:
        """Makes the next update a recorded one."""
        self._due_at.assign(0)

    def due_at(self) -> int:
        """Returns the number of the next update to record."""
        return int(value_of(self._due_at))

    def read(self, seen: int) -> tuple[int, list[Row]]:
        """Returns the rows since the last call. Waits for the device.

        Args:
            seen: The number of rows that had been written at the last call.

        Returns:
            The number of rows written by now, and the rows since the last call, oldest first. There
            are at most `slots`, because new rows replace the oldest.
        """
        buffer = value_of(self._buffer)
        probed = None if self._probed is None else value_of(self._probed)
        numbers = buffer[:, :_HEAD].astype(np.int64)
        serials, updates = (numbers[:, :2] * _HALF + numbers[:, 2:]).T
        rows = []
        for slot in np.argsort(serials):
            if serials[slot] > seen:
                floats, counts = self._parsed(buffer[slot, _HEAD:])
                rows.append(
                    Row(
                        update=int(updates[slot]),
                        floats=floats,
                        counts=counts,
                        probed=None if probed is None else probed[slot],
                    )
                )
        return int(serials.max()), rows

    def _parsed(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Splits a row without its head into `FLOATS` and the histograms of all variables.

        A column of `FLOATS` that is not measured is NaN.
        """
        variables = len(self.shapes)
        before = numbers[: -self._rest].reshape(variables, -1)
        after = numbers[-self._rest :].reshape(len(_AFTER), variables)
        floats = np.full([variables, len(FLOATS)], math.nan, np.float32)
        for place, name in enumerate(_BEFORE):
            floats[:, FLOATS.index(name)] = before[:, place]
        for place, name in enumerate(_AFTER):
            floats[:, FLOATS.index(name)] = after[place]
        return floats, before[:, len(_BEFORE) :]
