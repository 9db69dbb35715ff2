"""The bins of a gradient's histogram."""

#: A histogram counts entries by binary exponent. Bin `e` holds the entries with
#: `2**(e - 127) <= |x| < 2**(e - 126)`, as float32 stores them. Bin 0 holds subnormal numbers,
#: bin 255 holds NaN and Inf, and one more bin holds exact zeros.
EXPONENT_BINS = 256
ZERO_BIN = 256
BINS = EXPONENT_BINS + 1

#: float16 rounds a number to zero when it is at most half its smallest subnormal, 2**-24
#: (IEEE 754-2019, binary16). These are the numbers in every exponent bin below this one.
FLOAT16_FIRST_BIN = 127 - 25

#: bfloat16 has the exponents of float32 (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning
#: Training", 2019). Hardware that computes in it flushes numbers below the smallest normal one,
#: 2**-126, to zero.
BFLOAT16_FIRST_BIN = 1
