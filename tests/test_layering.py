"""Data flows one way: no module imports what stands to its right."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_vanish

SOURCE = Path(__file__).parents[1] / "keras_vanish"

#: Where a file stands in the flow of data; what is not named stands beside `events`.
ROOMS = {
    "capture": 0,
    "topology": 0,
    "follow": 0,
    "kernel_start": 0,
    "pretrained": 0,
    "recurrent_start": 0,
    "reinitialize": 0,
    "snapshot": 0,
    "reading": 1,
    "scores": 2,
    "advice": 3,
    "diagnosis": 4,
    "interventions": 5,
    "monitor": 7,
    "demo": 8,
    "cli": 9,
}
BESIDE_EVENTS = 6
WITH_TENSORFLOW = {
    "capture",
    "demo",
    "follow",
    "kernel_start",
    "monitor",
    "pretrained",
    "recurrent_start",
    "reinitialize",
    "rescue",
    "snapshot",
    "track",
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


def against_the_flow(room: str, code: str) -> list[str]:
    place = ROOMS.get(room, BESIDE_EVENTS)
    rooms = [name.split(".")[1] for name in imports(code) if name.startswith("keras_vanish.")]
    found = [other for other in rooms if ROOMS.get(other, BESIDE_EVENTS) > place]
    if room not in WITH_TENSORFLOW:
        roots = [name.partition(".")[0] for name in imports(code)]
        found += [root for root in roots if root in {"keras", "tensorflow"}]
    return found


def source_files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_import_nothing_right_of_them(path: Path) -> None:
    room = path.relative_to(SOURCE).with_suffix("").parts[0]
    assert against_the_flow(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "code", "wrong"),
    [
        ("capture", "from keras_vanish.reading import Reading", ["reading"]),
        ("capture", "def f():\n    from keras_vanish import diagnosis", ["diagnosis"]),
        ("reading", "from keras_vanish import Diagnosis", ["diagnosis"]),
        ("scores", "from keras_vanish.advice import advice", ["advice"]),
        ("advice", "from keras_vanish.diagnosis import diagnose", ["diagnosis"]),
        ("diagnosis", "import keras_vanish.events as events", ["events"]),
        ("events", "from keras_vanish.monitor import GradientMonitor", ["monitor"]),
        ("events", "import tensorflow as tf", ["tensorflow"]),
        ("doctor", "from keras_vanish.demo import run", ["demo"]),
        ("interventions", "from keras_vanish.rescue import Rescue", ["rescue"]),
        ("reinitialize", "from keras_vanish.reading import Reading", ["reading"]),
        ("diagnosis", "from keras.layers import Dense", ["keras"]),
        ("monitor", "import keras\nfrom keras_vanish import events, reading", []),
    ],
)
def test_the_check_of_imports_can_fail(room: str, code: str, wrong: list[str]) -> None:
    assert against_the_flow(room, code) == wrong
