"""Stands in for `model.train_function` for the length of one `fit`."""

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
    """What takes part in the calls of a train function."""

    def wrap(self, step: Step) -> Step:
        """Gives the step to trace in place of the model's own."""

    def wrap_other(self, step: Step) -> Step | None:
        """Gives the step for calls that are not `wanted`; None where the model's own one runs."""

    def wanted(self) -> bool:
        """Whether the next call is to run the step that `wrap` gave."""

    def before_call(self, batches: Any) -> Any:
        """Gives the iterator for a call; raises StopIteration at the end of the data."""

    def after_call(self) -> None:
        """Is told, outside of the graph, that a call has ended well."""

    def after_data(self) -> None:
        """Is told that a call has met the end of the data, perhaps after some steps."""

    def removed(self) -> None:
        """Is told that the model has its own function back."""


class TrainFunction:
    """A model's train function, rebuilt around a wrapped train step.

    Keras keeps the traced step in `model.train_function` and rebuilds it when asked, so nothing
    else of the model is touched. A `fit` that ends with an exception tells no callback and leaves
    this function behind. So each call is checked. A call by another `fit`, which has a `History`
    of its own, or by `train_on_batch` gives the model its own function back and runs that one.

    Args:
        model: A compiled Keras model that has a train function.
        guest: Gives the steps to trace, and is told about each call.
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
        """The step, and a train function of it."""
        try:
            with self._in_place(step):
                self._model.make_train_function(force=True)
            return step, self._model.train_function
        finally:
            self._model.train_function = self.found

    def _in_place(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Keras looks up `model.train_step` here or, before 3.6, when it is traced."""
        return replaced(self._model, "train_step", step)

    def install(self) -> None:
        """Takes the place of the model's train function, for the `fit` that begins."""
        self._fit = _fit_of(self._model)
        self._model.train_function = self

    def remove(self) -> None:
        """Gives the model back the function that was found."""
        if self._model.train_function is self:
            self._model.train_function = self.found
        self._guest.removed()

    def __call__(self, iterator: Any) -> Any:
        # What `train_on_batch` passes is a generator.
        if _fit_of(self._model) is not self._fit or inspect.isgenerator(iterator):
            self.remove()
            return self.found(iterator)
        try:
            outputs = self._call(self._guest.before_call(iterator))
        except (StopIteration, tf.errors.OutOfRangeError):
            # The data have come to their end: no failure.
            self._guest.after_data()
            raise
        except BaseException:
            self.remove()
            raise
        self._guest.after_call()
        return outputs

    def __getattr__(self, name: str) -> Any:
        # Such as those by which Keras's TensorBoard callback finds the graph of the train step.
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
    """Removes a train function that a `fit` left behind which ended with an exception.

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
    """What tells one `fit` of a model from another."""
    return getattr(model, "history", None)
