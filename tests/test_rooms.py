"""Tests mirror the package: whoever reads a file knows where its tests are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "keras_vanish"


def sources(package: Path = SOURCE) -> Iterator[str]:
    """Every source file but those that only make a folder a package."""
    for path in sorted(package.rglob("*.py")):
        if path.name != "__init__.py":
            yield path.relative_to(package).as_posix()


def place(source: str) -> str:
    """Where the tests of a source file stand, relative to `tests/`."""
    folder, _, name = source.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


@pytest.mark.parametrize("source", list(sources()))
def test_a_source_file_has_a_test_file_of_its_name(source: str) -> None:
    assert (TESTS / place(source)).is_file(), place(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("run.py", "test_run.py"),
        ("capture/tensorflow/tap.py", "capture/tensorflow/test_tap.py"),
    ],
)
def test_where_tests_stand(source: str, expected: str) -> None:
    assert place(source) == expected


def test_the_check_sees_every_file_of_the_package(tmp_path: Path) -> None:
    assert {"session.py", "rescue/rescue.py", "capture/tensorflow/graph/data_flow.py"} <= set(
        sources()
    )
    (tmp_path / "room").mkdir()
    for name in ("__init__.py", "new.py", "room/__init__.py", "room/newer.py", "room/data.txt"):
        (tmp_path / name).write_text("")
    assert list(sources(tmp_path)) == ["new.py", "room/newer.py"]
