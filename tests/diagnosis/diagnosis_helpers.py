"""What several tests of diagnosis share and is no fixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_vanish.diagnosis import LearningProgress
from keras_vanish.diagnosis.progress import PATIENCE
from keras_vanish.records.recurrent import RecurrentReading

#: The types of the fixtures of `conftest.py`.
Falling = Callable[..., list[float]]
Close = Callable[..., Any]
Outcome = Callable[..., tuple[str, str, tuple[str, ...]]]

#: A run that has had the time to learn something of its input, and has not.
NOT_LEARNED = LearningProgress(count=PATIENCE, share=0.0, best=0.0)


def through_time(*profiles: Sequence[float]) -> dict[str, RecurrentReading]:
    """Recurrent layers with these RMS of dL/dh_t, oldest step first."""
    return {f"rnn_{i}": RecurrentReading(tuple(rms)) for i, rms in enumerate(profiles)}
