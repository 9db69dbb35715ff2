"""The definition of an illness: how it is measured, whom it blames, its words and its advice."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.words import named
from keras_vanish.records.readings import Reading

Verdict = Literal["healthy", "vanishing", "exploding", "nonfinite", "unknown"]

#: Scores at or above this are flagged.
THRESHOLD = 0.5


def worst(*components: float) -> float:
    """The largest of those that are known; NaN if none is."""
    return max((c for c in components if not math.isnan(c)), default=math.nan)


class Illness(ABC):
    """The definition of an illness. `healthy` and `unknown` are defined in the same way.

    Attributes:
        verdict: The verdict that follows from it.
        cause: Its name among the illnesses of its verdict; empty for one without a name.
        words: A sentence that says what happens.
        words_for_layers: A sentence that follows where there are layers to blame, with `{layers}`
            in the place of their names; empty where none are named.
        advice: Suggestions for the user, most useful first.
    """

    verdict: ClassVar[Verdict]
    cause: ClassVar[str] = ""
    words: ClassVar[str]
    words_for_layers: ClassVar[str] = ""
    advice: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether a run has it, as far as one reading tells.

        Args:
            evidence: The reading.
            components: The component of every `ScoredIllness`, by name.
        """

    @abstractmethod
    def blame(self, evidence: Evidence) -> list[str]:
        """The names of the layers to blame, input side first; asked only where it holds."""

    def decisive(self, components: Mapping[str, float]) -> bool:
        """Whether one reading with it settles the verdict on the run, for the time being."""
        return False

    def labels(self, reading: Reading, blame: Sequence[str]) -> Sequence[str]:
        """The names by which the sentence calls the layers to blame."""
        return blame

    def sentence(self, reading: Reading, blame: Sequence[str]) -> str:
        """The illness in plain words, with the layers to blame."""
        if not blame or not self.words_for_layers:
            return self.words
        return f"{self.words} {named(self.words_for_layers, self.labels(reading, blame))}"


class ScoredIllness(Illness):
    """An illness with a score of its own: the component that bears the name of its cause.

    The score of a verdict is the largest component of its illnesses.
    """

    @abstractmethod
    def measure(self, evidence: Evidence) -> float:
        """The component: a number in [0, 1], or NaN where it cannot be known."""

    def holds(self, evidence: Evidence, components: Mapping[str, float]) -> bool:
        """Whether the component is flagged."""
        return components[self.cause] >= THRESHOLD
