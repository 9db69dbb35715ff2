"""What is recorded of each layer's gradient and weights.

A new statistic takes three lines of this file: an attribute with its documentation, its place
among the fields, and its rule. A backend then fills the column of `FLOATS` that the rule names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from keras_vanish.records.bins import BFLOAT16_FIRST_BIN, FLOAT16_FIRST_BIN, ZERO_BIN


@dataclass(frozen=True)
class Statistics:
    """Numbers about the gradient and the weights of some trained variables.

    All of them are floats. A missing or unknown number is NaN, never 0. The gradient is the one
    that training used: after loss scaling was removed, and before clipping.

    Attributes:
        size: How many entries have a gradient. If none has one, the number of all entries.
        gradient_rms: Root mean square of the finite entries, in units of loss per unit of
            weight. Norms, mean, minimum and maximum have the same unit.
        gradient_norm: Euclidean norm of the finite entries.
        gradient_norm_after_clipping: The same norm after the optimizer's own `clipnorm`,
            `global_clipnorm` or `clipvalue`.
        gradient_mean: Mean of the finite entries.
        gradient_min: Smallest finite entry.
        gradient_max: Largest finite entry.
        zero_fraction: Share of entries that are exactly zero, in [0, 1]. This share and the
            next two are over the entries that the histogram samples.
        float16_underflow: Share of entries that are not zero and that float16 would round to
            zero: those below 2**-25.
        bfloat16_underflow: Share of entries that are not zero and lie below 2**-126, the
            smallest normal number of bfloat16.
        nan_count: How many entries are NaN.
        inf_count: How many entries are infinite.
        weight_rms: RMS of the weights before the update.
        update_rms: RMS of the change that the update made to the weights, from the weights
            before and after it on the same entries.
    """

    size: float
    gradient_rms: float
    gradient_norm: float
    gradient_norm_after_clipping: float
    gradient_mean: float
    gradient_min: float
    gradient_max: float
    zero_fraction: float
    float16_underflow: float
    bfloat16_underflow: float
    nan_count: float
    inf_count: float
    weight_rms: float
    update_rms: float

    @property
    def update_ratio(self) -> float:
        """`update_rms / weight_rms`; NaN where every weight was zero."""
        return self.update_rms / self.weight_rms if self.weight_rms > 0 else math.nan

    @property
    def nonfinite_count(self) -> float:
        """How many entries of the gradient are NaN or infinite."""
        return self.nan_count + self.inf_count

    @property
    def weights_nonfinite(self) -> bool:
        """Whether weights are NaN or infinite, as far as they were read.

        False where this is unknown: the weights are not read without a gradient.
        """
        known = self.nan_count == self.nan_count and self.size > 0
        return known and not math.isfinite(self.weight_rms)


#: How the statistics of several variables become one. Means, shares and RMS are weighted by the
#: number of entries. `finite_` stands for the finite entries of the gradient only.
Combination = Literal[
    "size",
    "count",
    "share",
    "rms",
    "norm",
    "finite_rms",
    "finite_norm",
    "finite_mean",
    "min",
    "max",
]


class Rule(NamedTuple):
    """How a statistic is obtained and combined.

    Attributes:
        combination: How the values of several variables become one.
        moment: The column of a variable's row that holds it, if one pass over the gradient
            yields it.
        column: The column of a variable's row that holds it, if something else yields it.
        bins: Alternatively, the bins of the histogram whose share it is.
        signed: Whether it may be negative.
    """

    combination: Combination
    moment: str = ""
    column: str = ""
    bins: slice | None = None
    signed: bool = False


#: One rule a field of `Statistics`. A norm is read from a column that holds an RMS.
RULES = {
    "size": Rule("size"),
    "gradient_rms": Rule("finite_rms", moment="rms"),
    "gradient_norm": Rule("finite_norm"),
    "gradient_norm_after_clipping": Rule("norm", column="rms_after_clipping"),
    "gradient_mean": Rule("finite_mean", moment="mean", signed=True),
    "gradient_min": Rule("min", moment="min", signed=True),
    "gradient_max": Rule("max", moment="max", signed=True),
    "zero_fraction": Rule("share", bins=slice(ZERO_BIN, ZERO_BIN + 1)),
    "float16_underflow": Rule("share", bins=slice(FLOAT16_FIRST_BIN)),
    "bfloat16_underflow": Rule("share", bins=slice(BFLOAT16_FIRST_BIN)),
    "nan_count": Rule("count", moment="nan_count"),
    "inf_count": Rule("count", moment="inf_count"),
    "weight_rms": Rule("rms", column="weight_rms"),
    "update_rms": Rule("rms", column="update_rms"),
}

#: The statistics in the order in which they stand in a layer's row, also in an event file.
COLUMNS = tuple(field.name for field in fields(Statistics))

#: The statistics that may be negative.
SIGNED = frozenset(name for name, rule in RULES.items() if rule.signed)

#: What one pass over a gradient yields, in the order in which it stands in a variable's row.
MOMENTS = tuple(rule.moment for rule in RULES.values() if rule.moment)

#: All float columns of a variable's row. `rms_after_clipping` is the RMS of the gradient as the
#: optimizer's own clipping left it. `weight_rms` is from before the update, `update_rms` from the
#: weights before and after it.
FLOATS = (*MOMENTS, *(rule.column for rule in RULES.values() if rule.column))
