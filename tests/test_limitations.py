"""What is said of requests that a training does not meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_vanish.limitations import limitations


class Adam:
    """Stands for an optimizer: only the name of its class is told."""


class Backend:
    """Has one limitation of its own, and says what it was asked."""

    def __init__(self, one_rate: bool) -> None:
        self.one_rate = one_rate
        self.asked: dict[str, bool] = {}

    def has_one_rate(self, optimizers: Any) -> bool:
        return self.one_rate

    def limitations(
        self, model: Any, optimizers: Any, flags: bool, probe: bool
    ) -> Iterator[tuple[str, str]]:
        self.asked = {"flags": flags, "probe": probe}
        yield "own", "The backend's own."


def found(backend: Any, names: list[str], **asked: bool) -> dict[str, str]:
    given = {"flags": True, "probe": True, "gives_batches": True, **asked}
    return dict(limitations(backend, object(), {name: Adam() for name in names}, **given))


def test_with_one_rate_only_the_backend_has_something_to_say() -> None:
    assert found(Backend(True), ["optimizer"]) == {"own": "The backend's own."}


def test_several_optimizers_are_named() -> None:
    said = found(Backend(False), ["d_optimizer", "g_optimizer"])
    assert list(said) == ["flags", "probe", "own"]
    for about in ("flags", "probe"):
        assert "Received: a model that holds d_optimizer, g_optimizer." in said[about]


def test_one_optimizer_made_of_several_is_named_by_its_class() -> None:
    said = found(Backend(False), ["optimizer"])
    assert list(said) == ["flags", "own"]
    assert "Received: a model that holds a Adam." in said["flags"]


def test_nothing_is_said_of_what_nobody_asked_for() -> None:
    names = ["d_optimizer", "g_optimizer"]
    assert list(found(Backend(False), names, flags=False)) == ["probe", "own"]
    assert list(found(Backend(False), names, probe=False)) == ["flags", "own"]


def test_a_custom_loop_is_not_probed() -> None:
    backend = Backend(True)
    found(backend, ["optimizer"], gives_batches=False)
    assert backend.asked == {"flags": True, "probe": False}
