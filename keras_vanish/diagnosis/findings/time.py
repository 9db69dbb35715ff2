"""Gradients vanish through time, in a run that learns nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import THRESHOLD, ScoredIllness, worst
from keras_vanish.diagnosis.profiles import score_of_decay, time_decay
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.records.readings import Reading
from keras_vanish.records.recurrent import RecurrentReading


class Time(ScoredIllness):
    """Blames every recurrent layer that loses too much on the way back through time."""

    verdict = "vanishing"
    cause = "time"
    words = "Gradients vanish through time, and nothing is learned of the input."
    words_for_layers = "They reach back only so far: {layers}."
    advice = (
        "Use LSTM or GRU in place of SimpleRNN.",
        "Shorten the sequences, or give the model a short way back in time: attention, or pooling "
        "over the outputs of all time steps (return_sequences=True).",
        'In SimpleRNN, set recurrent_initializer="orthogonal" or keras.initializers.Identity(), '
        "and clip: optimizer=Adam(global_clipnorm=1.0).",
    )

    def measure(self, evidence: Evidence) -> float:
        """See `by_time`."""
        return by_time(evidence.timesteps, evidence.progress)

    def blame(self, evidence: Evidence) -> list[str]:
        """The recurrent layers that lose too much."""
        timesteps = evidence.timesteps.items()
        return [name for name, r in timesteps if score_of_decay(time_decay(r)) >= THRESHOLD]

    def labels(self, reading: Reading, blame: Sequence[str]) -> Sequence[str]:
        """The layers, each with how far back its gradient reaches."""
        timesteps = reading.timesteps
        return [_reach(name, timesteps[name]) for name in blame]


def by_time(timesteps: Mapping[str, RecurrentReading], progress: LearningProgress) -> float:
    """How much is lost through time, in a run that has not learned anything.

    `score_of_decay(time_decay(...))` of the recurrent layer that loses most. Gates are half
    closed at first, and whether the past is needed depends on the task: an LSTM that learns
    all the same is not sick. So the result is 0 once the run has learned anything of its input.

    Returns:
        A number in [0, 1], or NaN where there is no recurrent layer, or where it cannot be
        told yet whether the run learns.
    """
    decades = worst(*map(time_decay, timesteps.values()))
    if math.isnan(decades) or progress.learned is None:
        return math.nan
    return 0.0 if progress.learned else score_of_decay(decades)


def _reach(name: str, recurrent: RecurrentReading) -> str:
    if math.isnan(recurrent.horizon):
        return name
    return f"{name} ({recurrent.horizon:.0f} of {len(recurrent.rms) - 1} steps)"
