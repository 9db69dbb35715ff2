"""Stands in for `model.train_function` for the length of one `fit`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import replaced


class TrainFunction:
    """A model's train function, rebuilt around a wrapped train step.

    Keras keeps the traced step in `model.train_function` and rebuilds it when asked,
    so nothing else of the model is touched. A `fit` that ends with an exception tells no
    callback, and leaves the function behind. So each call is checked: one by another `fit`,
    which has a `History` of its own, or by `train_on_batch` gives the model back its own
    function, and goes there.

    Args:
        model: A compiled Keras model that has a train function.
        wrap: Gives the step to trace for a step such as `model.train_step`.
        wanted: Whether a call is to run the wrapped step; else the model's own function
            runs, or what `wrap_other` gave.
        before: Gives the iterator for a call that takes its batches from another; raises
            StopIteration where that has come to its end.
        after: Called after each call that went well, outside of the graph.
        removed: Called when the model has its own function back.
        wrap_other: Gives the step for the calls that are not wanted.
        after_data: Called after a call in which the data came to their end, maybe after some
            steps.
    """

    def __init__(
        self,
        model: Any,
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
        wanted: Callable[[], bool],
        before: Callable[[Any], Any],
        after: Callable[[], None],
        removed: Callable[[], None],
        wrap_other: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
        after_data: Callable[[], None] = lambda: None,
    ) -> None:
        self._model = model
        self._wanted = wanted
        self._before = before
        self._after = after
        self._removed = removed
        self._after_data = after_data
        self._fit: Any = None
        self.found = model.train_function
        self._wrapped = self._made(wrap(model.train_step))
        self._other = None if wrap_other is None else self._made(wrap_other(model.train_step))
        self._called = self.found

    def _made(self, step: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The step, and a train function of it."""
        try:
            with self._in_place(step):
                self._model.make_train_function(force=True)
            return step, self._model.train_function
        finally:
            self._model.train_function = self.found

    def _in_place(self, step: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
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
        self._removed()

    def __call__(self, iterator: Any) -> Any:
        # What `train_on_batch` passes is a generator.
        if _fit_of(self._model) is not self._fit or inspect.isgenerator(iterator):
            self.remove()
            return self.found(iterator)
        try:
            outputs = self._call(self._before(iterator))
        except (StopIteration, tf.errors.OutOfRangeError):
            # The data have come to their end: no failure.
            self._after_data()
            raise
        except BaseException:
            self.remove()
            raise
        self._after()
        return outputs

    def __getattr__(self, name: str) -> Any:
        # Such as those by which Keras's TensorBoard callback finds the graph of the train step.
        if name.startswith("__") or "_called" not in vars(self):
            raise AttributeError(name)
        return getattr(self._called, name)

    def _call(self, iterator: Any) -> Any:
        made = self._wrapped if self._wanted() else self._other
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
