"""What the scores are made of: pure functions of one reading, no TensorFlow.

The definitions, their derivation and the evidence for the constants stand in
`docs/score.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading

#: Scores at or above this are flagged.
THRESHOLD = 0.5

#: The decay from the output to the input, in decades, at which a score is 0.5.
CRITICAL_DECAY = 2.0

#: A run has learned something once looking at the input saves this share of the loss.
LEARNED_SHARE = 0.05

#: How many readings must be there before a run can be said not to have learned anything.
PATIENCE = 3

#: An update component at or above this is certain by itself: half of the layers have lost what
#: they held, to an update four times as large.
DECISIVE_UPDATE = 0.8

#: A layer that one update changes by more than this share of its weights is opening:
#: it began at or near zero, and what it holds back now it lets through soon.
OPENING_RATIO = 0.1

#: A layer with more exact zeros than this in its gradient has sparse inputs: it is a table of
#: which the batch uses a few rows, such as an embedding, or most of it is inactive.
SPARSE_FRACTION = 0.5

#: The smallest positive number of float16 (IEEE 754-2019, binary16). Half of it is rounded to
#: zero.
FLOAT16_SMALLEST = 2.0**-24

# Of so many entries of a gradient, at least, its histogram counts a sample.
_SAMPLED = 1024

# So many entries are expected where none is, before chance is ruled out.
_MISSED = 20

# Losses that differ by a smaller share than this are the same but for rounding.
_SAME_LOSS = 1e-6

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

    Layers without a gradient, with zeros only, and opening ones (`OPENING_RATIO`) do not.
    """
    signals = [(layer.name, signal(layer)) for layer in layers if not _opening(layer)]
    return [(name, math.log10(value)) for name, value in signals if value > 0]


def _opening(layer: LayerReading) -> bool:
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
    opening = {layer.name for layer in layers if _opening(layer)}
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


def learned_share(probed: Probed | None) -> float:
    """The share of the loss that the model saves because it looks at its input.

    `1 - loss / shuffled_loss`: 0 for a model that only knows how frequent each label is, 1
    for one that is always right. The idea is that of permutation importance (Breiman,
    "Random Forests", 2001), for all of the input at once.

    Returns:
        The share, below 0 by chance; NaN where it cannot be known.
    """
    if probed is None or not math.isfinite(probed.loss) or not probed.shuffled_loss:
        return math.nan
    return (probed.shuffled_loss - probed.loss) / abs(probed.shuffled_loss)


@dataclass(frozen=True)
class LearningProgress:
    """Whether a run has learned anything, as far as the probe saw.

    Attributes:
        count: How many readings tell.
        share: The `learned_share` of the last one.
        best: The largest mean share of two readings that follow each other.
    """

    count: int = 0
    share: float = math.nan
    best: float = -math.inf

    def after(self, reading: Reading) -> LearningProgress:
        """The course with one more reading; one that does not tell changes nothing."""
        share = learned_share(reading.probed)
        if not math.isfinite(share):
            return self
        if self.count == 0:
            return LearningProgress(1, share)
        return LearningProgress(self.count + 1, share, max(self.best, (self.share + share) / 2))

    @property
    def learned(self) -> bool | None:
        """Whether it has reached `LEARNED_SHARE`; None before that can be told."""
        if self.best >= LEARNED_SHARE:
            return True
        return False if self.count >= PATIENCE else None


def time_decay(recurrent: RecurrentReading) -> float:
    """The decades that dL/dh_t loses on its way from the last time step to the first.

    `decay` over the time steps; what is too small for a float32 counts as 1e-45.

    Returns:
        The decades, or NaN where fewer than two time steps tell.
    """
    known = [value for value in recurrent.rms if not math.isnan(value)]
    if not known or not all(math.isfinite(value) for value in known) or max(known) == 0:
        return math.nan
    return decay([math.log10(max(value, 1e-45)) for value in known])


def by_time(timesteps: Mapping[str, RecurrentReading], course: LearningProgress) -> float:
    """How much is lost through time, in a run that has not learned anything.

    `score_of_decay(time_decay(...))` of the recurrent layer that loses most. Gates are half
    closed at first, and whether the past is needed depends on the task: an LSTM that learns
    all the same is not sick. So it is 0 once the run has learned anything of its input.

    Returns:
        A number in [0, 1], or NaN where there is no recurrent layer, or where it cannot be
        told yet whether the run learns.
    """
    decades = worst(*map(time_decay, timesteps.values()))
    if math.isnan(decades) or course.learned is None:
        return math.nan
    return 0.0 if course.learned else score_of_decay(decades)


def growth_by_time(timesteps: Mapping[str, RecurrentReading]) -> float:
    """How much is gained through time, on the way from the last time step to the first.

    `score_of_decay` of the decades in the reversed profile.

    Returns:
        A number in [0, 1] for the recurrent layer that gains most, or NaN without one.
    """
    gained = [time_decay(RecurrentReading(r.rms[::-1])) for r in timesteps.values()]
    return score_of_decay(worst(*gained))


def by_dead_units(activations: Sequence[ActivationReading], probed: Probed | None) -> float:
    """1 where a layer of dead units cuts the network in two, else 0.

    It does where all units of a layer of the ReLU family are zero for every probed sample,
    and no way leads around it: the gradient is exactly zero in all layers before it, or the
    loss is the same whatever the input. What lies before never learns again (Lu et al.,
    "Dying ReLU and Initialization", 2020).

    Returns:
        0 or 1, or NaN where no unit was probed that can die.
    """
    if all(math.isnan(activation.dead_fraction) for activation in activations):
        return math.nan
    deaf = abs(learned_share(probed)) < _SAME_LOSS
    silent, known = True, False
    for activation in activations:
        if activation.dead_fraction == 1.0 and (deaf or (known and silent)):
            return 1.0
        if not math.isnan(activation.gradient_rms):
            known, silent = True, silent and activation.gradient_rms == 0
    return 0.0


def by_silence(layers: Sequence[LayerReading], course: LearningProgress) -> float:
    """1 where no gradient at all arrives at the early layers, else 0.

    It is exactly zero in every layer of the first third that has one, and not in all others: it
    has become too small for its dtype, or something on its way stops it. A kernel or a branch
    that is initialised with zeros passes nothing back before its first update: so it is 0 while
    a layer is all zero or opening (`OPENING_RATIO`), and in the first readings (`PATIENCE`).

    Returns:
        0 or 1, or NaN where fewer than two layers have a gradient, or in the first readings.
    """
    known = [layer for layer in layers if not math.isnan(layer.gradient_rms)]
    if len(known) < 2 or course.learned is None:
        return math.nan
    # NaN arrives, too: the RMS is that of the other entries.
    heard = [layer.gradient_rms != 0 or layer.nonfinite_count > 0 for layer in known]
    beginning = any(_opening(layer) or layer.weight_rms == 0 for layer in known)
    silent = not any(heard[: (len(heard) - 1) // 3 + 1]) and any(heard)
    return float(silent and not beginning)


def by_saturation(activations: Sequence[ActivationReading]) -> float:
    """The `saturated_fraction` of the median layer that has one; NaN where none has.

    Where more than half of the entries of more than half of the layers are flat, their
    derivatives are nearly zero: the factor `diag(f'(z))` of the Jacobian (Glorot & Bengio
    2010).
    """
    shares = [a.saturated_fraction for a in activations if not math.isnan(a.saturated_fraction)]
    return median(shares) if shares else math.nan


def by_update(layers: Sequence[LayerReading]) -> float:
    """How far one update throws the weights: `u / (1 + u)`.

    `u` is the median of the layers' update ratios: it is 0.5 where one update changes the
    weights by as much as they are.

    Returns:
        A number in [0, 1], or NaN where no update ratio is known.
    """
    ratios = [layer.update_ratio for layer in layers if not math.isnan(layer.update_ratio)]
    ratio = median(ratios) if ratios else math.nan
    return 1.0 if ratio == math.inf else ratio / (1.0 + ratio)


def cut_by_float16(layers: Sequence[LayerReading]) -> list[str]:
    """The layers of whose gradient float16 has rounded a part to zero.

    A gradient that was computed in float16, and not scaled, has entries that are zero, and none
    between zero and half of `FLOAT16_SMALLEST`. Whatever else makes zeros leaves no such gap: of
    entries with the RMS `r` and a density that is level around zero, a share of about
    `FLOAT16_SMALLEST / 2 / r` lies there; for a normal distribution it is 0.8 of that. The gap
    is one where at least `_MISSED` entries are expected by half of that share.

    Where training scales its loss by `s`, the gap lies below `FLOAT16_SMALLEST / 2 / s`, where
    this does not look.
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


def worst(*components: float) -> float:
    """The largest of those that are known; NaN if none is."""
    return max((c for c in components if not math.isnan(c)), default=math.nan)
