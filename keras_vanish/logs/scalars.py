"""The numbers of a recorded step that TensorBoard plots over steps."""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_vanish.diagnosis import Diagnosis
from keras_vanish.logs.tags import labels, utf8
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.statistics import COLUMNS


def scalars(diagnosis: Diagnosis) -> dict[str, float]:
    """The numbers that TensorBoard plots, by tag; missing numbers are left out."""
    reading = diagnosis.reading
    found = {
        "gradients/vanishing_score": diagnosis.vanishing_score,
        "gradients/exploding_score": diagnosis.exploding_score,
        "gradients/global_norm": reading.global_norm,
        "gradients/global_norm_after_clipping": reading.global_norm_after_clipping,
    }
    column = dict(zip(COLUMNS, reading.table.T))
    values = [column["gradient_rms"], reading.update_ratios, column["zero_fraction"]]
    found.update(zip(_layer_tags(reading.names), np.stack(values, 1).ravel().tolist()))
    found |= {f"components/{name}": score for name, score in diagnosis.components.items()}
    if reading.probed is not None:
        table = reading.probed.table[:, [ACTIVATION_COLUMNS.index(name) for name in _PLOTTED]]
        found.update(zip(_activation_tags(reading.probed.names), table.ravel().tolist()))
        for name, recurrent in reading.timesteps.items():
            found[utf8(f"horizon/{name}")] = recurrent.horizon
    return {tag: value for tag, value in found.items() if not math.isnan(value)}


@functools.lru_cache(maxsize=8)
def _layer_tags(names: tuple[str, ...]) -> list[str]:
    kinds = ("gradient_rms", "update_ratio", "zero_fraction")
    return [utf8(f"{kind}/{label}") for label in labels(names) for kind in kinds]


# The numbers of the probe that are plotted. A number that does not apply to a layer is missing.
_PLOTTED = ("gradient_rms", "dead_fraction", "saturated_fraction", "attention_entropy")


@functools.lru_cache(maxsize=8)
def _activation_tags(names: tuple[str, ...]) -> list[str]:
    kinds = ("activation_gradient_rms", *_PLOTTED[1:])
    return [utf8(f"{kind}/{label}") for label in labels(names) for kind in kinds]
