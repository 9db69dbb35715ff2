"""One call of `optimizer.apply` within a train step, as the tap finds it."""

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
    """Gives the `tf.Variable` that counts the calls of the innermost `optimizer.apply`."""
    return call_counter(optimizer).value


def build(optimizer: Any, variables: Sequence[Any]) -> None:
    """Makes the slots of an optimizer, as its `apply` does.

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
    """Gives a gradient other values. A sparse gradient stays sparse.

    Args:
        gradient: A tensor or `IndexedSlices`.
        function: Gives the new values, of the same shape.
    """
    if isinstance(gradient, tf.IndexedSlices):
        values = function(gradient.values)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return function(gradient)


class Readable(NamedTuple):
    """The gradients that can be read, of those that an optimizer is given.

    Attributes:
        places: Their places. A gradient that is None, empty or overwrites its variable cannot be
            read.
        trained: The variables of the gradients that can be read.
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
    """Builds what records on the steps that are due.

    Args:
        due: A bool scalar; None for every step.
        record: Records one step.

    Returns:
        Whether that could be built. If it could not, a warning says why.
    """
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


def read_again(tensors: Sequence[Any], barrier: bool = False) -> list[Any]:
    """Gives the same values, computed again where a graph's optimizer would notice a reader.

    Where XLA does not compile the step, the caller must be within a branch of a `tf.cond`.

    Args:
        tensors: Tensors or `IndexedSlices`.
        barrier: Whether XLA compiles the step.
    """
    return list(tensors) if tf.executing_eagerly() else repeated(tensors, barrier=barrier)


@dataclass(frozen=True)
class Update:
    """Gradients on their way into an optimizer.

    Attributes:
        optimizer: The innermost optimizer, built.
        untapped: Its own `apply`.
        grads: All gradients, as `apply` was given them.
        trainable_variables: The variables that `apply` was given, or None.
        places: The places in `grads` of the gradients that are read.
        given: The gradients at these places as they were given. They are scaled if the optimizer
            scales the loss.
        gradients: The same gradients unscaled. With gradient accumulation, they are averaged with
            what has been accumulated.
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
        """Lets the optimizer apply these gradients instead of `given`."""
        grads = list(self.grads)
        for place, gradient in zip(self.places, given):
            grads[place] = gradient
        self.untapped(grads, self.trainable_variables)

    def apply_as_given(self) -> None:
        """Lets the optimizer apply the gradients as they are, within a branch of `tf.cond`.

        XLA stores what enters a branch. The gradients are computed again in the branch, so that the
        update is bit for bit what it is without a branch.
        """
        self.apply(self.again(self.given))

    def repeats(self) -> bool:
        """Tells whether `again` computes any of the gradients once more."""
        return not tf.executing_eagerly() and any(map(ends_elementwise, self.gradients))

    def again(self, tensors: Sequence[Any]) -> list[Any]:
        """Gives the same values, as `read_again` does."""
        return read_again(tensors, barrier=self.xla)

    def count(self) -> None:
        """Counts the call without an update."""
        iterations_variable(self.optimizer).assign_add(1)

    def rate(self) -> tf.Tensor:
        """Gives the learning rate, a scalar."""
        return tf.convert_to_tensor(self.optimizer.learning_rate)

    def read_weights(self) -> list[tf.Tensor]:
        """Reads the trained weights as they are now."""
        tensors = [tf.convert_to_tensor(weight) for weight in self.weights]
        return barred(tensors) if self.xla else tensors

    def scale_accumulated(self, factor: tf.Tensor) -> None:
        """Multiplies the accumulated gradients by a scalar."""
        for variable in self.accumulated:
            variable.assign(variable * tf.cast(factor, variable.dtype))
