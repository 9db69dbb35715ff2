"""What a `fit` leaves, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish import GradientMonitor

Array = npt.NDArray[Any]


def steps(monitor: GradientMonitor) -> list[int]:
    """The steps that were recorded."""
    return [diagnosis.step for diagnosis in monitor.history]


def state_of(model: Any) -> list[Array]:
    """All variables of a model and of its optimizer."""
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def assert_identical(one: Iterable[Any], other: Iterable[Any]) -> None:
    """As many arrays here as there, equal bit for bit."""
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def fitting(x: Any, y: Any, **options: Any) -> Callable[..., Any]:
    """A function that fits a model to these data, with the callbacks that it is given."""
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return lambda model, callbacks: model.fit(x, y, callbacks=callbacks, **options)
