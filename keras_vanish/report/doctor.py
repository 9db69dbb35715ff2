"""The illness of a run, for a terminal and for scripts; no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from keras_vanish.diagnosis import Diagnosis, Verdict, representative, verdicts
from keras_vanish.interventions import Intervention
from keras_vanish.report.terminal import page
from keras_vanish.report.timeline import timeline

#: Verdicts for which the command's exit status is 1.
ILL = ("vanishing", "exploding", "nonfinite")

# If a verdict went to and fro, only its last changes are named.
_MOST_CHANGES = 6


def course(history: Sequence[Diagnosis]) -> list[tuple[Verdict, int]]:
    """The verdicts on a run one after the other, each with the step from which on it holds.

    A verdict follows from readings that agree. It holds from the first of them on.
    """
    found: list[tuple[Verdict, int]] = []
    for place, verdict in enumerate(verdicts(history)):
        if found and found[-1][0] == verdict:
            continue
        while place > 0 and history[place - 1].verdict == verdict:
            place -= 1
        since = history[place].step
        # A verdict without a step of its own had passed before it could be known.
        while found and found[-1][1] >= since:
            found.pop()
        if not found or found[-1][0] != verdict:
            found.append((verdict, since))
    return found


def findings(history: Sequence[Diagnosis], interventions: Sequence[Intervention]) -> dict[str, Any]:
    """What a script may want to know about a run, as JSON has it; None where it is unknown."""
    if not history:
        return {"verdict": "unknown", "readings": 0}
    verdict, since = course(history)[-1]
    last, speaking = history[-1], representative(history, verdict)
    return {
        "verdict": verdict,
        "since_step": since,
        "last_step": last.step,
        "readings": len(history),
        "vanishing_score": _or_none(last.vanishing_score),
        "exploding_score": _or_none(last.exploding_score),
        "cause": speaking.cause if speaking else "",
        "blame": list(speaking.blame) if speaking else [],
        "advice": list(speaking.advice) if speaking else [],
        "horizons": {n: _or_none(r.horizon) for n, r in last.reading.timesteps.items()},
        "interventions": [intervention.sentence() for intervention in interventions],
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def render(
    history: Sequence[Diagnosis],
    interventions: Sequence[Intervention] = (),
    title: str | None = None,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Renders the verdict, its history, a heatmap of the layers over the steps, and advice.

    Args:
        history: One diagnosis a recorded step, oldest first; may be empty.
        interventions: What was done to the run, oldest first.
        title: A heading, such as the run's name.
        width: Columns to fill; by default those of the terminal, or 80.
        color: Whether to colour the text with ANSI codes. Colour alone never carries a fact.

    Returns:
        Lines of text, each ended by a newline.
    """
    passed = course(history)
    verdict = passed[-1][0] if passed else "unknown"

    def body(columns: int) -> Iterator[Text]:
        yield Text(_in_words(passed))
        yield Text()
        yield from timeline(history, verdict, interventions, columns)

    return page(history, verdict, body, interventions, title, width, color)


def _in_words(passed: Sequence[tuple[Verdict, int]]) -> str:
    told = [f"{verdict} since step {step}" for verdict, step in passed[-_MOST_CHANGES:]]
    earlier = "… " if len(passed) > _MOST_CHANGES else ""
    return f"Course: {earlier}{', '.join(told)}."
