"""What the table and the doctor say of a run in the same words."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.interventions import Intervention

NOTHING_RECORDED = (
    "Nothing has been recorded. Train for longer, or record more often: "
    "GradientMonitor(update_freq=1) records every update."
)

_MOST_DONE = 10

_STYLES = {
    "healthy": "green",
    "vanishing": "red",
    "exploding": "red",
    "nonfinite": "red",
    "unknown": "yellow",
}


def console(buffer: io.StringIO, width: int | None, color: bool) -> Console:
    """A console that writes plain lines, or ones with the eight ANSI colours."""
    return Console(
        file=buffer,
        width=width,
        color_system="standard" if color else None,
        force_jupyter=False,
        legacy_windows=False,
        highlight=False,
    )


def stripped(buffer: io.StringIO) -> str:
    """What was written, without blanks at the ends of lines."""
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def clean(text: str) -> str:
    """Without what cannot be printed: control characters in a name would reach the terminal."""
    return "".join(c for c in text if c.isprintable())


def headline(history: Sequence[Diagnosis], verdict: str) -> Text:
    """The run's verdict in words, and the last reading's where it differs."""
    speaking, last = spokesman(history, verdict), history[-1]
    text = Text.assemble((verdict.capitalize(), f"bold {_STYLES.get(verdict, '')}"), ". ")
    if speaking.verdict == verdict:
        text.append(clean(speaking.sentence()))
    else:
        text.append("The readings so far are too few, or do not agree.")
    if last.verdict != verdict:
        text.append(f" The last reading by itself is {last.verdict}: {clean(last.sentence())}")
    return text


def spokesman(history: Sequence[Diagnosis], verdict: str) -> Diagnosis:
    """The last reading that says what the run's verdict says, and so can explain it."""
    return next((d for d in reversed(history) if d.verdict == verdict), history[-1])


def to_try(diagnosis: Diagnosis) -> Iterator[Text | Table]:
    """The advice, under a heading; nothing where there is none."""
    if diagnosis.advice:
        yield Text("\nWhat to try:", style="bold")
    for place, advice in enumerate(diagnosis.advice, 1):
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(f"{place}."), Text(advice))
        yield line


def was_done(interventions: Sequence[Intervention]) -> Iterator[Text]:
    """The last interventions, under a heading; nothing where there were none."""
    if interventions:
        yield Text("\nWhat was done:", style="bold")
    if len(interventions) > _MOST_DONE:
        yield Text(f"({len(interventions) - _MOST_DONE} earlier ones are not shown.)")
    for intervention in interventions[-_MOST_DONE:]:
        yield Text(clean(intervention.sentence()))
