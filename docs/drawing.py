"""How the pictures of these pages are drawn: the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize

HERE = Path(__file__).parent

# Where SVG keeps its time and its random names, it differs each time.
mpl.rcParams.update({"svg.hashsalt": "keras-vanish", "svg.fonttype": "none"})

#: Perceptually uniform, and the same to the colour-blind (Nuñez, Anderton & Renslow 2018).
MAP = mpl.colormaps["cividis"]


@dataclass(frozen=True)
class Panel:
    """One heatmap.

    Attributes:
        title: Stands above it.
        values: Float64 array of shape `[rows, steps]`, the lowest row first; NaN for what is
            missing, infinity for NaN or Inf.
        rows: What each row is called; or, where rows are numbers, their name alone.
        steps: The update of each column.
        line: A row for each column, drawn over it; empty for none.
    """

    title: str
    values: npt.NDArray[np.float64]
    rows: Sequence[str]
    steps: Sequence[int]
    line: Sequence[float] = ()


def save(figure: Any, name: str) -> None:
    """Writes a picture beside the pages."""
    figure.savefig(HERE / name, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


@mpl.rc_context({"font.size": 8})
def heatmaps(name: str, panels: Sequence[Panel], meaning: str, decades: bool) -> None:
    """Heatmaps side by side, with one scale.

    Args:
        name: Of the file.
        panels: The heatmaps.
        meaning: What a colour stands for.
        decades: Whether colours stand for powers of ten, or for shares from 0 to 1.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(8, 2.9), layout="constrained", dpi=100)
    low, high = _range(panels) if decades else (0.0, 1.0)
    scale = Normalize(low, high)
    for axis, panel in zip(axes, panels):
        _draw(axis, panel, scale, decades)
    bar = figure.colorbar(mpl.cm.ScalarMappable(scale, MAP), ax=axes, pad=0.01, aspect=30)
    bar.set_label(meaning)
    if decades:
        every = max(1, round((high - low) / 6))
        ticks = range(int(high), int(low) - 1, -every)
        bar.set_ticks(list(ticks), labels=[f"1e{tick}" for tick in ticks])
    save(figure, name)


def _range(panels: Sequence[Panel]) -> tuple[float, float]:
    values = np.concatenate([panel.values.ravel() for panel in panels])
    known = np.log10(values[(values > 0) & np.isfinite(values)])
    # What lies further down is as dark.
    high = float(np.ceil(known.max()))
    return max(float(np.floor(known.min())), high - 16), high


def _draw(axis: Any, panel: Panel, scale: Normalize, decades: bool) -> None:
    values = panel.values
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(values) if decades else values
    colors = MAP(scale(np.where(np.isfinite(shown), shown, scale.vmin)))
    if decades:
        colors[values == 0] = (1, 1, 1, 1)
    colors[np.isnan(values)] = (0, 0, 0, 0)
    colors[np.isinf(values)] = (0.84, 0.15, 0.16, 1)
    axis.patch.set(facecolor="#e0e0e0", hatch="////", edgecolor="#a0a0a0")
    axis.imshow(colors, aspect="auto", origin="lower", interpolation="nearest")
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel("step")
    ticks = np.linspace(0, len(panel.steps) - 1, 4).astype(int)
    axis.set_xticks(ticks, [str(panel.steps[tick]) for tick in ticks])
    if len(panel.rows) == 1:
        axis.set_ylabel(panel.rows[0])
    else:
        axis.set_yticks(range(len(panel.rows)), panel.rows, fontsize=7)
    if len(panel.line):
        axis.plot(panel.line, color="white", linewidth=2.5)
        axis.plot(panel.line, color="black", linewidth=1)
        axis.set_ylim(-0.5, len(values) - 0.5)
