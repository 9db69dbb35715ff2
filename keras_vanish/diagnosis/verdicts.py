"""From the diagnoses of single readings to the verdict on a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keras_vanish.diagnosis.diagnosis import Diagnosis
from keras_vanish.diagnosis.findings.finding import Verdict

#: From what needs no attention to what needs it most.
_WORSE: tuple[Verdict, ...] = ("healthy", "unknown", "vanishing", "exploding", "nonfinite")

#: How many readings in a row must agree before the run's verdict follows them.
AGREEING_READINGS = 3


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


def verdicts(history: Sequence[Diagnosis]) -> list[Verdict]:
    """The run's verdict after each of its readings, oldest first: `steadied` over them."""
    found: list[Verdict] = []
    for end in range(1, len(history) + 1):
        previous = found[-1] if found else "unknown"
        found.append(steadied(previous, history[max(0, end - AGREEING_READINGS) : end]))
    return found


def verdict_of(history: Sequence[Diagnosis]) -> Verdict:
    """The run's verdict after a history; `"unknown"` after none."""
    return verdicts(history)[-1] if history else "unknown"


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict to look at first; `"unknown"` where there is none."""
    return max(verdicts, key=_WORSE.index, default="unknown")


def representative(history: Sequence[Diagnosis], verdict: str) -> Diagnosis | None:
    """The last diagnosis that says what the run's verdict says, and so can explain it.

    Args:
        history: One diagnosis a recorded step, oldest first.
        verdict: The run's verdict.

    Returns:
        None where the readings are too few, or do not agree.
    """
    return next((d for d in reversed(history) if d.verdict == verdict), None)
