"""Readings become scores, a verdict and advice: pure functions, no TensorFlow.

The definitions, their derivation and the evidence for the constants stand in
`docs/score.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from keras_vanish.reading import LayerReading, Reading

Verdict = Literal["healthy", "vanishing", "exploding", "nonfinite", "unknown"]

#: Scores at or above this are flagged.
THRESHOLD = 0.5

#: The decay from the output to the input, in decades, at which a score is 0.5.
CRITICAL_DECAY = 2.0

#: A layer that one update changes by more than this share of its weights is opening:
#: it began at or near zero, and what it holds back now it lets through soon.
OPENING_RATIO = 0.1

#: A layer with more exact zeros than this in its gradient has sparse inputs: it is a table of
#: which the batch uses a few rows, such as an embedding, or most of it is inactive.
SPARSE_FRACTION = 0.5

#: How many readings in a row must agree before the run's verdict follows them.
AGREEING_READINGS = 3


@dataclass(frozen=True)
class Diagnosis:
    """What one reading says about a run.

    Attributes:
        reading: The reading.
        vanishing_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        exploding_score: In [0, 1], flagged at 0.5 or more; NaN if it cannot be known.
        verdict: `"healthy"`, `"vanishing"`, `"exploding"`, `"nonfinite"` or `"unknown"`.
        blame: Names of the layers that the verdict rests on, input side first.
        advice: What to try, most useful first.
        components: What the vanishing score is the largest of, by name.
    """

    reading: Reading
    vanishing_score: float
    exploding_score: float
    verdict: Verdict
    blame: tuple[str, ...]
    advice: tuple[str, ...]
    components: Mapping[str, float] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """How many updates the optimizer had applied before the recorded one."""
        return self.reading.step

    def sentence(self) -> str:
        """The verdict in plain words, with the layers to blame."""
        if not self.blame:
            return _SENTENCES_WITHOUT_LAYERS[self.verdict]
        return _SENTENCES[self.verdict].format(layers=_listed(self.blame))


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


def decay(profile: Sequence[float]) -> float:
    """How many decades a signal loses on its way from the output to the input.

    Args:
        profile: log10 of the signal at each layer, input side first.

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


def _signals(layers: Sequence[LayerReading]) -> list[tuple[LayerReading, float]]:
    """The layers that tell something about depth, with log10 of their signal."""
    return [
        (layer, math.log10(signal(layer)))
        for layer in layers
        if not math.isnan(signal(layer)) and not layer.update_ratio >= OPENING_RATIO
    ]


def vanishing_score(layers: Sequence[LayerReading]) -> float:
    """How much of the gradient is lost between the output and the input.

    `score_of_decay(decay(log10(signal)))` over the layers that have a gradient other
    than zero and are not opening (`OPENING_RATIO`). Multiplying every gradient by a
    constant does not change it.

    Args:
        layers: The layers of one reading, input side first.

    Returns:
        A number in [0, 1], or NaN where fewer than two layers tell.
    """
    return score_of_decay(decay([value for _, value in _signals(layers)]))


def exploding_score(layers: Sequence[LayerReading]) -> float:
    """How much the gradient grows towards the input, or breaks the weights.

    The larger of two components. Depth: `score_of_decay` of the decades by which the
    signal grows from the output to the input. Update: `u / (1 + u)`, where `u` is the
    median of the layers' update ratios: 0.5 where one update changes the weights by as
    much as they are.

    Args:
        layers: The layers of one reading, input side first.

    Returns:
        A number in [0, 1], or NaN where neither component is known.
    """
    growth = _growth(layers)
    ratios = [layer.update_ratio for layer in layers if not math.isnan(layer.update_ratio)]
    ratio = median(ratios) if ratios else math.nan
    broken = 1.0 if ratio == math.inf else ratio / (1.0 + ratio)
    known = [component for component in (growth, broken) if not math.isnan(component)]
    return max(known, default=math.nan)


def diagnose(reading: Reading) -> Diagnosis:
    """Scores, verdict, blame and advice for one reading.

    NaN or Inf in a gradient come first, then explosion, then vanishing. Without a
    vanishing score the verdict is `"unknown"`, unless one of the former is certain.
    """
    layers = reading.layers
    vanishing, exploding = vanishing_score(layers), exploding_score(layers)
    verdict: Verdict
    blame: list[str] = []
    if any(layer.nonfinite_count > 0 for layer in layers):
        verdict = "nonfinite"
        blame = [layer.name for layer in layers if layer.nonfinite_count > 0]
    elif exploding >= THRESHOLD:
        verdict = "exploding"
        blame = _overgrown(layers)
    elif math.isnan(vanishing):
        verdict = "unknown"
        blame = [layer.name for layer in layers if layer.gradient_rms == 0]
    elif vanishing >= THRESHOLD:
        verdict = "vanishing"
        blame = _starved(layers)
    else:
        verdict = "healthy"
    return Diagnosis(reading, vanishing, exploding, verdict, tuple(blame), _ADVICE[verdict])


def _growth(layers: Sequence[LayerReading]) -> float:
    return score_of_decay(decay([value for _, value in reversed(_signals(layers))]))


def _starved(layers: Sequence[LayerReading]) -> list[str]:
    signals = _signals(layers)
    values = [value for _, value in signals]
    # The score and this limit may differ by a rounding: some layer is always named.
    limit = max(max(values) - CRITICAL_DECAY, min(values))
    return [layer.name for layer, value in signals if value <= limit]


def _overgrown(layers: Sequence[LayerReading]) -> list[str]:
    blamed = {layer.name for layer in layers if layer.update_ratio >= 1}
    if _growth(layers) >= THRESHOLD:
        signals = _signals(layers)
        values = [value for _, value in signals]
        limit = min(values[-1] + CRITICAL_DECAY, max(values))
        blamed |= {layer.name for layer, value in signals if value >= limit}
    return [layer.name for layer in layers if layer.name in blamed]


def steadied(previous: Verdict, recent: Sequence[Verdict]) -> Verdict:
    """The verdict on a run so far: it follows readings that agree.

    Args:
        previous: The run's verdict before the last reading; `"unknown"` at first.
        recent: The verdicts of the run's last readings, oldest first; at least the
            last `AGREEING_READINGS` of them, or all.

    Returns:
        The verdict on which the last readings agree: `AGREEING_READINGS` of them, or
        both where there are only two. `previous` if they do not agree. NaN and Inf
        count at once.
    """
    if recent[-1] == "nonfinite":
        return "nonfinite"
    last = set(recent[-AGREEING_READINGS:])
    if len(recent) >= 2 and len(last) == 1:
        return recent[-1]
    return previous


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


_SENTENCES_WITHOUT_LAYERS: dict[Verdict, str] = {
    "healthy": "Gradients reach the whole network.",
    "unknown": "Too few layers have a gradient that tells.",
}

_SENTENCES: dict[Verdict, str] = {
    "vanishing": "Gradients vanish on the way to the input. Starved: {layers}.",
    "exploding": "Gradients explode. Too large: {layers}.",
    "nonfinite": "Gradients are NaN or infinite in {layers}.",
    "unknown": "Too few layers have a gradient that tells. Exactly zero: {layers}.",
}

_ADVICE: dict[Verdict, tuple[str, ...]] = {
    "healthy": (),
    "vanishing": (
        "Replace sigmoid and tanh in hidden layers by ReLU, GELU or another activation "
        'whose slope does not shrink, with kernel_initializer="he_normal".',
        "Put a normalisation layer (BatchNormalization, LayerNormalization) between the layers.",
        "Add residual connections, so that gradients have a short way to the early layers.",
        "In recurrent networks use LSTM or GRU in place of SimpleRNN, or shorter sequences.",
    ),
    "exploding": (
        "Clip: optimizer=Adam(global_clipnorm=1.0).",
        "Lower the learning rate by a factor of ten.",
        'Check the initialisers: "he_normal" for ReLU, "glorot_uniform" for tanh.',
    ),
    "nonfinite": (
        "Look for NaN or infinite values in the inputs, the labels and the sample weights.",
        "Lower the learning rate, and clip: optimizer=Adam(global_clipnorm=1.0).",
        "Guard logarithms, square roots and divisions in custom losses and layers.",
    ),
    "unknown": (
        "If gradients stay exactly zero, look for ReLU units that are all dead, a loss that "
        "does not depend on the layers, or tf.stop_gradient.",
    ),
}
