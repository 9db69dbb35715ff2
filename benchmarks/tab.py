"""How fast the tab "Gradient flow" draws: `python benchmarks/tab.py`.

Writes a run of 500 layers by 2,000 recorded steps, serves it with TensorBoard under both of its
loaders, opens the tab in Chromium, and prints how long it took to draw and how many frames a
second it scrolls at. Needs playwright and a Chromium (`KERAS_VANISH_BROWSER`, or one on the
path); takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from keras_vanish.capture.columns import ACTIVATIONS
from keras_vanish.diagnosis import diagnose
from keras_vanish.events import EventWriter
from keras_vanish.reading import COLUMNS, Probed, Reading


def reading(step: int, steps: int, layers: int) -> Reading:
    """A deep stack whose gradients vanish less and less as it trains."""
    random = np.random.default_rng(step)
    depth = np.linspace(0, 1, layers)
    decades = 9 * (1 - depth) * (1 - 0.75 * step / steps)
    rms = 10 ** (-2 - decades + random.normal(0, 0.15, layers))
    table = np.zeros([layers, len(COLUMNS)])
    columns = dict(zip(COLUMNS, table.T))
    columns["size"][:] = 64 * 64
    columns["gradient_rms"][:] = rms
    columns["gradient_norm"][:] = columns["gradient_norm_after_clipping"][:] = rms * 64
    columns["gradient_min"][:], columns["gradient_max"][:] = -3 * rms, 3 * rms
    columns["weight_rms"][:] = 0.12
    columns["update_rms"][:] = 1e-2 * rms
    seen = np.full([layers, len(ACTIVATIONS)], np.nan)
    of = dict(zip(ACTIVATIONS, seen.T))
    of["size"][:], of["output_rms"][:], of["gradient_rms"][:] = 64, 1, rms
    of["gradient_nonfinite_count"][:] = of["output_nonfinite_count"][:] = 0
    of["saturated_fraction"][:] = 0.4 * (1 - depth)
    names = tuple(f"block_{number // 10}/dense_{number % 10}" for number in range(layers))
    return Reading(
        step=10 * step,
        wall_time=1.7e9 + step,
        names=names,
        units=(64,) * layers,
        table=table,
        probed=Probed(1.0, 2.0, names, seen, {}),
    )


def write(log_dir: Path, layers: int, steps: int) -> None:
    """Writes a run; the scores, which the tab makes itself, are those of the first step."""
    first = diagnose(reading(0, steps, layers))
    writer = EventWriter(log_dir)
    for step in range(steps):
        diagnosis = dataclasses.replace(first, reading=reading(step, steps, layers))
        writer.write(diagnosis, None, "vanishing")
    writer.close()
