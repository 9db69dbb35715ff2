"""How the statistics of several variables become one row, by the rules of `statistics.py`.

Everything here runs at each recorded step: a call of NumPy costs more than the numbers in it, so
statistics with the same rule are handled together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple

import numpy as np
import numpy.typing as npt

from keras_vanish.records.bins import BINS
from keras_vanish.records.statistics import COLUMNS, FLOATS, RULES, Combination, Statistics

_Table = npt.NDArray[np.float64]
_Places = slice | npt.NDArray[np.intp]


def _places(indices: list[int]) -> _Places:
    """Indices as a slice where they follow each other: NumPy then makes no copy."""
    if indices and indices == list(range(indices[0], indices[-1] + 1)):
        return slice(indices[0], indices[-1] + 1)
    return np.array(indices, np.intp)


def _ruled_by(*combinations: Combination) -> list[int]:
    """Where the statistics with one of these combinations stand in a row."""
    found = [name for kind in combinations for name in COLUMNS if RULES[name].combination == kind]
    return [COLUMNS.index(name) for name in found]


_SIZE, _NAN, _INF = (COLUMNS.index(name) for name in ("size", "nan_count", "inf_count"))
_RMS, _NORM = COLUMNS.index("gradient_rms"), COLUMNS.index("gradient_norm")
_COUNTS, _SHARES = _places(_ruled_by("count")), _places(_ruled_by("share"))
_MEANS = _places(_ruled_by("finite_mean"))
_LOWS, _HIGHS = _places(_ruled_by("min")), _places(_ruled_by("max"))
_NORMS = _places(_ruled_by("norm"))

# All sums stand in one array: sizes, shares, counts, means. So do all roots of sums of squares:
# the norm of the finite entries, norms, RMS.
_FIRST_COUNT = 3 + len(_ruled_by("share"))
_FIRST_MEAN = _FIRST_COUNT + len(_ruled_by("count"))
_TERMS = _FIRST_MEAN + len(_ruled_by("finite_mean"))
_SQUARED = np.array([_NORM, *_ruled_by("norm", "rms")], np.intp)
_ROOTS = _places(_ruled_by("norm", "rms"))
_FIRST_ROOT = 1 + len(_ruled_by("norm"))

# What a variable's row holds is copied, with its place there.
_READ = [name for name in COLUMNS if RULES[name].moment or RULES[name].column]
_COPIED = _places([COLUMNS.index(name) for name in _READ])
_SOURCES = _places([FLOATS.index(RULES[name].moment or RULES[name].column) for name in _READ])

# For each bin of a histogram, whether it counts for all entries, and for each of the shares.
_COUNTED = np.zeros([BINS, 1 + len(_ruled_by("share"))])
_COUNTED[:, 0] = 1
for _column, _index in enumerate(_ruled_by("share"), 1):
    _COUNTED[RULES[COLUMNS[_index]].bins, _column] = 1

#: The start of the one run that is all rows.
ALL = np.zeros(1, np.int64)


def combine(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of several sets of variables taken together.

    Sets without a gradient are left out. If no set has one, everything but the size is NaN.
    """
    table = np.array([astuple(part) for part in parts], np.float64)
    return Statistics(*combined(table, ALL)[0].tolist())


def of_variables(
    sizes: npt.NDArray[np.float64],
    floats: npt.NDArray[np.float32],
    counts: npt.NDArray[np.float32],
) -> _Table:
    """The statistics of single variables.

    Args:
        sizes: Number of entries of each variable, float64 of shape `[variables]`.
        floats: Float32 array of shape `[variables, len(FLOATS)]`.
        counts: Float32 array of shape `[variables, BINS]`.

    Returns:
        Float64 array of shape `[variables, len(COLUMNS)]`.
    """
    counted = counts.astype(np.float64) @ _COUNTED
    table = np.empty([len(sizes), len(COLUMNS)])
    table[:, _SIZE] = sizes
    table[:, _COPIED] = floats[:, _SOURCES]
    finite = sizes - table[:, _NAN] - table[:, _INF]
    with np.errstate(invalid="ignore", divide="ignore"):
        table[:, _NORM] = np.where(finite > 0, table[:, _RMS] * np.sqrt(finite), math.nan)
        table[:, _NORMS] *= np.sqrt(sizes)[:, np.newaxis]
        table[:, _SHARES] = counted[:, 1:] / counted[:, :1]
    return table


def combined(table: _Table, starts: npt.NDArray[np.int64]) -> _Table:
    """Combines runs of rows into one row each.

    Args:
        table: Float64 array of shape `[rows, len(COLUMNS)]`.
        starts: The first row of each run; a run ends where the next one begins.

    Returns:
        Float64 array of shape `[runs, len(COLUMNS)]`.
    """
    # An event file may hold anything, infinite counts too.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        nans = table[:, _NAN]
        known = nans == nans
        sizes = np.where(known, table[:, _SIZE], 0.0)
        seen = np.where(known, sizes - nans - table[:, _INF], 0.0)
        unknown, unseen = ~known, ~(seen > 0)
        sums = _sums(table, starts, sizes, seen, unknown, unseen)
        total, finite = sums[:, 1], sums[:, 2]
        roots = _roots(table, starts, sizes, total, unknown, unseen)

        # A sum of nothing is missing, not zero.
        missing = np.where(total > 0, 0.0, math.nan)[:, np.newaxis]
        silent = np.where(finite > 0, 0.0, math.nan)[:, np.newaxis]
        nothing = unseen[:, np.newaxis]
        result = np.empty([len(starts), len(COLUMNS)])
        result[:, _SIZE] = np.where(total > 0, total, sums[:, 0])
        norm = roots[:, 0] + silent[:, 0]
        result[:, _NORM] = norm
        np.divide(norm, np.sqrt(finite), result[:, _RMS])
        result[:, _ROOTS] = roots[:, 1:] + missing
        result[:, _MEANS] = sums[:, _FIRST_MEAN:] / finite[:, np.newaxis]
        low = np.where(nothing, math.inf, table[:, _LOWS])
        result[:, _LOWS] = np.minimum.reduceat(low, starts) + silent
        high = np.where(nothing, -math.inf, table[:, _HIGHS])
        result[:, _HIGHS] = np.maximum.reduceat(high, starts) + silent
        result[:, _SHARES] = sums[:, 3:_FIRST_COUNT] / total[:, np.newaxis]
        result[:, _COUNTS] = sums[:, _FIRST_COUNT:_FIRST_MEAN] + missing
    return result


def _sums(
    table: _Table,
    starts: npt.NDArray[np.int64],
    sizes: _Table,
    seen: _Table,
    unknown: npt.NDArray[np.bool_],
    unseen: npt.NDArray[np.bool_],
) -> _Table:
    """All weighted sums of each run, in the order of `_TERMS`."""
    terms = np.empty([len(table), _TERMS])
    terms[:, 0], terms[:, 1], terms[:, 2] = table[:, _SIZE], sizes, seen
    np.multiply(table[:, _SHARES], sizes[:, np.newaxis], terms[:, 3:_FIRST_COUNT])
    terms[:, _FIRST_COUNT:_FIRST_MEAN] = table[:, _COUNTS]
    np.multiply(table[:, _MEANS], seen[:, np.newaxis], terms[:, _FIRST_MEAN:])
    terms[unknown, 3:_FIRST_MEAN] = 0.0
    terms[unseen, _FIRST_MEAN:] = 0.0
    return np.add.reduceat(terms, starts)


def _roots(
    table: _Table,
    starts: npt.NDArray[np.int64],
    sizes: _Table,
    total: _Table,
    unknown: npt.NDArray[np.bool_],
    unseen: npt.NDArray[np.bool_],
) -> _Table:
    """All roots of sums of squares of each run, in the order of `_SQUARED`."""
    lengths = np.diff(starts, append=len(table))
    parts = table.take(_SQUARED, 1)
    parts[unseen, 0] = 0.0
    parts[unknown, 1:] = 0.0
    # The largest is taken out, so that squares stay in range.
    largest = np.maximum.reduceat(parts, starts)
    squares = np.square(parts / np.repeat(largest, lengths, axis=0))
    squares[:, _FIRST_ROOT:] *= (sizes / np.repeat(total, lengths))[:, np.newaxis]
    roots = largest * np.sqrt(np.add.reduceat(squares, starts))
    return np.where((largest > 0) & (largest < math.inf), roots, largest)
