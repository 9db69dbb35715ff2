"""Every illness, one a file, in the order in which `diagnose` goes through them.

A new illness is a new file here, its import and its place in `ORDER`.
"""

from __future__ import annotations

from collections.abc import Callable

from keras_vanish.diagnosis.findings import float16
from keras_vanish.diagnosis.findings.activations import Activations
from keras_vanish.diagnosis.findings.dead_units import DeadUnits
from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.finding import Illness, ScoredIllness
from keras_vanish.diagnosis.findings.growth import Growth
from keras_vanish.diagnosis.findings.healthy import Healthy
from keras_vanish.diagnosis.findings.nonfinite import Nonfinite
from keras_vanish.diagnosis.findings.nonfinite_gradient import NonfiniteGradient
from keras_vanish.diagnosis.findings.nonfinite_output import NonfiniteOutput
from keras_vanish.diagnosis.findings.nonfinite_variables import NonfiniteVariables
from keras_vanish.diagnosis.findings.saturated import Saturated
from keras_vanish.diagnosis.findings.time import Time
from keras_vanish.diagnosis.findings.unknown import Unknown
from keras_vanish.diagnosis.findings.update import Update
from keras_vanish.diagnosis.findings.weights import Weights
from keras_vanish.diagnosis.findings.zero_gradient import ZeroGradient

#: Illnesses in groups, worst group first. The first group of which an illness holds decides; within
#: a group the illness with the largest component does, and of equal ones the first.
ORDER: tuple[tuple[Illness, ...], ...] = (
    (NonfiniteVariables(),),
    (NonfiniteOutput(),),
    (NonfiniteGradient(),),
    (Nonfinite(),),
    (Update(),),
    (Growth(),),
    (
        Weights(),
        Activations(),
        Time(),
        DeadUnits(),
        ZeroGradient(),
        Saturated(),
    ),
    (Unknown(),),
    (Healthy(),),
)

#: All illnesses, mildest group first: the order in which components are shown.
ILLNESSES: tuple[Illness, ...] = tuple(illness for group in ORDER[::-1] for illness in group)

#: The illnesses that have a component.
SCORED: tuple[ScoredIllness, ...] = tuple(i for i in ILLNESSES if isinstance(i, ScoredIllness))

#: Notes that precede the advice of every verdict. Each gives a sentence, or an empty string.
NOTES: tuple[Callable[[Evidence], str], ...] = (float16.note,)


def illness_of(verdict: str, cause: str) -> Illness:
    """The illness of a diagnosis.

    Args:
        verdict: The verdict.
        cause: The cause; where no illness of the verdict has it, the mildest one stands in.

    Raises:
        KeyError: If there is no such verdict.
    """
    candidates = [illness for illness in ILLNESSES if illness.verdict == verdict]
    if not candidates:
        raise KeyError(verdict)
    return next((illness for illness in candidates if illness.cause == cause), candidates[0])
