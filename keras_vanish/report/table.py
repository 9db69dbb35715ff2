"""A history as a table that a person can read in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.diagnosis.findings.words import LONGEST_NAME
from keras_vanish.interventions import Intervention
from keras_vanish.report.terminal import clean, page

_MISSING = "–"

# Of more layers than this, only the outermost and the first so many blamed ones are shown.
_MOST_LAYERS = 60
_OUTERMOST = 20

# One cell of the bar is one decade.
_BAR_DECADES = 8


def render(
    history: Sequence[Diagnosis],
    verdict: str,
    title: str | None = None,
    width: int | None = None,
    color: bool = False,
    interventions: Sequence[Intervention] = (),
) -> str:
    """Renders the verdict, the layers at the last recorded step, and the advice.

    Args:
        history: One diagnosis a recorded step, oldest first; may be empty.
        verdict: The run's verdict so far.
        title: A heading, such as the run's name.
        width: Columns to fill; by default those of the terminal, or 80.
        color: Whether to colour the text with ANSI codes.
        interventions: What was done to the run, oldest first; the last ones are shown.

    Returns:
        Lines of text, each ended by a newline.
    """
    return page(history, verdict, lambda _: _body(history), interventions, title, width, color)


def _body(history: Sequence[Diagnosis]) -> Iterator[Text | Table]:
    yield _layer_table(history[-1])
    yield Text(_figures(history))
    yield from map(Text, _probed(history[-1]))


def _layer_table(diagnosis: Diagnosis) -> Table:
    layers = diagnosis.reading.layers
    guilty = frozenset(diagnosis.blame)
    blamed = [layer.name in guilty for layer in layers]
    with_nonfinite = any(layer.nonfinite_count > 0 for layer in layers)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("layer", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("gradient\nRMS", justify="right", no_wrap=True)
    table.add_column("log10 of RMS /\nlargest RMS", no_wrap=True)
    table.add_column("update\nratio", justify="right", no_wrap=True)
    table.add_column("zeros", justify="right", no_wrap=True)
    if with_nonfinite:
        table.add_column("NaN/Inf", justify="right", no_wrap=True)
    largest = max(
        (layer.gradient_rms for layer in layers if math.isfinite(layer.gradient_rms)), default=0.0
    )
    for shown in _shown(blamed):
        if isinstance(shown, str):
            table.add_row("", "", Text(shown, style="dim"))
            continue
        layer = layers[shown]
        cells = [
            "!" if blamed[shown] else "",
            str(layer.depth),
            clean(layer.name[:LONGEST_NAME]),
            _count(layer.size),
            _number(layer.gradient_rms),
            _bar(layer.gradient_rms, largest),
            _number(layer.update_ratio),
            _percent(layer.zero_fraction),
        ]
        if with_nonfinite:
            cells.append(_count(layer.nonfinite_count))
        table.add_row(*map(Text, cells), style="red" if blamed[shown] else None)
    return table


def _shown(blamed: Sequence[bool]) -> Iterator[int | str]:
    """Indices of the layers to show, and words for each gap between them."""
    hidden = named = 0
    for index, guilty in enumerate(blamed):
        named += guilty
        outermost = index < _OUTERMOST or index >= len(blamed) - _OUTERMOST
        told = guilty and named <= _MOST_LAYERS
        if len(blamed) > _MOST_LAYERS and not outermost and not told:
            hidden += 1
            continue
        if hidden:
            yield f"… {hidden} {'layer' if hidden == 1 else 'layers'} not shown"
            hidden = 0
        yield index


def _figures(history: Sequence[Diagnosis]) -> str:
    first, last = history[0], history[-1]
    steps = "1 step" if len(history) == 1 else f"{len(history)} steps"
    span = f"{first.step}" if len(history) == 1 else f"{first.step} to {last.step}"
    model = last.reading.model
    return (
        f"Recorded {steps}: {span}. "
        f"Vanishing score {_score(first.vanishing_score)} → {_score(last.vanishing_score)}, "
        f"exploding score {_score(first.exploding_score)} → {_score(last.exploding_score)}. "
        f"Global norm {_number(model.gradient_norm)}, after clipping "
        f"{_number(model.gradient_norm_after_clipping)}."
    )


def _probed(diagnosis: Diagnosis) -> Iterator[str]:
    """Lines from the probe: the components of the scores, and the horizon of recurrent layers."""
    if diagnosis.reading.probed is None:
        return
    known = [(n, score) for n, score in diagnosis.components.items() if not math.isnan(score)]
    if known:
        yield "Components: " + ", ".join(f"{name} {_score(score)}" for name, score in known) + "."
    for name, recurrent in diagnosis.reading.timesteps.items():
        if not math.isnan(recurrent.horizon):
            yield (
                f"Horizon of {clean(name)}: the gradient reaches {recurrent.horizon:.0f} of "
                f"{len(recurrent.rms) - 1} steps back."
            )


def _number(value: float) -> str:
    return _MISSING if math.isnan(value) else "0" if value == 0 else f"{value:.1e}"


def _score(value: float) -> str:
    return _MISSING if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    if math.isnan(value):
        return _MISSING
    return "<1%" if 0 < value < 0.005 else f"{100 * value:.0f}%"


def _count(value: float) -> str:
    if math.isnan(value):
        return _MISSING
    if value < 1e4:
        return f"{value:.0f}"
    unit, name = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= pair[0])
    return f"{value / unit:.1f}{name}"


def _bar(value: float, largest: float) -> str:
    """A bar for log10 of the value relative to the largest; it loses a cell a decade."""
    if math.isnan(value):
        return _MISSING
    if not math.isfinite(value) or not 0 < value <= largest:
        return ""
    decades = math.log10(value) - math.log10(largest)
    halves = max(0, round(2 * (_BAR_DECADES + decades)))
    bar = "█" * (halves // 2) + "▌" * (halves % 2)
    return f"{bar:<{_BAR_DECADES}} {decades:>5.1f}"
