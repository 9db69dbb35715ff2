"""Replaces `model.train_function` during one `fit`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import replaced

#: A train step, such as `model.train_step`.
Step = Callable[..., Any]


class Guest(Protocol):
    """An object that takes part in the calls of a train function."""

    def wrap(self, step: Step) -> Step:
        """Returns the step to trace instead of the model's own."""

    def wrap_other(self, step: Step) -> Step | None:
        """Returns the step for calls that are not `wanted`; None to use the model's own step."""

    def wanted(self) -> bool:
        """Returns whether the next call must run the step from `wrap`."""

    def before_call(self, batches: Any) -> Any:
        """Returns the iterator for a call.

        Raises:
            StopIteration: If the data have ended.
        """

    def after_call(self) -> None:
        """Is called outside of the graph after a call that succeeded."""

    def after_data(self) -> None:
        """Is called when a call reaches the end of the data, perhaps after some steps."""

    def removed(self) -> None:
        """Is called when the model has its own train function again."""


class TrainFunction:
    """A model's train function, rebuilt around a wrapped train step.

    Keras keeps the traced step in `model.train_function` and rebuilds it on demand, so nothing else
    in the model changes. A `fit` that ends with an exception tells no callback, and leaves this
    function behind. So each call checks who is calling. A call by `train_on_batch`, or by another
    `fit` with a `History` of its own, restores the model's own function and runs that one.

    Args:
        model: A compiled Keras model that has a train function.
        guest: The object that provides the steps to trace, and is told about each call.

    Attributes:
        found: The model's own train function.
    """

    def __init__(self, model: Any, guest: Guest) -> None:
        self._model = model
        self._guest = guest
        self._fit: Any = None
        self.found = model.train_function
        self._wrapped = self._made(guest.wrap(model.train_step))
        other = guest.wrap_other(model.train_step)
        self._other = None if other is None else self._made(other)
        self._called = self.found

    def _made(self, step: Step) -> tuple[Step, Callable[..., Any]]:
        """Returns the step and a train function that runs it."""
        try:
            with self._in_place(step):
                self._model.make_train_function(force=True)
            return step, self._model.train_function
        finally:
            self._model.train_function = self.found

    def _in_place(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the step replaces `model.train_step`.

        Keras looks up `model.train_step` when it builds the function or, before version 3.6, when
        it traces it.
        """
        return replaced(self._model, "train_step", step)

    def install(self) -> None:
        """Replaces the model's train function for the `fit` that begins."""
        self._fit = _fit_of(self._model)
        self._model.train_function = self

    def remove(self) -> None:
        """Restores the function that the model had before."""
        if self._model.train_function is self:
            self._model.train_function = self.found
        self._guest.removed()

    def __call__(self, iterator: Any) -> Any:
        # `train_on_batch` passes a generator.
        if _fit_of(self._model) is not self._fit or inspect.isgenerator(iterator):
            self.remove()
            return self.found(iterator)
        try:
            outputs = self._call(self._guest.before_call(iterator))
        except (StopIteration, tf.errors.OutOfRangeError):
            # The end of the data is no failure.
            self._guest.after_data()
            raise
        except BaseException:
            self.remove()
            raise
        self._guest.after_call()
        return outputs

    def __getattr__(self, name: str) -> Any:
        # For example, Keras's TensorBoard callback finds the graph of the train step by such
        # attributes.
        if name.startswith("__") or "_called" not in vars(self):
            raise AttributeError(name)
        return getattr(self._called, name)

    def _call(self, iterator: Any) -> Any:
        made = self._wrapped if self._guest.wanted() else self._other
        if made is None:
            self._called = self.found
            return self.found(iterator)
        step, self._called = made
        with self._in_place(step):
            return self._called(iterator)


def clear_leftover(model: Any) -> None:
    """Removes the train function of an earlier `fit` that ended with an exception.

    Raises:
        RuntimeError: If another monitor takes part in the `fit` that begins.
    """
    function = model.train_function
    if not isinstance(function, TrainFunction):
        return
    if function._fit is _fit_of(model):
        raise RuntimeError(
            "One GradientMonitor watches a fit. Received: two in callbacks. Remove one, or "
            "combine what they do: on_diagnosis is called with each reading."
        )
    function.remove()


def _fit_of(model: Any) -> Any:
    """Returns an object that differs between two fits of a model."""
    return getattr(model, "history", None)
