"""What is recorded of each layer's output.

A new number takes one field here; a backend then fills its column.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ActivationReading:
    """What the probe saw of one layer's output, over a slice of the batch.

    All numbers are floats. A number that is unknown or does not apply to the layer is NaN.

    Attributes:
        name: The layer's name in `model.summary()`; `block/query` if it is nested.
        depth: Its place in the order of the forward pass; 0 is nearest to the input.
        size: How many numbers the output has for one sample.
        gradient_rms: RMS of the finite entries of the gradient of the loss, a mean over
            the probed samples, with respect to the output.
        gradient_nonfinite_count: How many entries of that gradient are NaN or infinite.
        output_rms: RMS of the finite entries of the output.
        output_nonfinite_count: How many entries of the output are NaN or infinite.
        preactivation_mean: Mean of the activation function's input.
        preactivation_std: Standard deviation of that input.
        dead_fraction: Share of units of the ReLU family that are zero for every probed
            sample, in [0, 1].
        saturated_fraction: Share of the entries at which a bounded activation is nearly
            flat, in [0, 1]; see `docs/score.md`.
        attention_entropy: Mean entropy of the attention weights, in [0, 1]: 1 where
            every key has the same weight.
    """

    name: str
    depth: int
    size: float
    gradient_rms: float
    gradient_nonfinite_count: float
    output_rms: float
    output_nonfinite_count: float
    preactivation_mean: float
    preactivation_std: float
    dead_fraction: float
    saturated_fraction: float
    attention_entropy: float


#: The numbers of a layer's output, in the order in which they stand in its row, also in an event
#: file.
ACTIVATION_COLUMNS = tuple(
    field.name for field in fields(ActivationReading) if field.name not in ("name", "depth")
)

#: Those of them that may be negative.
SIGNED_ACTIVATIONS = frozenset({"preactivation_mean"})
