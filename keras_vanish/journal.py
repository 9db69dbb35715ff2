"""What was done to a run, as lines of JSON beside its event files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tensorboard.compat import tf
from tensorboard.compat.tensorflow_stub.io import gfile

from keras_vanish.interventions import Intervention

#: One JSON object a line, oldest first.
NAME = "interventions.jsonl"


def append(directory: str, interventions: Sequence[Intervention]) -> None:
    """Adds lines to the journal of a run.

    Args:
        directory: The run's folder; it exists.
        interventions: What was done, oldest first.

    Raises:
        OSError: If they cannot be written.
    """
    try:
        with tf.io.gfile.GFile(os.path.join(directory, NAME), "a") as file:
            file.write("".join(f"{intervention.to_json()}\n" for intervention in interventions))
    except tf.errors.OpError as error:
        raise OSError(f"Cannot write to {NAME}: {error}. Received: {directory!r}.") from error


def read_journal(directory: str) -> list[Intervention]:
    """What was done to a run, oldest first; nothing where there is no journal.

    A last line without an end, which a killed process leaves, is passed over.

    Args:
        directory: The run's folder.

    Raises:
        ValueError: If another line is not as this version writes it.
    """
    path = os.path.join(directory, NAME)
    if not gfile.exists(path):
        return []
    with gfile.GFile(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    return [_parsed(line, path) for line in lines]


def _parsed(line: bytes, path: str) -> Intervention:
    try:
        return Intervention.from_json(line.decode("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"The journal cannot be read: {error} Received: {path}. Remove the line, or the file."
        ) from error
