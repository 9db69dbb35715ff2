"""What acts within every train step, where a flag asks for it."""

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
    """The parts that are built into a train step; None for what nobody asked for.

    Attributes:
        guard: Clips gradients, and skips those that are not finite.
        factor: Multiplies the learning rate.
        losses: Notes the loss.
    """

    guard: Guard | None = None
    factor: RateFactor | None = None
    losses: LossLog | None = None

    @property
    def empty(self) -> bool:
        """Whether a train step is left as it is."""
        return self.guard is None and self.factor is None and self.losses is None

    def run(
        self, model: Any, step: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Runs or traces one train step.

        A step that is skipped leaves running means as they were, too: those of metrics and of
        normalisation layers. One NaN would stay there.
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
            return outputs  # Its own, whatever they mean.
        # What Keras returns are the metrics' results.
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
    """Makes the parts that a fit or a loop asks for.

    Args:
        controls: What the flags ask for.
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
    """What the forward pass itself changes, without what is frozen and the states of seeds."""
    yield from model.metrics_variables
    for layer in flattened(model):
        for variable in own_non_trainable_variables(layer):
            if tf.as_dtype(variable.dtype).is_floating:
                yield variable


def _like(results: Any, outputs: Any) -> Any:
    """The results, if they are what the step returned, structure and dtypes; else its outputs."""
    try:
        tf.nest.assert_same_structure(results, outputs)
    except (TypeError, ValueError):
        return outputs
    return tf.nest.map_structure(lambda r, o: tf.cast(r, o.dtype), results, outputs)
