"""What several tests of logs need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keras_vanish.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.bins import BINS
from keras_vanish.records.readings import Reading


def _write(
    log_dir: Path, *readings: Reading, histograms: Histograms | None = None
) -> list[Diagnosis]:
    history = [diagnose(reading) for reading in readings]
    writer = EventWriter(log_dir)
    for diagnosis in history:
        writer.write(diagnosis, histograms, "healthy")
    writer.close()
    return history


def _files(log_dir: Path) -> list[Path]:
    return sorted((log_dir / "gradients").iterdir())


def _histogram(size: int = 10, layer: str = "dense_0", **counts: float) -> Histograms:
    array = np.zeros([1, BINS], np.float32)
    for name, count in counts.items():
        array[0, int(name[1:])] = count
    return Histograms((layer,), ("kernel",), (size,), array)


@pytest.fixture(scope="session")
def write() -> Callable[..., list[Diagnosis]]:
    """`write(log_dir, *readings, histograms=None)`: by a writer of its own; the diagnoses."""
    return _write


@pytest.fixture(scope="session")
def files() -> Callable[[Path], list[Path]]:
    """`files(log_dir)`: the files of the run."""
    return _files


@pytest.fixture(scope="session")
def histogram() -> Callable[..., Histograms]:
    """`histogram(size=10, layer="dense_0", _<bin>=count)`: one histogram."""
    return _histogram
