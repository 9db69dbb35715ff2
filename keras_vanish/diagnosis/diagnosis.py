"""What one reading says about a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_vanish.diagnosis.findings import illness_of
from keras_vanish.diagnosis.findings.finding import Verdict
from keras_vanish.records.readings import Reading


@dataclass(frozen=True)
class Diagnosis:
    """What one reading says about a run.

    Attributes:
        reading: The reading.
        vanishing_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        exploding_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        verdict: `"healthy"`, `"vanishing"`, `"exploding"`, `"nonfinite"` or `"unknown"`.
        components: The numbers that the scores are the largest of, by name, each in [0, 1] or
            NaN. Of the vanishing score: `weights`, `activations`, `time`, `dead`, `silent` and
            `saturated`; of the exploding score: `growth` and `update`. `docs/score.md` defines
            them.
        cause: The component that the verdict rests on; of `"nonfinite"`, where NaN or Inf began as
            far as is known: `variables`, `output` or `gradient`; empty where there is none.
        blame: Names of the layers that the verdict rests on, input side first.
        advice: What to try, most useful first.
        optimizer: Which of several optimizers was read, by the attribute that holds it; empty
            where there is one. Event files hold a run each and do not tell, so this does not
            count when diagnoses are compared.
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
        return illness_of(self.verdict, self.cause).decisive(self.components)

    @property
    def certain(self) -> bool:
        """The same as `decisive`, under the name that earlier versions gave it."""
        return self.decisive

    def sentence(self) -> str:
        """The verdict in plain words, with the layers to blame."""
        return illness_of(self.verdict, self.cause).sentence(self.reading, self.blame)
