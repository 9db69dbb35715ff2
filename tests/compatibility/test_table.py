"""Each row of docs/compatibility.md names a test, and each test of this folder has a row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "compatibility.md"
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def rows() -> list[list[str]]:
    """The cells of each row of each table, without the headings."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "what you have" and set(row[0]) - set("- ")]


def functions(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


def unknown(text: str) -> list[str]:
    """What a text names as a test, and is none."""
    return [
        f"{file}::{name}"
        for file, name in NAMED.findall(text)
        if not (ROOT / file).is_file() or name not in functions(ROOT / file)
    ]


def test_each_row_names_a_test_that_exists() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert len(row) == 3, row
        assert NAMED.search(row[2]), row
    assert unknown(TABLE.read_text()) == []


@pytest.mark.parametrize(
    "text", ["tests/test_none.py::test_x", "tests/compatibility/test_table.py::test_none"]
)
def test_a_test_that_does_not_exist_is_noticed(text: str) -> None:
    assert unknown(f"| a | b | {text} |") == [text]


def test_each_test_of_compatibility_has_a_row() -> None:
    named = set(NAMED.findall(TABLE.read_text()))
    here = Path(__file__).parent
    there = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in here.glob("test_*.py")
        if file != Path(__file__)
        for name in functions(file)
    }
    assert len(there) > 15
    assert sorted(there - named) == []
