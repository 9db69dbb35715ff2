"""Event files and events, written as `GradientMonitor` writes them."""

from __future__ import annotations

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from keras_vanish.diagnosis import Diagnosis, diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.histograms import Histograms
from keras_vanish.logs.step_events import StepEvents
from keras_vanish.records.readings import Reading


def write(
    log_dir: Path, *readings: Reading, histograms: Histograms | None = None
) -> list[Diagnosis]:
    """Writes the readings of a run by a writer of its own; their diagnoses."""
    history = [diagnose(reading) for reading in readings]
    writer = EventWriter(log_dir)
    for diagnosis in history:
        writer.write(diagnosis, histograms, "healthy")
    writer.close()
    return history


def files(log_dir: Path) -> list[Path]:
    """The files of the run."""
    return sorted((log_dir / "gradients").iterdir())


def event_of(diagnosis: Diagnosis) -> Event:
    """The event of a step that was written first."""
    return StepEvents().event(diagnosis, None, "healthy")
