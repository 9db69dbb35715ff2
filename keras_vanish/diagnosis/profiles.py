"""How loud the loss is at each layer, and how much of it is lost or gained on the way.

The definitions, their derivation and the evidence for the constants stand in
`docs/score.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.readings import LayerReading
from keras_vanish.records.recurrent import RecurrentReading

#: The decay from the output to the input, in decades, at which a score is 0.5.
CRITICAL_DECAY = 2.0

#: A layer that one update changes by more than this share of its weights is opening: it began at
#: or near zero, holds back the gradient now, and lets it through soon.
OPENING_RATIO = 0.1

#: A layer with more exact zeros than this in its gradient has sparse inputs: it is a table of
#: which the batch uses a few rows, such as an embedding, or most of it is inactive.
SPARSE_FRACTION = 0.5

#: Names of layers, and log10 of how loud the loss is there.
Profile = list[tuple[str, float]]


def signal(layer: LayerReading) -> float:
    """An estimate of the norm of the gradient that arrived at a layer's output.

    For a dense layer `dL/dW = x (dL/dz)^T`. With inputs `x` of RMS near 1, which
    initialisers and normalisation aim at (Glorot & Bengio 2010), the RMS of `dL/dW` is
    the RMS of `dL/dz`, and its norm is that times the root of the number of outputs.
    Entries that are exactly zero (inputs that are always zero, dead units) are left out of
    the RMS. Where most are zero (`SPARSE_FRACTION`), the inputs are nearer to one-hot ones,
    of norm 1: there the norm of `dL/dW` is that of `dL/dz`.

    Returns:
        A positive number, or NaN where the layer has no gradient or only zeros.
    """
    active = 1.0 - layer.zero_fraction
    if not (layer.gradient_rms > 0 and active > 0):
        return math.nan
    if layer.zero_fraction > SPARSE_FRACTION:
        return layer.gradient_norm if layer.gradient_norm > 0 else math.nan
    return layer.gradient_rms / math.sqrt(active) * math.sqrt(layer.units)


def weight_profile(layers: Sequence[LayerReading]) -> Profile:
    """The layers that tell something about depth, with log10 of their `signal`.

    Layers without a gradient, with zeros only, and opening ones (`OPENING_RATIO`) tell nothing.
    """
    signals = [(layer.name, signal(layer)) for layer in layers if not is_opening(layer)]
    return [(name, math.log10(value)) for name, value in signals if value > 0]


def is_opening(layer: LayerReading) -> bool:
    """Whether one update changes so much of the layer's weights that it is opening."""
    return layer.update_ratio >= OPENING_RATIO


def activation_profile(
    layers: Sequence[LayerReading], activations: Sequence[ActivationReading]
) -> Profile:
    """The probed layers, with log10 of the norm of dL/dh, the gradient of their output.

    That is the quantity of the theory, `dL/dh[k-1] = transpose(J[k]) dL/dh[k]` (Hochreiter
    1991; Bengio et al. 1994): nothing about the inputs has to be assumed. Layers whose
    gradient is zero throughout and outputs of opening layers are left out, as in
    `weight_profile`.
    """
    opening = {layer.name for layer in layers if is_opening(layer)}
    return [
        (activation.name, math.log10(activation.gradient_rms) + math.log10(activation.size) / 2)
        for activation in activations
        if 0 < activation.gradient_rms < math.inf
        and activation.size > 0
        and activation.name not in opening
    ]


def decay(profile: Sequence[float]) -> float:
    """How many decades a signal loses on its way from the output to the input.

    Args:
        profile: log10 of the signal of each layer, input side first.

    Returns:
        The decades lost, at least 0; NaN for fewer than two layers. For a signal that
        loses the same at each layer it is the total, however many layers there are.

    With `top` the largest value, the decay is `(top - profile[k]) / (1 - k / (layers - 1))`
    at that `k` in the first third of the layers where this is smallest: a layer there
    that still hears the loss shows that the signal arrives, and layers that are quiet by
    construction do not decide alone.
    """
    last = len(profile) - 1
    if last < 1:
        return math.nan
    top = max(profile)
    return min((top - profile[k]) / (1 - k / last) for k in range(last // 3 + 1))


def score_of_decay(decades: float) -> float:
    """`1 - 2**(-decades / CRITICAL_DECAY)`: 0 for no decay, 0.5 at the critical one."""
    # The one NaN: diagnoses that miss the same compare equal.
    return math.nan if math.isnan(decades) else 1.0 - 2.0 ** (-decades / CRITICAL_DECAY)


def vanishing_by(profile: Profile) -> float:
    """How much is lost between the output and the input: `score_of_decay(decay(...))`.

    Multiplying every gradient by a constant does not change it.

    Returns:
        A number in [0, 1], or NaN where fewer than two layers tell.
    """
    return score_of_decay(decay([value for _, value in profile]))


def growth_by(profile: Profile) -> float:
    """How much is gained between the output and the input: `vanishing_by`, reversed."""
    return vanishing_by(profile[::-1])


def time_decay(recurrent: RecurrentReading) -> float:
    """The decades that dL/dh_t loses on its way from the last time step to the first.

    `decay` over the time steps; values too small for a float32 count as 1e-45.

    Returns:
        The decades, or NaN where fewer than two time steps tell.
    """
    known = [value for value in recurrent.rms if not math.isnan(value)]
    if not known or not all(math.isfinite(value) for value in known) or max(known) == 0:
        return math.nan
    return decay([math.log10(max(value, 1e-45)) for value in known])


def starved(profile: Profile) -> list[str]:
    """The layers whose signal lies `CRITICAL_DECAY` or more below the largest."""
    values = [value for _, value in profile]
    # The score and this limit may differ by a rounding: some layer is always named.
    limit = max(max(values) - CRITICAL_DECAY, min(values))
    return [name for name, value in profile if value <= limit]


def overgrown(profile: Profile) -> list[str]:
    """The layers whose signal lies `CRITICAL_DECAY` or more above that of the last layer."""
    values = [value for _, value in profile]
    limit = min(values[-1] + CRITICAL_DECAY, max(values))
    return [name for name, value in profile if value >= limit]
