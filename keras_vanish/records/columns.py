"""The layout of a variable's row of numbers; free of TensorFlow, so that readers can share it."""

from __future__ import annotations

#: Moments of a gradient, in the order in which they stand in a row.
MOMENTS = ("rms", "mean", "min", "max", "nan_count", "inf_count")

#: All float columns of a row. `rms_after_clipping` is the RMS of the gradient as the
#: optimizer's own clipping left it; `weight_rms` is taken before the update,
#: `update_rms` from the weights before and after it.
FLOATS = (*MOMENTS, "rms_after_clipping", "weight_rms", "update_rms")

#: A histogram counts entries by binary exponent: bin `e` holds the entries with
#: `2**(e - 127) <= |x| < 2**(e - 126)`, as float32 stores them. Bin 0 holds
#: subnormal numbers, bin 255 NaN and Inf, and the bin after it exact zeros.
EXPONENT_BINS = 256
ZERO_BIN = 256
BINS = EXPONENT_BINS + 1

#: float16 rounds a number to zero when it is at most half its smallest subnormal,
#: 2**-24 (IEEE 754-2019, binary16): every exponent bin below this one.
FLOAT16_FIRST_BIN = 127 - 25

#: bfloat16 has the exponents of float32 (Kalamkar et al., "A Study of BFLOAT16 for
#: Deep Learning Training", 2019); what is below the smallest normal number, 2**-126,
#: is flushed to zero by the hardware that computes in it.
BFLOAT16_FIRST_BIN = 1

#: What the probe measures of a layer's output, in the order of a row. A column that does
#: not apply to a layer is NaN. `size` is the number of entries for one sample. Both RMS are
#: over the finite entries. The gradient is that of the loss, a mean over the probed
#: samples. `dead_fraction` is a share of units, `saturated_fraction` one of entries;
#: `attention_entropy` lies in [0, 1].
ACTIVATION_COLUMNS = (
    "size",
    "gradient_rms",
    "gradient_nonfinite_count",
    "output_rms",
    "output_nonfinite_count",
    "preactivation_mean",
    "preactivation_std",
    "dead_fraction",
    "saturated_fraction",
    "attention_entropy",
)
