"""The notebook of the pages, run as a reader runs it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def notebook() -> Any:
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def test_no_outputs_are_kept(notebook: Any) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert (cell.outputs, cell.execution_count, dict(cell.metadata)) == ([], None, {})


def test_it_shows_what_it_promises(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", search)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    printed = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "Vanishing. Gradients vanish on the way to the input. Starved: dense_0" in printed
    assert "Healthy. Gradients reach the whole network." in printed
    assert " sigmoid: vanishing, vanishing score [" in printed
    assert "    ReLU: healthy, vanishing score [" in printed
    assert re.search(r"The gradient reaches \d+ of 63 steps back\.\n 0 steps back: ", printed)
    assert (tmp_path / "logs" / "lstm" / "gradients").is_dir()
