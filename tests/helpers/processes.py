"""Programs that run in a Python of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from repository import ROOT


def environment() -> dict[str, str]:
    """The environment of a process that imports the package from here."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "2"}


def run_python(code: str, *flags: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a program; what it printed, and how it ended.

    Args:
        code: The program.
        *flags: Those of the interpreter.
        cwd: Where it runs.
    """
    values = environment()
    # The backend is that of a machine on which nothing is set.
    values.pop("KERAS_BACKEND", None)
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=cwd,
        env=values,
        capture_output=True,
        text=True,
    )
