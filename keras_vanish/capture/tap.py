"""Sees the gradients that a Keras optimizer is given, while a train step is traced."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.recorder import Recorder
from keras_vanish.capture.replica import barred, repeated

#: Called while a step is traced, once a call of `apply`, with the variables that have a
#: gradient and those that have none; None leaves that call alone.
RecorderFor = Callable[[list[Any], list[Any]], "Recorder | None"]


def innermost(optimizer: Any) -> Any:
    """The optimizer that updates the weights, within loss-scaling wrappers.

    A `LossScaleOptimizer` hands it unscaled gradients, and only finite ones.
    """
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def iterations_variable(optimizer: Any) -> Any:
    """The `tf.Variable` that counts the calls of the innermost `optimizer.apply`."""
    # `iterations` itself counts updates from Keras 3.6 on, and calls before.
    counter = getattr(optimizer, "_iterations", None)
    return (optimizer.iterations if counter is None else counter).value


@contextlib.contextmanager
def tap(
    optimizer: Any,
    recorder_for: RecorderFor,
    probe: Callable[[], tf.Tensor | None] = lambda: None,
) -> Iterator[None]:
    """Records what passes through `optimizer.apply` within the `with` block.

    The optimizer is untouched outside of the block. In a `tf.function` the block
    need only be open while the function is traced: what it added to the graph stays.

    Args:
        optimizer: A Keras optimizer.
        recorder_for: Gives the recorder for the trained variables.
        probe: Gives a vector that is recorded with the gradients. It is called where they
            are read: on recorded steps only, before the update.
    """
    inner = innermost(optimizer)
    untapped = inner.apply

    def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:
        _apply_and_record(inner, untapped, list(grads), trainable_variables, recorder_for, probe)

    # Past `__setattr__`, in which Keras tracks what is set.
    attributes = vars(inner)
    missing = object()
    found = attributes.get("apply", missing)
    attributes["apply"] = apply
    try:
        yield
    finally:
        if found is missing:
            del attributes["apply"]
        else:
            attributes["apply"] = found


def _apply_and_record(
    optimizer: Any,
    untapped: Callable[..., Any],
    grads: list[Any],
    trainable_variables: Sequence[Any] | None,
    recorder_for: RecorderFor,
    probe: Callable[[], tf.Tensor | None],
) -> None:
    if not optimizer.built:
        if trainable_variables is None:
            untapped(grads)  # Which says what is wrong.
            return
        # As `apply` does; gradient accumulators are there only afterwards.
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(list(trainable_variables))
        optimizer.built = True
    variables = list(trainable_variables or optimizer._trainable_variables)
    pairs = [
        (gradient, variable)
        for gradient, variable in zip(grads, variables)
        if gradient is not None
        and 0 not in variable.shape
        and not getattr(variable, "overwrite_with_gradient", False)
    ]
    tapped = {id(variable) for _, variable in pairs}
    missing = [variable for variable in variables if id(variable) not in tapped]
    recorder = recorder_for([v for _, v in pairs], missing) if pairs else None
    if recorder is None:
        untapped(grads, trainable_variables)
        return

    gradients, trained = map(list, zip(*pairs))
    weights = [getattr(variable, "value", variable) for variable in trained]
    iterations = tf.cast(tf.identity(iterations_variable(optimizer)), tf.int64)
    steps = optimizer.gradient_accumulation_steps or 1
    update = iterations // steps
    due = None if recorder.always else recorder.due(update)
    if steps > 1:
        last = (iterations + 1) % steps == 0
        due = last if due is None else tf.logical_and(due, last)

    gradients = [_unscaled(g, optimizer.loss_scale_factor) for g in gradients]
    if steps > 1:
        accumulated = [
            tf.identity(optimizer._accumulated_gradients[optimizer._get_variable_index(v)].value)
            for v in trained
        ]
        gradients = [
            (tf.convert_to_tensor(g) + a) / tf.cast(steps, a.dtype)
            for g, a in zip(gradients, accumulated)
        ]
    fused = recorder.xla and not tf.executing_eagerly()

    def read_weights() -> list[tf.Tensor]:
        tensors = [tf.convert_to_tensor(weight) for weight in weights]
        return barred(tensors) if fused else tensors

    def before() -> None:
        # Only recorded steps pay for making a sparse gradient dense.
        seen = [tf.convert_to_tensor(g) for g in (repeated(gradients) if fused else gradients)]
        clips = optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue
        clipped = optimizer._clip_gradients(seen) if clips else None
        recorder.before(update, seen, clipped, read_weights(), probe())

    recorded = _when(due, before)
    untapped(grads, trainable_variables)
    if recorded:
        _when(due, lambda: recorder.after(update, read_weights()))


def _when(due: tf.Tensor | None, record: Callable[[], None]) -> bool:
    """Records on the steps that are due, or on all; whether that could be built."""
    try:
        if due is None:
            record()
        else:
            tf.cond(due, record, lambda: None)
    except Exception as error:
        # Whatever a gradient may be like, training must not fail because of us.
        warnings.warn(
            f"GradientMonitor cannot read these gradients: {error!r}. Training goes on without.",
            stacklevel=2,
        )
        return False
    return True


def _unscaled(gradient: Any, factor: float | None) -> Any:
    if factor is None:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values / factor, gradient.indices, gradient.dense_shape)
    return gradient / factor
