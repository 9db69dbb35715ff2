"""The rules that others use to call a training run sick, over the same observations.

Each rule is written anew from its published description, with its default thresholds. It
is a pure function from the observations of a run, oldest first, to its alarms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["vanishing", "exploding"]

#: An alarm: the step, and which way the gradients are said to go. Dead and saturated units
#: let no gradient through: alarms about them count as "vanishing".
Alarm = tuple[int, Direction]


@dataclass(frozen=True)
class Variable:
    """What was seen of one trained variable.

    Attributes:
        layer: Type of the layer it belongs to, such as `"Dense"`.
        kernel: Whether it is a matrix or larger, not a bias or a scale.
        size: How many entries it has.
        norm: Euclidean norm of its gradient, before clipping.
        mean: Mean of the gradient's absolute values.
        zeros: Share of the gradient's entries that are exactly zero.
        finite: Whether all entries of the gradient and of the weights are finite.
        weight: Euclidean norm of the weights.
        changed: Whether any weight differs from the observation before.
    """

    layer: str
    kernel: bool
    size: int
    norm: float
    mean: float
    zeros: float
    finite: bool
    weight: float
    changed: bool


@dataclass(frozen=True)
class Activation:
    """What was seen of the outputs of one layer with an activation. Shares are in [0, 1].

    Attributes:
        function: Its name in Keras, such as `"relu"`.
        nonpositive: Share of outputs that are zero or less.
        inactive: Share of units that are above zero for less than 1% of the examples.
        quiet: Share of units whose absolute output's 95th percentile is below 1e-5.
        beyond_5: Share of pre-activations below -5 or above 5; NaN where not seen.
        clamped: Share of units for which 99% of the pre-activations lie outside of
            (-9.4999, 9.4999) for tanh, (-23, 16.99999) for sigmoid; NaN where not seen.
        bounded: Share of units with a saturation (`rho`) above 0.85; NaN if unbounded.
        flat: Share of outputs within 0.5% of the range from its ends; NaN if unbounded.
    """

    function: str
    nonpositive: float
    inactive: float
    quiet: float
    beyond_5: float
    clamped: float
    bounded: float
    flat: float


@dataclass(frozen=True)
class Observation:
    """What was seen at one step, before its update.

    Attributes:
        step: Number of the step.
        loss: Loss on the batch.
        accuracy: Accuracy on the batch; NaN for regression.
        rate: Learning rate.
        variables: The trained variables, in the model's order.
        activations: The layers with an activation, in the model's order.
    """

    step: int
    loss: float
    accuracy: float
    rate: float
    variables: tuple[Variable, ...] = field(default=())
    activations: tuple[Activation, ...] = field(default=())

    @property
    def kernels(self) -> list[Variable]:
        """The variables that are kernels."""
        return [variable for variable in self.variables if variable.kernel]


def sagemaker(seen: Sequence[Observation]) -> Iterator[Alarm]:
    """SageMaker Debugger's built-in rules (Rauschmayr et al., MLSys 2021; AWS documentation).

    VanishingGradient: any gradient with mean|g| < 1e-7. ExplodingTensor: NaN or Inf.
    DeadRelu: over 50% of a layer's units active for less than 1% of the examples.
    SaturatedActivation: over 50% of a layer's units with inputs beyond the clamps.
    """
    for now in seen:
        if not _all_finite(now):
            yield now.step, "exploding"
        vanishing = any(v.mean < 1e-7 for v in now.variables)
        dead = any(a.function == "relu" and a.inactive > 0.5 for a in now.activations)
        if vanishing or dead or any(a.clamped > 0.5 for a in now.activations):
            yield now.step, "vanishing"


def autotrainer(seen: Sequence[Observation], gate: bool = True) -> Iterator[Alarm]:
    """AutoTrainer (Zhang et al., ICSE 2021).

    Looks every 3 epochs, after 30% of them, and only while the accuracy is below 0.7: that
    is the gate. Vanishing: first over last kernel's gradient norm < 1e-3 and the first's
    < 1e-4. Exploding: that ratio > 70, or the loss NaN, or >= 1e3 with NaN about. Dying: 70%
    or more of the kernels' gradient entries exactly zero. An epoch is 50 steps here.
    Its rules on oscillation and slow convergence say nothing of gradients and are left out.
    """
    due = 150.0
    for now in seen:
        if now.step + 10 < due or now.step < 0.3 * seen[-1].step:
            continue
        due += 150.0
        # Without an accuracy, as in regression, the gate never opens.
        if gate and not now.accuracy < 0.7 and not math.isnan(now.loss):
            continue
        first, last = now.kernels[0].norm, now.kernels[-1].norm
        ratio = first / last if last > 0 else math.nan
        if ratio > 70 or math.isnan(now.loss) or (now.loss >= 1e3 and not _all_finite(now)):
            yield now.step, "exploding"
        total = sum(v.size for v in now.kernels)
        zeros = sum(v.zeros * v.size for v in now.kernels) / total
        if (ratio < 1e-3 and first < 1e-4) or zeros >= 0.7:
            yield now.step, "vanishing"


def deepdiagnosis(seen: Sequence[Observation], updates: bool = False) -> Iterator[Alarm]:
    """DeepDiagnosis (Wardat et al., ICSE 2022).

    Vanishing: mean|g| < 1e-7 in a dense layer. Dead: 70% or more of a layer's ReLU outputs
    <= 0. Saturated: over 50% of a layer's inputs to tanh or sigmoid beyond 5. Unchanged: a
    kernel that is the same over 5 checks. With `updates`: rate * |g| / |w| of a kernel
    outside of 1e-5 to 1e-1, which it reports as a wrong learning rate.
    """
    for place, now in enumerate(seen):
        window = seen[max(0, place - 4) : place + 1]
        dense = [v for v in now.kernels if v.layer == "Dense"]
        if (
            any(v.mean < 1e-7 for v in dense)
            or any(a.function == "relu" and a.nonpositive >= 0.7 for a in now.activations)
            or any(a.beyond_5 > 0.5 for a in now.activations if a.bounded == a.bounded)
            or (len(window) == 5 and any(_unchanged(kernel) for kernel in _kernels(window)))
        ):
            yield now.step, "vanishing"
        if updates:
            yield from _updates(now, 1e-5, 1e-1)


def thedeepchecker(seen: Sequence[Observation], updates: bool = False) -> Iterator[Alarm]:
    """TheDeepChecker (Ben Braiek & Khomh, TOSEM 2022), every 10 steps from step 10.

    Vanishing: a kernel's mean|g| < 1e-6, and halved over a window of 5 checks. Exploding:
    > 1e6 and doubled, or NaN or Inf. Dead: |output| < 1e-5 at the 95th percentile for over
    50% of a layer's units. Saturated: rho > 0.85 for over 50%. With `updates`: the update
    over the weights of a kernel outside of 1e-4 to 1e-1.
    """
    for place, now in enumerate(seen):
        if now.step < 10:
            continue
        past = seen[place - 4] if place >= 4 else None
        pairs = list(zip(past.kernels, now.kernels)) if past else []
        if any(b.mean > 1e6 and b.mean >= 2 * a.mean for a, b in pairs) or not _all_finite(now):
            yield now.step, "exploding"
        if any(b.mean < 1e-6 and b.mean <= 0.5 * a.mean for a, b in pairs) or any(
            a.quiet > 0.5 or a.bounded > 0.5 for a in now.activations
        ):
            yield now.step, "vanishing"
        if updates:
            yield from _updates(now, 1e-4, 1e-1)


def absolute_norm(seen: Sequence[Observation]) -> Iterator[Alarm]:
    """Any gradient with a norm below 1e-7 (trainpulse), or NaN or Inf."""
    for now in seen:
        if not _all_finite(now):
            yield now.step, "exploding"
        if any(v.norm < 1e-7 for v in now.variables):
            yield now.step, "vanishing"


PEERS: dict[str, Callable[[Sequence[Observation]], Iterator[Alarm]]] = {
    "SageMaker Debugger": sagemaker,
    "AutoTrainer": autotrainer,
    "AutoTrainer, no gate": lambda seen: autotrainer(seen, gate=False),
    "DeepDiagnosis": deepdiagnosis,
    "DeepDiagnosis, with updates": lambda seen: deepdiagnosis(seen, updates=True),
    "TheDeepChecker": thedeepchecker,
    "TheDeepChecker, with updates": lambda seen: thedeepchecker(seen, updates=True),
    "norm < 1e-7": absolute_norm,
}


def _all_finite(now: Observation) -> bool:
    return math.isfinite(now.loss) and all(v.finite for v in now.variables)


def _kernels(window: Sequence[Observation]) -> Iterator[tuple[Variable, ...]]:
    """Each kernel through the window."""
    return zip(*(now.kernels for now in window))


def _unchanged(kernel: tuple[Variable, ...]) -> bool:
    return not any(seen.changed for seen in kernel)


def _updates(now: Observation, low: float, high: float) -> Iterator[Alarm]:
    """Of the plain step: the rate times the gradient's norm, over the weights'."""
    ratios = [now.rate * v.norm / v.weight for v in now.kernels if v.weight > 0]
    if any(ratio < low for ratio in ratios):
        yield now.step, "vanishing"
    if any(ratio > high for ratio in ratios):
        yield now.step, "exploding"
