"""Runs a `fit` twice, without and with a monitor, and compares what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import pytest
from fits import assert_identical, state_of

from keras_vanish import GradientMonitor

Array = npt.NDArray[Any]

SCORES = {"vanishing_score", "exploding_score"}


class Run(NamedTuple):
    """What a run leaves: the model, its variables and the optimizer's, the history."""

    model: Any
    variables: list[Array]
    logs: dict[str, list[float]]


class Pair(NamedTuple):
    """Two runs that are the same bit for bit, and the monitor of the second."""

    plain: Run
    monitored: Run
    monitor: GradientMonitor


def _run(
    make: Callable[[], Any], fit: Callable[[Any, list[Any]], Any], callbacks: Sequence[Any] = ()
) -> Run:
    """Trains one model, from the same seed as any other."""
    keras.utils.set_random_seed(1)
    model = make()
    history = fit(model, list(callbacks))
    return Run(model, state_of(model), dict(history.history))


def _check_same(plain: Run, monitored: Run) -> None:
    """The same weights, slots and logs, bit for bit, but for the scores in the logs."""
    assert_identical(plain.variables, monitored.variables)
    assert set(monitored.logs) - set(plain.logs) == SCORES
    for name, values in plain.logs.items():
        np.testing.assert_array_equal(values, monitored.logs[name], name)


def _twice(make: Callable[[], Any], fit: Callable[[Any, list[Any]], Any], **options: Any) -> Pair:
    """Runs `fit(make(), callbacks)` without and with a monitor, and checks that they agree.

    Args:
        make: Gives a compiled model.
        fit: Trains it with these callbacks, and returns its `History`.
        **options: Those of the monitor.
    """
    monitor = GradientMonitor(**{"log_dir": None, "update_freq": 1, **options})
    pair = Pair(_run(make, fit), _run(make, fit, [monitor]), monitor)
    _check_same(pair.plain, pair.monitored)
    return pair


@pytest.fixture(scope="session")
def twice() -> Callable[..., Pair]:
    """The function `twice(make, fit, **options)`."""
    return _twice


@pytest.fixture(scope="session")
def run_once() -> Callable[..., Run]:
    """The function `run_once(make, fit, callbacks=())`."""
    return _run


@pytest.fixture(scope="session")
def check_same() -> Callable[[Run, Run], None]:
    """The function `check_same(plain, monitored)`."""
    return _check_same
