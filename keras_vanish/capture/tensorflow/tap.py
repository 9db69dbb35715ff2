"""Reads the gradients that a Keras optimizer receives, while a train step is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import replaced
from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.capture.tensorflow.control.rate_factor import RateFactor
from keras_vanish.capture.tensorflow.distributed_tap import tap_sum
from keras_vanish.capture.tensorflow.graph.recompute import OURS
from keras_vanish.capture.tensorflow.private_names import (
    accumulator,
    clipped_by,
    strategy_of,
    variables_to_train,
)
from keras_vanish.capture.tensorflow.recorder import Recorder
from keras_vanish.capture.tensorflow.strategies import clips, reduces_gradients
from keras_vanish.capture.tensorflow.update import (
    Update,
    build,
    iterations_variable,
    of_values,
    readable,
    recorded_when,
)

#: The type of a function that is called while a step is traced, once for each call of `apply`. It
#: receives the variables that have a gradient and those that have none, and returns the recorder.
#: None leaves that call unrecorded.
RecorderFor = Callable[[list[Any], list[Any]], "Recorder | None"]


def unwrapped(optimizer: Any) -> Any:
    """Returns the optimizer that updates the weights, inside any loss-scaling wrappers.

    A `LossScaleOptimizer` gives that optimizer unscaled gradients, and only finite ones.
    """
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


@contextlib.contextmanager
def tap(
    optimizer: Any,
    recorder_for: RecorderFor,
    probe: Callable[[], tf.Tensor | None] = lambda: None,
    guard: Guard | None = None,
    factor: RateFactor | None = None,
) -> Iterator[None]:
    """Records the gradients that pass through `optimizer.apply` within the `with` block.

    The optimizer is unchanged outside of the block. In a `tf.function`, the block only needs to be
    open during tracing, because the graph keeps the added operations.

    If replicas sum their gradients, nothing may change the gradients of a single replica. `guard`
    and `factor` are then ignored.

    Args:
        optimizer: A Keras optimizer.
        recorder_for: Returns the recorder for the trained variables.
        probe: Returns a float32 vector that is recorded with the gradients. It is called where the
            gradients are read: on recorded steps only, before the update.
        guard: Clips or skips gradients, at every step.
        factor: Multiplies the learning rate.
    """
    inner = unwrapped(optimizer)
    if reduces_gradients(strategy_of(inner)) or reduces_gradients(tf.distribute.get_strategy()):
        with tap_sum(inner, recorder_for, probe):
            yield
        return
    untapped = inner.apply

    def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:
        _apply_and_record(
            inner, untapped, list(grads), trainable_variables, recorder_for, probe, guard, factor
        )

    with replaced(inner, "apply", apply):
        yield


def _apply_and_record(
    optimizer: Any,
    untapped: Callable[..., Any],
    grads: list[Any],
    trainable_variables: Sequence[Any] | None,
    recorder_for: RecorderFor,
    probe: Callable[[], tf.Tensor | None],
    guard: Guard | None,
    factor: RateFactor | None,
) -> None:
    # This function is long on purpose. The bits of the trained weights depend on the order of these
    # statements, on the contents of each branch, and on the place of each read. Smaller functions
    # would hide that order.
    if not optimizer.built:
        if trainable_variables is None:
            untapped(grads)  # Keras raises an error that says what is wrong.
            return
        # Gradient accumulators only exist after the optimizer is built.
        made = len(optimizer.variables)
        build(optimizer, trainable_variables)
        if len(optimizer.variables) > made and not tf.executing_eagerly():
            # A `tf.function` that has made variables is traced again. This trace is thrown away.
            untapped(grads, trainable_variables)
            return
    variables = list(trainable_variables or variables_to_train(optimizer))
    places, trained, missing = readable(grads, variables)
    recorder = recorder_for(trained, missing) if places else None
    if guard is not None and not (places and guard.knows(trained)):
        guard = None
    if not places or (recorder is None and guard is None and factor is None):
        untapped(grads, trainable_variables)
        return

    iterations = tf.cast(tf.identity(iterations_variable(optimizer)), tf.int64)
    steps = optimizer.gradient_accumulation_steps or 1
    number = iterations // steps
    last = (iterations + 1) % steps == 0 if steps > 1 else None
    xla = any(part.xla for part in (recorder, guard, factor) if part is not None)
    update = _update(optimizer, untapped, grads, trainable_variables, places, trained, last, xla)
    check = None if guard is None else guard.check(update, factor)

    recorded, due, half = False, None, None
    if recorder is not None:
        # Only a branch of its own separates the repeated computation of the gradients from the
        # optimizer's computation.
        acts = guard is not None or factor is not None or clips(optimizer)
        apart = not xla and (acts or update.repeats())
        due = None if recorder.always and not apart else recorder.due(number)
        if last is not None:
            due = last if due is None else tf.logical_and(due, last)

        # The probe computes much the same as the training, so it always runs in a branch. Here it
        # has one of its own. The branch is taken at every step, but the graph optimizer cannot know
        # that.
        alone = due is None and not xla

        def look() -> None:
            recorder.keep_probed(probe())

        def before() -> None:
            nonlocal half
            if not alone:
                look()
            seen = clipped = update.again(update.gradients)
            weights = update.read_weights()
            if guard is not None and check is not None:
                clipped = guard.clipped(check, seen, weights)
            if clips(optimizer):
                clipped = clipped_by(optimizer, clipped)
            read = recorder.before(seen, None if clipped is seen else clipped, weights)
            if due is None:
                half = read
            else:
                recorder.keep(read)

        looked = not alone or recorded_when(number >= 0, look)
        recorded = looked and recorded_when(due, before)
    if guard is not None and check is not None:
        guard.apply(update, check, factor)
    elif factor is not None:
        factor.apply(update)
    else:
        untapped(grads, trainable_variables)
    if recorder is not None and recorded:
        recorded_when(due, lambda: recorder.after(number, update.read_weights(), half))


def _update(
    optimizer: Any,
    untapped: Callable[..., Any],
    grads: list[Any],
    trainable_variables: Sequence[Any] | None,
    places: list[int],
    trained: list[Any],
    last: tf.Tensor | None,
    xla: bool,
) -> Update:
    given = [grads[place] for place in places]
    gradients = [_unscaled(gradient, optimizer.loss_scale_factor) for gradient in given]
    accumulated = []
    if last is not None:
        accumulated = [accumulator(optimizer, variable).value for variable in trained]
        steps = optimizer.gradient_accumulation_steps
        with tf.name_scope(OURS):
            gradients = [
                (tf.convert_to_tensor(g) + tf.identity(a)) / tf.cast(steps, a.dtype)
                for g, a in zip(gradients, accumulated)
            ]
    return Update(
        optimizer=optimizer,
        untapped=untapped,
        grads=grads,
        trainable_variables=trainable_variables,
        places=places,
        given=given,
        gradients=gradients,
        weights=[getattr(variable, "value", variable) for variable in trained],
        accumulated=accumulated,
        last=last,
        xla=xla and not tf.executing_eagerly(),
    )


def _unscaled(gradient: Any, factor: float | None) -> Any:
    return gradient if factor is None else of_values(gradient, lambda values: values / factor)
