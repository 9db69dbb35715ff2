"""A note that precedes the advice of every verdict: float16 has rounded gradients to zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_vanish.diagnosis.findings.evidence import Evidence
from keras_vanish.diagnosis.findings.words import named
from keras_vanish.records.readings import LayerReading

#: The smallest positive number of float16 (IEEE 754-2019, binary16). Half of it is rounded to
#: zero.
FLOAT16_SMALLEST = 2.0**-24

# The histogram of a gradient counts a sample of at least so many entries.
_SAMPLED = 1024

# Chance is ruled out once so many entries are expected where there are none.
_MISSED = 20

_WORDS = (
    "float16 rounds gradients below 6e-8 to zero, here in {layers}: let Keras scale the loss "
    "(auto_scale_loss=True in compile, optimizer.scale_loss in a train step of your own), or use "
    'the policy "mixed_bfloat16".'
)


def note(evidence: Evidence) -> str:
    """A suggestion where float16 has rounded gradients to zero; empty where it has not."""
    cut = cut_by_float16(evidence.layers)
    return named(_WORDS, cut) if cut else ""


def cut_by_float16(layers: Sequence[LayerReading]) -> list[str]:
    """The layers of whose gradient float16 has rounded a part to zero.

    A gradient that was computed in float16, and not scaled, has entries that are zero, and none
    between zero and half of `FLOAT16_SMALLEST`. Zeros of another origin leave no such gap: of
    entries with the RMS `r` and a density that is level around zero, a share of about
    `FLOAT16_SMALLEST / 2 / r` lies there; for a normal distribution it is 0.8 of that. The gap
    is one where at least `_MISSED` entries are expected by half of that share.

    Where training scales its loss by `s`, the gap lies below `FLOAT16_SMALLEST / 2 / s`. This
    function does not look there.
    """
    cut = []
    for layer in layers:
        active = 1.0 - layer.zero_fraction
        if not (layer.gradient_rms > 0 and 0 < active < 1) or layer.float16_underflow > 0:
            continue
        share = min(1.0, FLOAT16_SMALLEST / 2 / (layer.gradient_rms / math.sqrt(active)))
        if share / 2 * active * min(layer.size, _SAMPLED) >= _MISSED:
            cut.append(layer.name)
    return cut
