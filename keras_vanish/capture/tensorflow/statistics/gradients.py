"""Computes the statistics of an update's gradients, dense and sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.statistics import sparse
from keras_vanish.capture.tensorflow.statistics.histograms import exponent_histograms
from keras_vanish.capture.tensorflow.statistics.moments import clipped_root_mean_squares, moments
from keras_vanish.capture.tensorflow.statistics.packing import Packing, largest_packed_size
from keras_vanish.capture.tensorflow.statistics.sampling import histogram_stride


class GradientReader:
    """Computes the statistics of an update's gradients.

    Args:
        shapes: Fully known shapes of the trained variables.
        dtypes: Their dtypes.
        xla: Whether XLA compiles the train step. XLA does not support sparse gradients, so they
            become dense.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[tf.DType], xla: bool
    ) -> None:
        self._shapes = list(shapes)
        self._dtypes = list(dtypes)
        self._xla = xla
        self._packings: dict[tuple[int, ...], tuple[Packing, Packing]] = {}
        self._largest = largest_packed_size(xla)

    def read(
        self, gradients: Sequence[Any], clipped: Sequence[Any] | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the moments, the RMS after clipping and the histograms.

        Args:
            gradients: One tensor or `IndexedSlices` for each variable, before clipping.
            clipped: The same after clipping; None without clipping.

        Returns:
            Float32 tensors of shapes `[variables, len(MEASURED_MOMENTS)]`, `[variables]` and
            `[variables, BINS]`.
        """
        slices = [
            i for i, g in enumerate(gradients) if isinstance(g, tf.IndexedSlices) and not self._xla
        ]
        full = [i for i in range(len(gradients)) if i not in slices]
        parts = [self._read_sparse(i, gradients[i], clipped and clipped[i]) for i in slices]
        if full:
            parts.append(
                self._read_full(
                    full,
                    [tf.convert_to_tensor(gradients[i]) for i in full],
                    None if clipped is None else [tf.convert_to_tensor(clipped[i]) for i in full],
                )
            )
        if len(parts) == 1:
            return parts[0]
        places = np.argsort(slices + full)
        moments, after_clipping, counts = (
            tf.gather(tf.concat(rows, 0), places) for rows in zip(*parts)
        )
        return moments, after_clipping, counts

    def _read_full(
        self, which: Sequence[int], gradients: list[tf.Tensor], clipped: list[tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        packing, histograms = self._packings_of(which)
        rows = moments(packing.groups, packing.pack(gradients), self._xla)
        after_clipping = [row[:, 0] for row in rows]
        if clipped is not None:
            after_clipping = clipped_root_mean_squares(
                packing.groups, packing.pack(clipped), after_clipping, self._xla
            )
        counts = exponent_histograms(histograms.groups, histograms.pack(gradients))
        return packing.unpack(rows), packing.unpack(after_clipping), counts

    def _packings_of(self, which: Sequence[int]) -> tuple[Packing, Packing]:
        """Returns the packings of whole gradients and of their samples."""
        key = tuple(which)
        if key not in self._packings:
            shapes = [self._shapes[i] for i in which]
            dtypes = [self._dtypes[i] for i in which]
            self._packings[key] = (
                Packing(shapes, dtypes, largest=self._largest),
                Packing(shapes, dtypes, histogram_stride),
            )
        return self._packings[key]

    def _read_sparse(
        self, which: int, gradient: tf.IndexedSlices, clipped: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows = sparse.rows_of(gradient, self._shapes[which])
        moments = sparse.moments(rows)
        after_clipping = moments[0]
        if clipped is not None:
            after_clipping = sparse.clipped_root_mean_square(
                sparse.rows_of(clipped, self._shapes[which]), after_clipping
            )
        counts = sparse.exponent_histogram(rows)
        return moments[tf.newaxis], after_clipping[tf.newaxis], counts[tf.newaxis]
