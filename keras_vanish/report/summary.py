"""What a monitor says of its runs: one table for each optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_vanish.diagnosis import Diagnosis, Verdict, worst_of
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.report.table import render


def summary(
    history: Sequence[Diagnosis],
    verdicts: Mapping[str, Verdict],
    interventions: Sequence[Intervention],
    width: int | None = None,
) -> str:
    """The last reading of each optimizer as a table, with verdict and advice.

    Args:
        history: The diagnoses of all optimizers, oldest first.
        verdicts: The verdict on each optimizer's run, by `Diagnosis.optimizer`.
        interventions: What was done. It is shown where there is one optimizer.
        width: Characters a line; by default those of the terminal, or 80.
    """
    if not any(verdicts):
        verdict = worst_of(verdicts.values())
        return render(history, verdict, width=width, interventions=interventions)
    tables = [
        render([d for d in history if d.optimizer == name], verdict, title=name, width=width)
        for name, verdict in verdicts.items()
    ]
    return "\n".join(tables)
