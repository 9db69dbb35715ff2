"""Clips gradients, and skips those that are not finite, inside the train step.

Its limits are variables: to enable, tighten or lift them needs no new tracing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.control.rate_factor import RateFactor
from keras_vanish.capture.tensorflow.ring_buffer import RingBuffer
from keras_vanish.capture.tensorflow.update import Update, of_values
from keras_vanish.capture.tensorflow.variables import unmanaged

#: The share of the reach that an update is clipped to which goes beyond it.
WITHIN_REACH = 0.1


class GuardLog(NamedTuple):
    """What the guard saw since the last look.

    Attributes:
        norms: Float32 array: the gradient's global norm before clipping, one an update.
        clipped: How many updates were clipped, or would have been.
        skipped: How many steps were not finite.
    """

    norms: np.ndarray
    clipped: int
    skipped: int


@dataclass(frozen=True)
class Check:
    """What one step's gradient calls for; symbolic scalars.

    Attributes:
        calm: Whether the gradient is finite and within the limits.
        finite: Whether it is finite.
        coefficient: What it is multiplied by, float32; 1 where nothing is clipped.
        norm: Its global norm, float32; NaN where it is not finite.
    """

    calm: tf.Tensor
    finite: tf.Tensor
    coefficient: tf.Tensor
    norm: tf.Tensor


class Guard:
    """The half of clipping that is in the graph.

    A gradient with a global norm at or above `fires_above` is scaled to the norm `clips_to`.
    One that plain gradient descent would let move the weights, at the current rate, by a norm
    of `reach` or more, is scaled to a tenth of that: this needs no history. A step whose
    gradient is not finite changes neither weights nor optimizer slots, and counts as a step.

    Args:
        xla: Whether the train step is compiled by XLA.
        enforces: Whether it acts; else it only counts what it would have done.
        unitwise: Whether each unit is clipped by itself, by the ratio of its gradient's norm
            to its weights' (AGC, Brock et al. 2021), where that is above `fires_above`.
        smallest: The least norm that a unit's weights count as, with `unitwise`.
    """

    def __init__(
        self, xla: bool, enforces: bool = True, unitwise: bool = False, smallest: float = 1e-3
    ) -> None:
        self.xla = xla
        self._enforces = enforces
        self._unitwise = unitwise
        self._smallest = smallest
        self._variables: list[int] = []
        self._read = 0
        self._ring = RingBuffer(3)
        with tf.init_scope():
            self._fires_above = unmanaged(math.inf, tf.float32, [])
            self._clips_to = unmanaged(math.inf, tf.float32, [])
            self._reach = unmanaged(math.inf, tf.float32, [])
            self.skipped_now = unmanaged(False, tf.bool, [])

    def limit(self, fires_above: float, clips_to: float, reach: float) -> None:
        """Sets the limits, from the next step on; infinite ones never fire."""
        self._fires_above.assign(fires_above)
        self._clips_to.assign(clips_to)
        self._reach.assign(reach)

    def read(self) -> GuardLog:
        """What happened since the last call; waits for the device."""
        self._read, rows = self._ring.read(self._read)
        return GuardLog(rows[:, 0], int(rows[:, 1].sum()), int(rows[:, 2].sum()))

    def knows(self, variables: Sequence[Any]) -> bool:
        """Whether these are the variables that it first saw: its limits are for those."""
        identities = [id(variable) for variable in variables]
        self._variables = self._variables or identities
        return identities == self._variables

    def check(self, update: Update, factor: RateFactor | None = None) -> Check:
        """Builds the judgement on a step's gradient.

        Args:
            update: The step's update.
            factor: What the learning rate is multiplied by.
        """
        rate = tf.cast(update.rate() if factor is None else factor.rate(update), tf.float32)

        def measured() -> tuple[tf.Tensor, tf.Tensor]:
            gradients = update.again(update.gradients)
            norm = tf.linalg.global_norm([tf.cast(_values(g), tf.float32) for g in gradients])
            # Neither holds for NaN, nor where the squares overflow.
            calm = norm * rate < self._reach
            if not self._unitwise:
                return tf.logical_and(calm, norm < self._fires_above), norm
            dense = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients]
            ratios = [
                tf.reduce_max(_unit_ratios(gradient, weight, self._smallest))
                for gradient, weight in zip(dense, update.read_weights())
            ]
            largest = tf.reduce_max(tf.stack(ratios))
            return tf.logical_and(calm, largest < self._fires_above), norm

        def closer() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            gradients = update.again(update.gradients)
            values = [tf.cast(_values(gradient), tf.float32) for gradient in gradients]
            finite = tf.reduce_all(
                tf.stack([tf.reduce_all(tf.math.is_finite(value)) for value in values])
            )
            largest = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(v)) for v in values]))
            largest = tf.where(finite, tf.maximum(largest, 1e-30), 1.0)
            safe = largest * tf.linalg.global_norm([value / largest for value in values])
            coefficient = tf.constant(1.0)
            if not self._unitwise:
                coefficient = tf.where(safe >= self._fires_above, self._clips_to / safe, 1.0)
            beyond = safe * rate >= self._reach
            within = WITHIN_REACH * self._reach / (safe * rate)
            coefficient = tf.minimum(coefficient, tf.where(beyond, within, 1.0))
            nan = tf.constant(math.nan)
            return finite, tf.where(finite, coefficient, 1.0), tf.where(finite, safe, nan)

        if update.xla:
            calm, norm = measured()
        else:
            # Always so; within a branch the gradients can be read unnoticed.
            unread = tf.constant(False), tf.constant(math.nan)
            calm, norm = tf.cond(self._reach >= 0, measured, lambda: unread)
        if update.last is not None:
            # A part of an update may be as large as it likes, if it is finite.
            finite_part = tf.logical_and(tf.math.is_finite(norm), tf.logical_not(update.last))
            calm = tf.logical_or(calm, finite_part)
        finite, coefficient, norm = tf.cond(
            calm, lambda: (tf.constant(True), tf.constant(1.0), norm), closer
        )
        return Check(calm, finite, coefficient, norm)

    def clipped(
        self, check: Check, gradients: Sequence[tf.Tensor], weights: Sequence[tf.Tensor]
    ) -> list[Any]:
        """The gradients as the optimizer gets them; those that are not finite stay so."""
        if not self._enforces:
            return list(gradients)
        clipped = [_scaled(gradient, check.coefficient) for gradient in gradients]
        if self._unitwise:
            clipped = [
                _unitwise(gradient, weight, self._fires_above, self._smallest)
                for gradient, weight in zip(clipped, weights)
            ]
        return clipped

    def apply(self, update: Update, check: Check, factor: RateFactor | None = None) -> None:
        """Builds the update of the weights, and notes what was done.

        Args:
            update: The step's update.
            check: The judgement on it.
            factor: What the learning rate is multiplied by.
        """
        if self._enforces:
            self.skipped_now.assign(tf.logical_not(check.finite))
            as_given = check.calm
            if factor is not None:
                as_given = tf.logical_and(as_given, factor.untouched())

            def act() -> None:
                with contextlib.nullcontext() if factor is None else factor.on(update.optimizer):
                    self._act(update, check)

            tf.cond(as_given, update.apply_as_given, act)
        else:
            update.apply(update.given)
        clips = tf.logical_and(check.finite, tf.logical_not(check.calm))
        row = [check.norm, clips, tf.logical_not(check.finite)]
        if update.last is None:
            self._ring.write(row)
        else:
            tf.cond(
                tf.logical_or(update.last, tf.logical_not(check.finite)),
                lambda: self._ring.write(row),
                lambda: None,
            )

    def _act(self, update: Update, check: Check) -> None:
        def clip() -> None:
            update.scale_accumulated(check.coefficient)
            update.apply(self.clipped(check, update.given, update.read_weights()))

        def skip() -> None:
            if update.last is None:
                update.count()
            else:
                # What was accumulated before is still worth applying.
                zeros = [tf.zeros_like(tf.convert_to_tensor(g)) for g in update.given]
                tf.cond(update.last, lambda: update.apply(zeros), update.count)

        tf.cond(check.finite, clip, skip)


def _values(gradient: Any) -> tf.Tensor:
    # As `tf.linalg.global_norm` takes them: rows that are there twice count twice.
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _scaled(gradient: Any, factor: tf.Tensor) -> Any:
    return of_values(gradient, lambda values: values * tf.cast(factor, values.dtype))


def _unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    """The norm of each unit's weights: over all axes but the last; of all of a vector."""
    axes = list(range(max(1, tensor.shape.rank - 1))) if tensor.shape.rank else None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axes, keepdims=True))


def _unit_ratios(gradient: tf.Tensor, weight: tf.Tensor, smallest: float) -> tf.Tensor:
    weights = tf.maximum(_unit_norms(tf.cast(weight, tf.float32)), smallest)
    return _unit_norms(gradient) / weights


def _unitwise(gradient: Any, weight: tf.Tensor, limit: tf.Tensor, smallest: float) -> tf.Tensor:
    dense = tf.convert_to_tensor(gradient)
    ratios = _unit_ratios(tf.cast(dense, tf.float32), weight, smallest)
    factor = tf.where(ratios > limit, limit / ratios, 1.0)
    return dense * tf.cast(factor, dense.dtype)
