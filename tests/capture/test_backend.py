"""The seam: which backends there are, and that TensorFlow's parts have all that it asks for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import fake_backend
import keras
import pytest

from keras_vanish.capture import backend
from keras_vanish.capture.tensorflow import installation
from keras_vanish.capture.tensorflow import snapshot as snapshots
from keras_vanish.capture.tensorflow.backend import TensorFlowBackend
from keras_vanish.capture.tensorflow.capture import Capture
from keras_vanish.capture.tensorflow.control import guard, loss_log, rate_factor, step_controls

#: The class that stands for each Protocol: TensorFlow's, and that in plain Python.
CLASSES: dict[type, tuple[type, type]] = {
    backend.Backend: (TensorFlowBackend, fake_backend.FakeBackend),
    backend.Installation: (installation.Installation, fake_backend.FakeInstallation),
    backend.Loop: (installation.Loop, fake_backend.FakeLoop),
    backend.Recording: (Capture, fake_backend.FakeRecording),
    backend.StepControls: (step_controls.StepControls, fake_backend.FakeControls),
    backend.Guard: (guard.Guard, fake_backend.FakeGuard),
    backend.GuardLog: (guard.GuardLog, fake_backend.FakeGuardLog),
    backend.RateFactor: (rate_factor.RateFactor, fake_backend.FakeFactor),
    backend.LossLog: (loss_log.LossLog, fake_backend.FakeLosses),
    backend.Snapshot: (snapshots.Snapshot, fake_backend.FakeSnapshot),
}


def members(protocol: type) -> dict[str, Any]:
    """What a Protocol asks for, also by way of those that it extends."""
    own = [base for base in reversed(protocol.__mro__) if base.__module__ == backend.__name__]
    found = {name: value for base in own for name, value in vars(base).items()}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def assigned(found: type) -> set[str]:
    """The attributes that a class has, or gives to its objects in its methods."""
    names = set(dir(found))
    for base in (base for base in found.__mro__ if base.__module__ != "builtins"):
        names |= set(vars(base).get("__annotations__", {}))
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if getattr(node.value, "id", "") == "self" else set()
    return names


def wrong_members(protocol: type, found: type) -> Iterator[str]:
    """What a class lacks of a Protocol, or has with other parameters."""
    has = assigned(found)
    for name, asked in members(protocol).items():
        given = inspect.getattr_static(found, name, None)
        if name not in has:
            yield f"{name} is missing"
        elif isinstance(asked, property) == inspect.isfunction(given):
            yield f"{name} is a method, or should be one"
        elif inspect.isfunction(asked) and parameters(asked) != parameters(given):
            yield f"{name}{parameters(given)}, not {name}{parameters(asked)}"


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("protocol", CLASSES, ids=lambda protocol: protocol.__name__)
@pytest.mark.parametrize("place", [0, 1], ids=["tensorflow", "fake"])
def test_a_class_has_what_its_protocol_asks_for(protocol: type, place: int) -> None:
    assert list(wrong_members(protocol, CLASSES[protocol][place])) == []


def test_every_protocol_that_a_backend_stands_for_is_held_against_it() -> None:
    protocols = {
        value
        for value in vars(backend).values()
        if getattr(value, "_is_protocol", False) and value.__module__ == backend.__name__
    }
    # `session.py` is told by the hooks; `Watched` is what two others share.
    assert protocols - set(CLASSES) == {backend.FitHooks, backend.Watched}


def test_the_session_is_a_hook() -> None:
    from keras_vanish.session import Session

    assert list(wrong_members(backend.FitHooks, Session)) == []


class Whole:
    def __init__(self) -> None:
        self.optimizer, self.traced = None, True
        self.layers: list[Any] = []

    awaited = False

    def arm(self) -> None: ...
    def updates(self) -> int: ...  # type: ignore[empty-body]
    def count(self, steps: int) -> bool: ...  # type: ignore[empty-body]
    def read(self) -> list[Any]: ...  # type: ignore[empty-body]


class Lacks(Whole):
    read = property(lambda self: [])  # type: ignore[assignment]
    arm = None  # type: ignore[assignment]

    def count(self, calls: int) -> bool: ...  # type: ignore[empty-body]

    def awaited(self) -> bool: ...  # type: ignore


class Empty:
    pass


def test_the_check_of_members_can_fail() -> None:
    assert list(wrong_members(backend.Recording, Whole)) == []
    assert list(wrong_members(backend.Recording, Lacks)) == [
        "awaited is a method, or should be one",
        "arm is a method, or should be one",
        "count['self', 'calls'], not count['self', 'steps']",
        "read is a method, or should be one",
    ]
    assert list(wrong_members(backend.Snapshot, Empty)) == [
        "restore is missing",
        "finite is missing",
    ]
    assert list(wrong_members(backend.Installation, Empty))[:2] == [
        "recordings is missing",
        "main is missing",
    ]


def test_tensorflow_is_there() -> None:
    assert isinstance(backend.load("tensorflow"), TensorFlowBackend)
    assert backend.load("tensorflow") is backend.load("tensorflow")
    assert isinstance(backend.load(keras.backend.backend()), TensorFlowBackend)


@pytest.mark.parametrize("name", ["jax", "torch", "", "keras_vanish"])
def test_another_backend(name: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        backend.load(name)
    assert str(caught.value) == (
        "GradientMonitor works in TensorFlow's train step only. Received: Keras backend "
        f"{name!r}. Set KERAS_BACKEND=tensorflow before Keras is imported."
    )
