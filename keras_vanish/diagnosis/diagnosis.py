"""Readings become scores, a verdict and advice: pure functions, no TensorFlow.

The definitions, their derivation and the evidence for the constants stand in
`docs/score.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from keras_vanish.diagnosis import scores
from keras_vanish.diagnosis.advice import advice, sentence
from keras_vanish.diagnosis.scores import (
    CRITICAL_DECAY,
    DECISIVE_UPDATE,
    THRESHOLD,
    LearningProgress,
    Profile,
    score_of_decay,
)
from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading

Verdict = Literal["healthy", "vanishing", "exploding", "nonfinite", "unknown"]

#: From what needs no attention to what needs it most.
_WORSE: tuple[Verdict, ...] = ("healthy", "unknown", "vanishing", "exploding", "nonfinite")

#: How many readings in a row must agree before the run's verdict follows them.
AGREEING_READINGS = 3


@dataclass(frozen=True)
class Diagnosis:
    """What one reading says about a run.

    Attributes:
        reading: The reading.
        vanishing_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        exploding_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        verdict: `"healthy"`, `"vanishing"`, `"exploding"`, `"nonfinite"` or `"unknown"`.
        components: What the scores are the largest of, by name, each in [0, 1] or NaN. Of the
            vanishing score: `weights`, `activations`, `time`, `dead`, `silent` and `saturated`;
            of the exploding score: `growth` and `update`. `docs/score.md` defines them.
        cause: The component that the verdict rests on; of `"nonfinite"`, where NaN or Inf began as
            far as is known: `variables`, `output` or `gradient`; empty where there is none.
        blame: Names of the layers that the verdict rests on, input side first.
        advice: What to try, most useful first.
        optimizer: Which of several optimizers was read, by the attribute that holds it; empty
            where there is one. Event files hold a run each and do not tell: it does not count
            when diagnoses are compared.
    """

    reading: Reading
    vanishing_score: float
    exploding_score: float
    verdict: Verdict
    components: Mapping[str, float]
    cause: str
    blame: tuple[str, ...]
    advice: tuple[str, ...]
    optimizer: str = field(default="", compare=False)

    @property
    def step(self) -> int:
        """How many updates the optimizer had applied before the recorded one."""
        return self.reading.step

    @property
    def decisive(self) -> bool:
        """Whether this reading alone settles the verdict on the run, for the time being."""
        thrown = self.cause == "update" and self.components["update"] >= DECISIVE_UPDATE
        return self.verdict == "nonfinite" or thrown

    def sentence(self) -> str:
        """The verdict in plain words, with the layers to blame."""
        names = self.blame
        if self.cause == "time":
            timesteps = self.reading.timesteps
            names = tuple(_reach(name, timesteps[name]) for name in names)
        return sentence(self.verdict, self.cause, names)


def diagnose(
    reading: Reading, course: LearningProgress | None = None, optimizer: str = ""
) -> Diagnosis:
    """Scores, verdict, blame and advice for one reading.

    In this order: NaN or Inf in weights or in a gradient; updates as large as the weights;
    saturated activations; gradients that grow towards the input; gradients that vanish. Where
    nothing is known of vanishing by depth, and nothing else is certain, the verdict is
    `"unknown"`.

    Args:
        reading: The reading.
        course: Whether the run had learned anything up to and with this reading; without
            it nothing is known of vanishing through time.
        optimizer: Which of several optimizers was read.
    """
    layers, activations, timesteps = reading.layers, reading.activations, reading.timesteps
    by_weights = scores.weight_profile(layers)
    by_activations = scores.activation_profile(layers, activations)
    profiles = (by_weights, by_activations)
    vanishing = {
        "weights": scores.vanishing_by(by_weights),
        "activations": scores.vanishing_by(by_activations),
        "time": scores.by_time(timesteps, course or LearningProgress()),
        "dead": scores.by_dead_units(activations, reading.probed),
        "silent": scores.by_silence(layers, course or LearningProgress()),
        "saturated": scores.by_saturation(activations),
    }
    exploding = {
        "growth": scores.worst(*map(scores.growth_by, profiles), scores.growth_by_time(timesteps)),
        "update": scores.by_update(layers),
    }
    vanishing_score = scores.worst(*vanishing.values())
    known = not math.isnan(scores.worst(vanishing["weights"], vanishing["activations"]))

    verdict: Verdict
    cause, blame = "", list[str]()
    if any(layer.nonfinite_count > 0 or layer.weights_nonfinite for layer in layers):
        verdict = "nonfinite"
        cause, blame = _nonfinite(layers, activations)
    elif exploding["update"] >= THRESHOLD:
        verdict, cause = "exploding", "update"
        blame = [layer.name for layer in layers if layer.update_ratio >= 1]
    elif exploding["growth"] >= THRESHOLD and not vanishing["saturated"] >= THRESHOLD:
        verdict, cause = "exploding", "growth"
        blame = [
            name
            for profile in profiles
            if scores.growth_by(profile) >= THRESHOLD
            for name in _overgrown(profile)
        ]
        blame += [n for n, r in timesteps.items() if scores.growth_by_time({n: r}) >= THRESHOLD]
    elif vanishing_score >= THRESHOLD:
        verdict = "vanishing"
        cause = max(vanishing, key=lambda name: scores.worst(vanishing[name], -1.0))
        if cause in ("weights", "activations"):
            blame = _starved(by_weights if cause == "weights" else by_activations)
        elif cause == "time":
            lost = {n: score_of_decay(scores.time_decay(r)) for n, r in timesteps.items()}
            blame = [name for name, score in lost.items() if score >= THRESHOLD]
        elif cause == "dead":
            blame = [a.name for a in activations if a.dead_fraction == 1.0]
        elif cause == "silent":
            blame = [layer.name for layer in layers if layer.gradient_rms == 0]
        else:
            blame = [a.name for a in activations if a.saturated_fraction >= THRESHOLD]
    elif not known:
        verdict = "unknown"
        blame = [layer.name for layer in layers if layer.gradient_rms == 0]
    else:
        verdict = "healthy"
    return Diagnosis(
        reading=reading,
        vanishing_score=vanishing_score,
        exploding_score=scores.worst(*exploding.values()),
        verdict=verdict,
        components={**vanishing, **exploding},
        cause=cause,
        blame=tuple(dict.fromkeys(blame)),
        advice=advice(verdict, cause, scores.cut_by_float16(layers)),
        optimizer=optimizer,
    )


def _reach(name: str, recurrent: RecurrentReading) -> str:
    if math.isnan(recurrent.horizon):
        return name
    return f"{name} ({recurrent.horizon:.0f} of {len(recurrent.rms) - 1} steps)"


def _nonfinite(
    layers: Sequence[LayerReading], activations: Sequence[ActivationReading]
) -> tuple[str, list[str]]:
    """Where NaN or Inf began, if the probe saw it; else all layers that have some.

    Weights come first: all else follows from them. A gradient need not: some processors' ReLU makes
    0 of NaN.
    """
    lost = [layer.name for layer in layers if layer.weights_nonfinite]
    if lost:
        return "variables", lost
    for activation in activations:
        if activation.output_nonfinite_count > 0:
            return "output", [activation.name]
    # Back-propagation goes from the output to the input.
    for activation in reversed(activations):
        if activation.gradient_nonfinite_count > 0:
            return "gradient", [activation.name]
    return "", [layer.name for layer in layers if layer.nonfinite_count > 0]


def _starved(profile: Profile) -> list[str]:
    values = [value for _, value in profile]
    # The score and this limit may differ by a rounding: some layer is always named.
    limit = max(max(values) - CRITICAL_DECAY, min(values))
    return [name for name, value in profile if value <= limit]


def _overgrown(profile: Profile) -> list[str]:
    values = [value for _, value in profile]
    limit = min(values[-1] + CRITICAL_DECAY, max(values))
    return [name for name, value in profile if value >= limit]


def diagnoses(readings: Iterable[Reading]) -> list[Diagnosis]:
    """The diagnoses of a run's readings, oldest first."""
    course, found = LearningProgress(), []
    for reading in readings:
        course = course.after(reading)
        found.append(diagnose(reading, course))
    return found


def representative(history: Sequence[Diagnosis], verdict: str) -> Diagnosis | None:
    """The last diagnosis that says what the run's verdict says, and so can explain it.

    Args:
        history: One diagnosis a recorded step, oldest first.
        verdict: The run's verdict.

    Returns:
        None where the readings are too few, or do not agree.
    """
    return next((d for d in reversed(history) if d.verdict == verdict), None)


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict to look at first; `"unknown"` where there is none."""
    return max(verdicts, key=_WORSE.index, default="unknown")


def steadied(previous: Verdict, recent: Sequence[Diagnosis]) -> Verdict:
    """The verdict on a run so far: it follows readings that agree.

    Args:
        previous: The run's verdict before the last reading; `"unknown"` at first.
        recent: The run's last diagnoses, oldest first; at least the last
            `AGREEING_READINGS` of them, or all.

    Returns:
        The verdict on which the last readings agree: `AGREEING_READINGS` of them, or
        both where there are only two. `previous` if they do not agree. A reading that is
        `decisive` counts at once.
    """
    if recent[-1].decisive:
        return recent[-1].verdict
    last = {diagnosis.verdict for diagnosis in recent[-AGREEING_READINGS:]}
    if len(recent) >= 2 and len(last) == 1:
        return recent[-1].verdict
    return previous
