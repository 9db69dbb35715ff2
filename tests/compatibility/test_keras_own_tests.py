"""Keras's own tests, as its wheel ships them, with a monitor in every `fit`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERAS = Path(importlib.util.find_spec("keras").origin).parent / "src"  # type: ignore[union-attr, arg-type]

#: What trains with callbacks.
SELECTION = [
    "callbacks",
    "trainers/trainer_test.py",
    "trainers/epoch_iterator_test.py",
    "distillation/distiller_test.py",
    "models/model_test.py",
    "optimizers/multi_optimizer_test.py",
    "optimizers/schedule_free_adamw_test.py",
]

#: What Keras's tests import, and its wheel does not hold.
MISSING = """
import importlib.util, sys, types
import pytest
from keras.src import backend


def skip_if_backend(name, reason):
    return pytest.mark.skipif(backend.backend() == name, reason=reason)


sys.modules["conftest"] = sys.modules[__name__]
if importlib.util.find_spec("jax") is None:
    sys.modules["jax"] = types.ModuleType("jax")
"""

#: Adds a monitor to every `fit`, and keeps its two scores out of the logs.
SHIM = """
import functools, inspect
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras_vanish import GradientMonitor


class Monitor(GradientMonitor):
    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch)


fit = TensorFlowTrainer.fit
signature = inspect.signature(fit)
fits = 0
recorded = 0


@functools.wraps(fit)
def monitored(*args, **kwargs):
    global fits, recorded
    bound = signature.bind(*args, **kwargs)
    callbacks = bound.arguments.get("callbacks")
    monitor = Monitor(None, update_freq=1)
    if callbacks is None:
        bound.arguments["callbacks"] = [monitor]
    elif isinstance(callbacks, (list, tuple)):
        bound.arguments["callbacks"] = [*callbacks, monitor]
    elif not hasattr(callbacks, "append"):
        bound.arguments["callbacks"] = [callbacks, monitor]
    fits += 1
    try:
        return fit(*bound.args, **bound.kwargs)
    finally:
        recorded += len(monitor.history)


TensorFlowTrainer.fit = monitored


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"MONITORED {fits} {recorded}")
"""


def outcomes(folder: Path, *plugins: str) -> tuple[dict[str, str], str]:
    """How each of Keras's tests ends, and what pytest printed."""
    root = Path(__file__).resolve().parents[2]
    (folder / "what_keras_tests_need.py").write_text(MISSING)
    files = [os.fspath(KERAS / name) for name in SELECTION]
    patterns = ["-o", "python_files=*_test.py", "-o", "addopts=", "-c", os.devnull]
    options = ["-q", "-rA", "--tb=short", "-p", "no:cacheprovider", "--rootdir", os.fspath(KERAS)]
    options += ["-p", "what_keras_tests_need", "--continue-on-collection-errors"]
    markers = ["-W", "ignore", *patterns]
    path = os.pathsep.join([os.fspath(folder), os.fspath(root)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *markers, *plugins, *files],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        if outcome in ("PASSED", "FAILED", "ERROR"):
            found[rest.partition(" - ")[0]] = outcome
    return found, done.stdout


@pytest.mark.soak
@pytest.mark.skipif(
    not list((KERAS / "callbacks").glob("*_test.py")),
    reason="This release of Keras ships no tests in its wheel.",
)
def test_keras_own_tests_end_as_without_a_monitor(tmp_path: Path) -> None:
    plain, _ = outcomes(tmp_path)
    (tmp_path / "monitor_in_every_fit.py").write_text(SHIM)
    monitored, printed = outcomes(tmp_path, "-p", "monitor_in_every_fit")
    fits, recorded = map(int, printed.split("MONITORED ")[1].split()[:2])
    assert fits > 100
    assert recorded > fits
    assert monitored == plain
