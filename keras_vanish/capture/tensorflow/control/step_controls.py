"""The controls that the flags need inside every train step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.backend import Controls
from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.capture.tensorflow.control.loss_log import LossLog
from keras_vanish.capture.tensorflow.control.rate_factor import RateFactor
from keras_vanish.capture.tensorflow.private_names import flattened, own_non_trainable_variables


@dataclass(frozen=True)
class StepControls:
    """The controls inside a train step. A control that no flag needs is None.

    Attributes:
        guard: Clips gradients, and skips those that are not finite.
        factor: Multiplies the learning rate.
        losses: Records the loss.
    """

    guard: Guard | None = None
    factor: RateFactor | None = None
    losses: LossLog | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no control, so that the train step stays unchanged."""
        return self.guard is None and self.factor is None and self.losses is None

    def run(
        self, model: Any, step: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Runs or traces one train step, and returns its outputs.

        A skipped step does not change the running means of metrics and normalisation layers either.
        A single NaN would stay in them.

        Args:
            model: The Keras model.
            step: The train step.
            args: The positional arguments of the step.
            kwargs: The keyword arguments of the step.
        """
        if self.guard is None:
            return self._run(model, step, args, kwargs)
        variables = [variable.value for variable in _running(model)]
        before = [tf.identity(variable) for variable in variables]
        self.guard.skipped_now.assign(False)
        outputs = self._run(model, step, args, kwargs)
        skipped = tf.identity(self.guard.skipped_now)

        def restore() -> None:
            for variable, value in zip(variables, before):
                variable.assign(value)

        tf.cond(skipped, restore, lambda: None)
        if type(model).train_step is not keras.Model.train_step:
            return outputs  # The outputs of a custom step may mean anything.
        # The outputs of Keras's own step are the results of the metrics.
        outputs = tf.nest.map_structure(tf.convert_to_tensor, outputs)
        return tf.cond(skipped, lambda: _like(model.get_metrics_result(), outputs), lambda: outputs)

    def _run(
        self, model: Any, step: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        if self.losses is None:
            return step(*args, **kwargs)
        with self.losses.noting(model):
            return step(*args, **kwargs)


def built(controls: Controls, xla: bool) -> StepControls:
    """Returns the controls that a fit or a loop needs.

    Args:
        controls: The controls that the flags ask for.
        xla: Whether XLA compiles the train step.
    """
    guard = None
    if controls.guard is not None:
        smallest = controls.guard.smallest_norm
        guard = Guard(
            xla=xla,
            enforces=controls.guard.enforces,
            unitwise=smallest is not None,
            smallest=smallest or 0.0,
        )
    return StepControls(
        guard=guard,
        factor=RateFactor(xla) if controls.rate else None,
        losses=LossLog() if controls.losses else None,
    )


def _running(model: Any) -> Iterator[Any]:
    """Yields the variables that the forward pass changes, except frozen ones and seeds."""
    yield from model.metrics_variables
    for layer in flattened(model):
        for variable in own_non_trainable_variables(layer):
            if tf.as_dtype(variable.dtype).is_floating:
                yield variable


def _like(results: Any, outputs: Any) -> Any:
    """Returns the results in the outputs' dtypes if the structures agree; else the outputs."""
    try:
        tf.nest.assert_same_structure(results, outputs)
    except (TypeError, ValueError):
        return outputs
    return tf.nest.map_structure(lambda r, o: tf.cast(r, o.dtype), results, outputs)
