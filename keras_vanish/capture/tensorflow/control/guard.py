"""Clips gradients, and skips those that are not finite, inside the train step.

The limits are variables, so changing them needs no new tracing.
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

#: An update at or beyond the reach is scaled to this share of it.
WITHIN_REACH = 0.1


class GuardLog(NamedTuple):
    """The guard's actions since the last read.

    Attributes:
        norms: Float32 array of shape `[updates]`: the gradient's global norm before clipping; NaN
            if the gradient was not finite.
        clipped: The number of updates that were clipped, or would have been in a dry run.
        skipped: The number of steps whose gradient was not finite.
    """

    norms: np.ndarray
    clipped: int
    skipped: int


@dataclass(frozen=True)
class Check:
    """The result of checking one step's gradient, as symbolic scalars.

    Attributes:
        calm: Whether the gradient is finite and within the limits; bool.
        finite: Whether the gradient is finite; bool.
        coefficient: The factor that clips the gradient, float32; 1 without clipping.
        norm: The gradient's global norm, float32; NaN if it is not finite.
    """

    calm: tf.Tensor
    finite: tf.Tensor
    coefficient: tf.Tensor
    norm: tf.Tensor


class Guard:
    """The part of clipping that runs inside the graph.

    A gradient with a global norm at or above `fires_above` is scaled to the norm `clips_to`. The
    second limit needs no history: if the learning rate times the norm is `reach` or more, the
    gradient is scaled to a tenth of that. A step whose gradient is not finite changes neither
    weights nor optimizer slots, but counts as a step.

    Args:
        xla: Whether XLA compiles the train step.
        enforces: Whether the guard acts. Otherwise, it only counts.
        unitwise: Whether each unit is clipped on its own if the ratio of its gradient norm to its
            weight norm exceeds `fires_above` (AGC, Brock et al. 2021).
        smallest: The smallest weight norm of a unit that counts with `unitwise`.

    Attributes:
        skipped_now: The bool variable that tells whether the present step was skipped.
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
        """Sets the limits from the next step on. An infinite limit never fires.

        Args:
            fires_above: The limit on the global norm, or on each unit's ratio.
            clips_to: The global norm to which a gradient at or above it is scaled.
            reach: The limit on the learning rate times the global norm.
        """
        self._fires_above.assign(fires_above)
        self._clips_to.assign(clips_to)
        self._reach.assign(reach)

    def read(self) -> GuardLog:
        """Returns the actions since the last call. Waits for the device."""
        self._read, rows = self._ring.read(self._read)
        return GuardLog(rows[:, 0], int(rows[:, 1].sum()), int(rows[:, 2].sum()))

    def knows(self, variables: Sequence[Any]) -> bool:
        """Returns whether these are the variables of the first call, which the limits are for."""
        identities = [id(variable) for variable in variables]
        self._variables = self._variables or identities
        return identities == self._variables

    def check(self, update: Update, factor: RateFactor | None = None) -> Check:
        """Builds the check of a step's gradient.

        Args:
            update: The step's update.
            factor: The factor on the learning rate; None without one.
        """
        rate = tf.cast(update.rate() if factor is None else factor.rate(update), tf.float32)

        def measured() -> tuple[tf.Tensor, tf.Tensor]:
            gradients = update.again(update.gradients)
            norm = tf.linalg.global_norm([tf.cast(_values(g), tf.float32) for g in gradients])
            # Both comparisons are False for NaN, and if the squares overflow.
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
            # The condition is always True. Only a branch can read the gradients without affecting
            # how they are compiled.
            unread = tf.constant(False), tf.constant(math.nan)
            calm, norm = tf.cond(self._reach >= 0, measured, lambda: unread)
        if update.last is not None:
            # With gradient accumulation, a part of an update may be large if it is finite.
            finite_part = tf.logical_and(tf.math.is_finite(norm), tf.logical_not(update.last))
            calm = tf.logical_or(calm, finite_part)
        finite, coefficient, norm = tf.cond(
            calm, lambda: (tf.constant(True), tf.constant(1.0), norm), closer
        )
        return Check(calm, finite, coefficient, norm)

    def clipped(
        self, check: Check, gradients: Sequence[tf.Tensor], weights: Sequence[tf.Tensor]
    ) -> list[Any]:
        """Returns the gradients that the optimizer receives. NaN and Inf stay as they are.

        Args:
            check: The check of the step.
            gradients: The gradients before clipping: tensors or `IndexedSlices`.
            weights: The trained variables, in the same order.
        """
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
        """Builds the update of the weights, and records the guard's action.

        Args:
            update: The step's update.
            check: The check of the step.
            factor: The factor on the learning rate; None without one.
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
                # The gradients that were accumulated before are still worth applying.
                zeros = [tf.zeros_like(tf.convert_to_tensor(g)) for g in update.given]
                tf.cond(update.last, lambda: update.apply(zeros), update.count)

        tf.cond(check.finite, clip, skip)


def _values(gradient: Any) -> tf.Tensor:
    # `tf.linalg.global_norm` uses these values as well: a repeated row counts repeatedly.
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _scaled(gradient: Any, factor: tf.Tensor) -> Any:
    return of_values(gradient, lambda values: values * tf.cast(factor, values.dtype))


def _unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the norm of each unit, over all axes but the last; for a vector, a single norm."""
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
