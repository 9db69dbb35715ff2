"""From readings to diagnoses: scores, verdict, blame and advice.

The definitions, their derivation and the evidence for the constants stand in
`docs/score.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keras_vanish.diagnosis.diagnosis import Diagnosis
from keras_vanish.diagnosis.findings import NOTES, ORDER, SCORED
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import Illness, Verdict, worst
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.records.readings import Reading


def diagnose(
    reading: Reading, progress: LearningProgress | None = None, optimizer: str = ""
) -> Diagnosis:
    """Scores, verdict, blame and advice for one reading.

    `findings.ORDER` says which illness decides where several hold.

    Args:
        reading: The reading.
        progress: Whether the run had learned anything up to and with this reading. Without it,
            nothing is known of vanishing through time or of gradients that are exactly zero.
        optimizer: Which of several optimizers was read.
    """
    evidence = Evidence(reading, progress or LearningProgress())
    components = {illness.cause: illness.measure(evidence) for illness in SCORED}
    illness = _deciding(evidence, components)
    notes = [words for note in NOTES if (words := note(evidence))]
    return Diagnosis(
        reading=reading,
        vanishing_score=_score("vanishing", components),
        exploding_score=_score("exploding", components),
        verdict=illness.verdict,
        components=components,
        cause=illness.cause,
        blame=tuple(dict.fromkeys(illness.blame(evidence))),
        advice=(*notes, *illness.advice),
        optimizer=optimizer,
    )


def _deciding(evidence: Evidence, components: Mapping[str, float]) -> Illness:
    """The illness that the verdict rests on. The last in the order always holds."""
    holding = ([i for i in group if i.holds(evidence, components)] for group in ORDER)
    return max(next(filter(None, holding)), key=lambda i: components.get(i.cause, 0.0))


def _score(verdict: Verdict, components: Mapping[str, float]) -> float:
    return worst(*(components[illness.cause] for illness in SCORED if illness.verdict == verdict))


def diagnoses(readings: Iterable[Reading]) -> list[Diagnosis]:
    """The diagnoses of a run's readings, oldest first."""
    progress, found = LearningProgress(), []
    for reading in readings:
        progress = progress.after(reading)
        found.append(diagnose(reading, progress))
    return found
