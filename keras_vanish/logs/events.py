"""The history of a run from its event files."""

from __future__ import annotations

import os

from keras_vanish.diagnosis import Diagnosis, diagnoses
from keras_vanish.logs import file_system
from keras_vanish.logs.decoding import readings
from keras_vanish.logs.run_folders import creation, event_files, runs
from keras_vanish.logs.tfrecord import records
from keras_vanish.records.readings import Reading


def read(log_dir: str | os.PathLike[str]) -> list[Diagnosis]:
    """Reads the history of a run from its event files.

    Args:
        log_dir: The log directory, its folder `gradients`, or a folder above with no other run
            in it.

    Returns:
        One diagnosis a recorded step, ordered by step. If a step was written twice, as by a
        resumed run, the later one counts.

    Raises:
        FileNotFoundError: If there is no such folder, or no run in it.
        ValueError: If there are several runs, or a file is damaged.
    """
    found = runs(log_dir)
    if len(found) > 1:
        raise ValueError(
            f"There are several runs in {os.fspath(log_dir)!r}. Received: {', '.join(found)}. "
            "Read one of these folders."
        )
    (directory,) = found.values()
    by_step: dict[int, Reading] = {}
    files = event_files(directory, file_system.names(directory))
    for path in sorted(files, key=creation):
        try:
            by_step.update((reading.step, reading) for reading in readings(records(path)))
        except ValueError as error:
            raise ValueError(
                f"The event file cannot be read: {error}. Received: {path}. If a newer "
                "keras-vanish wrote it, install that; if it is damaged, restore it from a copy "
                "or move it away to read the others."
            ) from error
    return diagnoses(by_step[step] for step in sorted(by_step))
