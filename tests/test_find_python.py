"""`.ci/find-python`, with which the Makefile chooses an interpreter."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "find-python"


def find(folder: Path, requires: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """Runs the script beside a setup.cfg that asks for other versions."""
    (folder / ".ci").mkdir()
    script = shutil.copy(SCRIPT, folder / ".ci")
    (folder / "setup.cfg").write_text(f"[options]\npython_requires = {requires}\n")
    return subprocess.run([script, *commands], capture_output=True, text=True)


@pytest.fixture
def shim(tmp_path: Path) -> str:
    """A command that exists and fails, as those of pyenv do."""
    path = tmp_path / "python3.10"
    path.write_text("#!/bin/sh\necho 'python3.10: command not found' >&2\nexit 127\n")
    path.chmod(0o755)
    return str(path)


def test_the_first_that_works_is_taken(tmp_path: Path, shim: str) -> None:
    result = find(tmp_path, ">=3.10,<4.0", shim, sys.executable, "absent")
    assert (result.returncode, result.stdout) == (0, f"{sys.executable}\n")


@pytest.mark.parametrize("requires", [">=3.98,<3.99", ">=3.8,<3.9"])
def test_no_supported_python(tmp_path: Path, shim: str, requires: str) -> None:
    result = find(tmp_path, requires, "absent", shim, sys.executable)
    assert (result.returncode, result.stdout) == (1, "")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert result.stderr == (
        f"No Python that fits: {requires}, with venv and ensurepip, is needed. Received:\n"
        "  absent cannot be run\n"
        f"  {shim} cannot be run\n"
        f"  {sys.executable} is Python {version}\n"
        "Install one, or name one: make PYTHON=/path/to/python ...\n"
    )


def test_missing_ensurepip_names_the_package(tmp_path: Path) -> None:
    path = tmp_path / "python"
    block = "import sys; sys.modules['ensurepip'] = None\n"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{block}$2" "$3"\n')
    path.chmod(0o755)
    result = find(tmp_path, ">=3.10,<4.0", str(path))
    assert result.returncode == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"on Debian and Ubuntu: apt install python{version}-venv" in result.stderr
