"""A run as lines of blocks, one below the other.

Each column is one moment: the layers' gradients, the scores, the horizons and the interventions
have the same steps in the same columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from keras_vanish.diagnosis import THRESHOLD, Diagnosis
from keras_vanish.interventions import Intervention
from keras_vanish.records.quantities import QUANTITIES, Matrix, matrix
from keras_vanish.report.sparklines import BLOCKS, MISSING, NONFINITE, ZERO, heatmap, line, spans
from keras_vanish.report.terminal import clean, explaining

# More layers than this share lines.
_MOST_ROWS = 40


def timeline(
    history: Sequence[Diagnosis],
    verdict: str,
    interventions: Sequence[Intervention],
    width: int,
) -> Iterator[Text]:
    """Draws the layers' gradients, the scores, the horizons and the interventions.

    Args:
        history: One diagnosis a recorded step, oldest first; at least one.
        verdict: The run's verdict.
        interventions: What was done to the run.
        width: Columns to fill.
    """
    last = history[-1].reading
    values = _gradients(history)
    rows = spans(len(values), _MOST_ROWS)
    depths = [f"{r.start}" if r.stop - r.start == 1 else f"{r.start}–{r.stop - 1}" for r in rows]
    digits = max(3, *map(len, depths))
    longest = max(cell_len(clean(name)) for name in last.names)
    label = max(17, digits + 3 + min(longest, width // 4))
    room = max(8, width - label - len(" -0.0e+00") - 1)
    lines, top = heatmap(values, _MOST_ROWS, room)
    blamed = set(explaining(history, verdict).blame)

    yield Text("Gradient RMS, from the layer next to the output down to the input:", style="bold")
    for row, depth, blocks in reversed(list(zip(rows, depths, lines))):
        mark = "!" if blamed.intersection(last.names[row]) else ""
        name = _fitted(clean(last.names[row.start]), label - digits - 3)
        end = f" {_number(values[row, -1][0], '.1e')}" if row.stop - row.start == 1 else ""
        yield _row(f"{mark:1} {depth:>{digits}} {name} {blocks}{end}", "red" if mark else "")
    first_step, last_step = f"step {history[0].step}", f"{history[-1].step}"
    between = len(lines[0]) - len(first_step) - len(last_step)
    gap = " " * between if between > 0 else " to "
    yield _row(f"{'':{label}} {first_step}{gap}{last_step}", "dim")
    yield from _acts(history, interventions, label, room)
    yield Text(
        f"{BLOCKS[-1]} from 1e{top}, each lower block a decade less, {BLOCKS[0]} below 1e{top - 6}",
        style="dim",
    )
    yield Text(f"{ZERO} exactly zero, {MISSING} not known, {NONFINITE} NaN or Inf", style="dim")
    yield Text()

    for name in ("vanishing", "exploding"):
        scores = [getattr(diagnosis, f"{name}_score") for diagnosis in history]
        style = "red" if scores[-1] >= THRESHOLD else ""
        yield _row(
            f"{name + ' score':{label}} {line(scores, room)} {_number(scores[-1], '.2f')}", style
        )
    yield Text(f"{BLOCKS[4]} and higher is flagged, from {THRESHOLD}", style="dim")
    for name, recurrent in last.timesteps.items():
        furthest = len(recurrent.rms) - 1
        horizons = [
            found.horizon if (found := d.reading.timesteps.get(name)) else math.nan for d in history
        ]
        yield _row(
            f"{_fitted(f'horizon {clean(name)}', label)} {line(horizons, room, max(1, furthest))} "
            f"{_number(horizons[-1], '.0f')} of {furthest}"
        )


def _acts(
    history: Sequence[Diagnosis], interventions: Sequence[Intervention], label: int, room: int
) -> Iterator[Text]:
    """A line with a mark under each intervention."""
    if interventions:
        steps = [diagnosis.step for diagnosis in history]
        marks = ""
        for span in spans(len(steps), room):
            end = steps[span.stop] if span.stop < len(steps) else math.inf
            marks += "▲" if any(steps[span.start] <= i.step < end for i in interventions) else " "
        yield _row(f"{'done':{label}} {marks}")


def _row(text: str, style: str = "") -> Text:
    """A line that is cut if the terminal is too narrow: wrapping would misalign the columns."""
    return Text(text, style, no_wrap=True, overflow="crop")


def _gradients(history: Sequence[Diagnosis]) -> Matrix:
    """Gradient RMS, float64 of shape `[layers of the last reading, steps]`.

    It is infinite where the gradient held NaN or Inf.
    """
    readings = [diagnosis.reading for diagnosis in history]
    names, values = matrix(readings, QUANTITIES["gradient_rms"])
    row = {name: index for index, name in enumerate(names)}
    return values[[row[name] for name in readings[-1].names]]


def _number(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else "NaN/Inf" if math.isinf(value) else f"{value:{form}}"


def _fitted(text: str, cells: int) -> str:
    """The text in exactly so many cells; a text that is too long keeps its end."""
    if cell_len(text) > cells:
        while cell_len(text) >= cells:
            text = text[1:]
        text = f"…{text}"
    return set_cell_size(text, cells)
