"""One call of `optimizer.apply` within a train step, as the tap sees it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.graph.recompute import barred, ends_elementwise, repeated
from keras_vanish.capture.tensorflow.private_names import call_counter, strategy_of


def iterations_variable(optimizer: Any) -> Any:
    """Returns the `tf.Variable` that counts the calls of the innermost `optimizer.apply`."""
    return call_counter(optimizer).value


def build(optimizer: Any, variables: Sequence[Any]) -> None:
    """Creates the slots of an optimizer, as its `apply` does.

    Args:
        optimizer: A Keras optimizer that is not built.
        variables: The variables that it is going to update.
    """
    strategy = strategy_of(optimizer)
    here = strategy is tf.distribute.get_strategy()
    scope = contextlib.nullcontext() if here else strategy.scope()
    with scope, keras.name_scope(optimizer.name, caller=optimizer):
        optimizer.build(list(variables))
    optimizer.built = True


def of_values(gradient: Any, function: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """Returns a gradient with other values. A sparse gradient stays sparse.

    Args:
        gradient: A tensor or `IndexedSlices`.
        function: Returns the new values, of the same shape.
    """
    if isinstance(gradient, tf.IndexedSlices):
        values = function(gradient.values)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return function(gradient)


class Readable(NamedTuple):
    """The gradients that can be read, among those that an optimizer receives.

    Attributes:
        places: The indices of the readable gradients. A gradient is not readable if it is None, is
            empty or overwrites its variable.
        trained: The variables of the readable gradients.
        missing: The other variables.
    """

    places: list[int]
    trained: list[Any]
    missing: list[Any]


def readable(grads: Sequence[Any], variables: Sequence[Any]) -> Readable:
    """Finds the gradients that can be read.

    Args:
        grads: A gradient or None for each variable.
        variables: The variables.
    """
    places = [
        place
        for place, (gradient, variable) in enumerate(zip(grads, variables))
        if gradient is not None
        and 0 not in variable.shape
        and not getattr(variable, "overwrite_with_gradient", False)
    ]
    trained = [variables[place] for place in places]
    tapped = {id(variable) for variable in trained}
    missing = [variable for variable in variables if id(variable) not in tapped]
    return Readable(places, trained, missing)


def recorded_when(due: tf.Tensor | None, record: Callable[[], None]) -> bool:
    """Adds a recording to the steps that are due. Returns whether that succeeded.

    Args:
        due: A bool scalar; None for every step.
        record: Records one step.

    Returns:
        True if the recording could be built. Otherwise, a warning gives the reason.
    """
    try:
        if due is None:
            record()
        else:
            tf.cond(due, record, lambda: None)
    except Exception as error:
        # The training must not fail because of the monitor, whatever the gradient is.
        warnings.warn(
            f"GradientMonitor cannot read these gradients: {error!r}. Training goes on without.",
            stacklevel=2,
        )
        return False
    return True


def read_again(tensors: Sequence[Any], barrier: bool = False) -> list[Any]:
    """Returns the same values, computed again where the graph optimizer would notice a reader.

    If XLA does not compile the step, the caller must be within a branch of a `tf.cond`.

    Args:
        tensors: Tensors or `IndexedSlices`.
        barrier: Whether XLA compiles the step.
    """
    return list(tensors) if tf.executing_eagerly() else repeated(tensors, barrier=barrier)


@dataclass(frozen=True)
class Update:
    """The gradients of one call of `optimizer.apply`.

    Attributes:
        optimizer: The innermost optimizer, built.
        untapped: The optimizer's own `apply`.
        grads: All gradients that `apply` received.
        trainable_variables: The variables that `apply` received, or None.
        places: The indices in `grads` of the gradients that are read.
        given: The gradients at these indices, unchanged. They are scaled if the optimizer scales
            the loss.
        gradients: The same gradients unscaled. With gradient accumulation, they are averaged with
            the accumulated ones.
        weights: The `tf.Variable` of each of these gradients.
        accumulated: The `tf.Variable` of each accumulator; empty without gradient accumulation.
        last: Whether this call updates the weights, a bool scalar; None if every call does.
        xla: Whether XLA compiles the step.
    """

    optimizer: Any
    untapped: Callable[..., Any]
    grads: Sequence[Any]
    trainable_variables: Sequence[Any] | None
    places: Sequence[int]
    given: Sequence[Any]
    gradients: Sequence[Any]
    weights: Sequence[Any]
    accumulated: Sequence[Any]
    last: tf.Tensor | None
    xla: bool

    def apply(self, given: Sequence[Any]) -> None:
        """Makes the optimizer apply these gradients instead of `given`."""
        grads = list(self.grads)
        for place, gradient in zip(self.places, given):
            grads[place] = gradient
        self.untapped(grads, self.trainable_variables)

    def apply_as_given(self) -> None:
        """Makes the optimizer apply the unchanged gradients, within a branch of `tf.cond`.

        XLA stores the inputs of a branch. So the branch computes the gradients again, and the
        update is bit for bit the same as without a branch.
        """
        self.apply(self.again(self.given))

    def repeats(self) -> bool:
        """Returns whether `again` computes any of the gradients a second time."""
        return not tf.executing_eagerly() and any(map(ends_elementwise, self.gradients))

    def again(self, tensors: Sequence[Any]) -> list[Any]:
        """Returns the same values, as `read_again` does."""
        return read_again(tensors, barrier=self.xla)

    def count(self) -> None:
        """Counts the call without an update."""
        iterations_variable(self.optimizer).assign_add(1)

    def rate(self) -> tf.Tensor:
        """Returns the learning rate, a scalar tensor."""
        return tf.convert_to_tensor(self.optimizer.learning_rate)

    def read_weights(self) -> list[tf.Tensor]:
        """Returns the present values of the trained weights."""
        tensors = [tf.convert_to_tensor(weight) for weight in self.weights]
        return barred(tensors) if self.xla else tensors

    def scale_accumulated(self, factor: tf.Tensor) -> None:
        """Multiplies the accumulated gradients by a scalar."""
        for variable in self.accumulated:
            variable.assign(variable * tf.cast(factor, variable.dtype))
