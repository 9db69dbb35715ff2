"""Data flows one way: a room imports only the rooms before it, and few rooms know a framework."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_vanish

SOURCE = Path(__file__).parents[1] / "keras_vanish"

#: By room, a folder or a file of the package, the rooms that it may import from beside itself.
ROOMS: dict[str, set[str]] = {
    "records": set(),
    "reading": {"records"},
    "diagnosis": {"records"},
    "interventions": {"records", "diagnosis"},
    "capture": {"records"},
    "rescue": {"records", "diagnosis", "interventions", "capture"},
    "logs": {"records", "diagnosis", "interventions"},
    "report": {"records", "diagnosis", "interventions", "logs"},
    "tensorboard_tab": {"records", "diagnosis", "interventions", "logs"},
    "run": {"records", "diagnosis", "interventions", "logs", "capture"},
    "limitations": {"capture"},
    "history": {"records", "diagnosis", "interventions", "logs", "run"},
    "session": {
        "records",
        "diagnosis",
        "interventions",
        "capture",
        "rescue",
        "history",
        "run",
        "limitations",
    },
    "monitor": {
        *("diagnosis", "interventions", "logs", "report"),
        *("capture", "rescue", "history", "session"),
    },
    "demo": {"monitor"},
    "cli": {"diagnosis", "interventions", "logs", "report", "demo", "monitor"},
}

#: The folders that may import a framework, and which: each backend stands in a folder of its own.
FRAMEWORKS: dict[str, set[str]] = {
    "capture/tensorflow": {"keras", "tensorflow"},
    "rescue": {"keras", "tensorflow"},
    # A callback is a subclass of Keras's, and the demo trains a model.
    "monitor.py": {"keras"},
    "demo.py": {"keras"},
}


def imports(code: str) -> Iterator[str]:
    """Every module that a piece of the package imports, wherever in it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports within the package are absolute"
            names = [alias.name for alias in node.names]
            if node.module == "keras_vanish":
                yield from (f"keras_vanish.{keras_vanish._MODULES.get(n, n)}" for n in names)
            else:
                yield str(node.module)


def wrong_imports(path: str, code: str) -> list[str]:
    """What a file imports that its place does not allow.

    Args:
        path: The file, relative to the package, such as `logs/events.py`.
        code: What it holds.
    """
    room = path.partition("/")[0].removesuffix(".py")
    allowed = {room} | ROOMS[room]
    found = []
    for name in imports(code):
        root, *rest = name.split(".")
        if root == "keras_vanish" and rest and rest[0] not in allowed:
            found.append(rest[0])
        if root == "keras_vanish" and room == "capture" and not _own_backend(path, rest):
            found.append(".".join(rest))
        if root in {"keras", "tensorflow", "jax", "torch"} and root not in _frameworks(path):
            found.append(root)
    return found


def _own_backend(path: str, module: list[str]) -> bool:
    """A backend's folder knows what is shared by all, and no other backend."""
    shared = module[:1] != ["capture"] or len(module) < 2 or module[1] == "backend"
    return shared or path.startswith(f"capture/{module[1]}/")


def _frameworks(path: str) -> set[str]:
    return next((known for place, known in FRAMEWORKS.items() if path.startswith(place)), set())


def source_files() -> list[str]:
    paths = sorted(SOURCE.rglob("*.py"))
    return [path.relative_to(SOURCE).as_posix() for path in paths if path.parent != SOURCE] + [
        path.name for path in paths if path.parent == SOURCE and not path.name.startswith("__")
    ]


@pytest.mark.parametrize("path", source_files())
def test_a_file_imports_only_what_its_place_allows(path: str) -> None:
    assert wrong_imports(path, (SOURCE / path).read_text()) == []


def test_every_room_is_named_and_there() -> None:
    rooms = {path.partition("/")[0].removesuffix(".py") for path in source_files()}
    assert rooms == set(ROOMS)


def test_no_two_rooms_import_each_other() -> None:
    for room, before in ROOMS.items():
        assert all(room not in ROOMS[other] for other in before)


@pytest.mark.parametrize(
    ("path", "code", "wrong"),
    [
        ("capture/tensorflow/tap.py", "from keras_vanish.diagnosis import profiles", ["diagnosis"]),
        ("records/readings.py", "def f():\n    from keras_vanish import Diagnosis", ["diagnosis"]),
        ("records/layers.py", "import tensorflow as tf", ["tensorflow"]),
        ("diagnosis/profiles.py", "import keras_vanish.logs.events as events", ["logs"]),
        ("diagnosis/profiles.py", "from keras.layers import Dense", ["keras"]),
        ("interventions/rollback.py", "from keras_vanish.rescue.rescue import Rescue", ["rescue"]),
        ("logs/file_system.py", "from keras_vanish.report.doctor import render", ["report"]),
        ("logs/events.py", "from keras_vanish import GradientMonitor", ["monitor"]),
        ("logs/events.py", "import tensorflow as tf", ["tensorflow"]),
        (
            "report/doctor.py",
            "from keras_vanish.tensorboard_tab import loader",
            ["tensorboard_tab"],
        ),
        ("report/doctor.py", "from keras_vanish.demo import run", ["demo"]),
        ("capture/backend.py", "import keras", ["keras"]),
        ("capture/jax/tap.py", "import tensorflow as tf", ["tensorflow"]),
        (
            "capture/jax/tap.py",
            "from keras_vanish.capture.tensorflow import tap",
            ["capture.tensorflow"],
        ),
        ("session.py", "import tensorflow as tf", ["tensorflow"]),
        ("monitor.py", "import keras\nfrom keras_vanish import logs, session", []),
        ("capture/tensorflow/tap.py", "from keras_vanish.capture.backend import Backend", []),
    ],
)
def test_the_check_of_imports_can_fail(path: str, code: str, wrong: list[str]) -> None:
    assert wrong_imports(path, code) == wrong
