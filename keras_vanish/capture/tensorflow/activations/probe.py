"""Gradients of activations and of recurrent states, over a slice of the current batch.

The model runs once more inside the compiled train step, forwards and backwards. It runs with its
current weights, and none of its variables change.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations.batches import (
    first_samples,
    number_of_samples,
    rolled,
    without_size,
)
from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput, intercepted
from keras_vanish.capture.tensorflow.activations.measures import measured
from keras_vanish.capture.tensorflow.activations.side_effects import refuse_side_effects
from keras_vanish.capture.tensorflow.graph.recompute import barred
from keras_vanish.capture.tensorflow.private_names import (
    loss_for_all_replicas,
    takes_training,
)
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed

#: The largest number of samples of a batch that are probed.
SAMPLES = 32

#: The largest number of time steps of a recurrent layer that are kept. They are the last ones.
LONGEST = 1024

# The number of losses at the beginning of the vector.
_LOSSES = 2


@dataclass(frozen=True)
class ActivationInfo:
    """A layer whose output is measured.

    Attributes:
        name: The name that `keras_vanish.capture.tensorflow.layers` gives the layer.
        kind: The class of the layer, such as `Dense`.
        units: The length of the last axis of the layer's output; 0 if unknown.
    """

    name: str
    kind: str
    units: int


@dataclass(frozen=True)
class RecurrentInfo:
    """A recurrent layer that is measured through time.

    Attributes:
        name: The name that `keras_vanish.capture.tensorflow.layers` gives the layer.
        steps: The largest number of time steps that are kept.
    """

    name: str
    steps: int


class Probe:
    """Adds the probe to a train step during tracing, and reads its results.

    Args:
        model: A compiled Keras model.
        samples: The largest number of samples of a batch that are probed. A model with a stateful
            recurrent layer gets the whole batch.
        xla: Whether XLA compiles the train step.

    Attributes:
        activations: The layers whose outputs are measured, in the order of the forward pass; empty
            before the first trace.
        recurrent: The layers that are measured through time, in the same order; empty before the
            first trace.
        size: The length of the vector that `trace` returns.
    """

    def __init__(self, model: Any, samples: int = SAMPLES, xla: bool = False) -> None:
        self._model = model
        self._samples = samples
        self._xla = xla
        self._function = tf.function(self._probe, autograph=False)
        self._pure: list[Any] = []
        self._rows: list[Any] = []
        self._loops: list[tuple[Any, int]] = []
        self.activations: list[ActivationInfo] = []
        self.recurrent: list[RecurrentInfo] = []

    @property
    def size(self) -> int:
        """The length of the vector that `trace` returns; 0 before the first trace."""
        if not self.activations:
            return 0
        rows = len(ACTIVATION_COLUMNS) * len(self.activations)
        return _LOSSES + rows + sum(info.steps for info in self.recurrent)

    def trace(self, data: Any) -> tf.Tensor:
        """Probes a batch, in the graph that is being traced or eagerly.

        Args:
            data: The data that `train_step` received: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            A float32 vector of length `size`, which the first trace fixes. Values that a later
            trace does not measure are NaN.

        Raises:
            TypeError: If a part of the batch cannot be sliced.
            ValueError: If no layer was called, or if one more run of the model would change the
                training.
        """
        # A separate graph can be checked before it becomes part of the step.
        function = self._function
        if not tf.executing_eagerly():
            # The model may have changed since the last trace of the step.
            function = tf.function(self._probe, autograph=False)
        probe = function.get_concrete_function(data)
        if probe not in self._pure:
            refuse_side_effects(probe.graph)
            self._refuse_fixed_batch(data)
            self._pure.append(probe)
        return function(data)

    def _refuse_fixed_batch(self, data: Any) -> None:
        """Traces the forward pass on fewer samples if the size of the batch is unknown.

        A model that reshapes to a fixed batch size would otherwise fail during the training,
        because the probe uses fewer samples.
        """
        tensors = tf.nest.flatten(keras.utils.unpack_x_y_sample_weight(data))
        if not all(t is None or (isinstance(t, tf.Tensor) and without_size(t)) for t in tensors):
            return

        def forward(x: Any, y: Any, weight: Any) -> tf.Tensor:
            pairs = [(v, tf.convert_to_tensor(v.value)) for v in self._model.variables]
            with keras.StatelessScope(pairs, collect_losses=True):
                return self._loss(x, y, weight)

        fewer = tf.nest.map_structure(
            lambda t: (
                None if t is None else tf.TensorSpec([self._samples - 1, *t.shape[1:]], t.dtype)
            ),
            keras.utils.unpack_x_y_sample_weight(data),
        )
        with intercepted(self._model, tf.GradientTape()):
            tf.function(forward, autograph=False).get_concrete_function(*fewer)

    def _probe(self, data: Any) -> tf.Tensor:
        x, y, weight, share = first_samples(self._model, data, self._samples)
        scale = _loss_scale(self._model.optimizer)
        variables = self._model.variables
        # Keras's regularizers only see the variables in the mapping of the scope.
        values = [tf.convert_to_tensor(variable.value) for variable in variables]
        if self._xla:
            given = tf.nest.flatten((x, y, weight, scale), expand_composites=True)
            kept = [tensor for tensor in given if tensor is not None]
            apart = iter(barred([*kept, *values]))
            given = [None if tensor is None else next(apart) for tensor in given]
            x, y, weight, scale = tf.nest.pack_sequence_as(
                (x, y, weight, scale), given, expand_composites=True
            )
            values = list(apart)
        factor = None
        if scale is not None:
            factor = tf.cast(scale, tf.float32) * share / loss_for_all_replicas(tf.ones([]))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            scope = keras.StatelessScope(list(zip(variables, values)), collect_losses=True)
            with scope, intercepted(self._model, tape) as seen:
                loss = self._loss(x, y, weight)
            unscaled = tf.cast(loss, tf.float32)
            if factor is not None:
                loss = loss * tf.cast(factor, loss.dtype)
        if not self.activations:
            self._fix(seen)
        scope = keras.StatelessScope(list(zip(variables, values)), collect_losses=True)
        with scope, intercepted(self._model, tape):
            shuffled = tf.cast(self._loss(rolled(x), y, weight), tf.float32)
        alone = tf.equal(number_of_samples(y if x is None else x), 1)
        shuffled = tf.where(alone, math.nan, shuffled)
        losses = tf.stack([unscaled, shuffled])
        return tf.concat([losses, measured(seen, self._rows, self._loops, tape, loss, factor)], 0)

    def _loss(self, x: Any, y: Any, weight: Any) -> tf.Tensor:
        model = self._model
        arguments = {"training": True} if takes_training(model) else {}
        y_pred = model(x, **arguments)
        compute = model.compute_loss
        # A method that overrides Keras's own may lack the argument `training`.
        asked = "training" in inspect.signature(compute).parameters
        loss = compute(x, y, y_pred, weight, **({"training": True} if asked else {}))
        return loss_for_all_replicas(loss)

    def _fix(self, seen: list[LayerOutput]) -> None:
        if not seen:
            raise ValueError(
                "The probe sees layers with weights, activations and recurrent layers. Received: "
                f"a model of {type(self._model).__name__} that called none in its own graph. Use "
                "probe=False."
            )
        self._rows = [entry.layer for entry in seen]
        self.activations = [
            ActivationInfo(entry.name, type(entry.layer).__name__, entry.outputs[0].shape[-1] or 0)
            for entry in seen
        ]
        loops = [entry for entry in seen if entry.through is not None]
        self.recurrent = [
            RecurrentInfo(entry.name, min(entry.through.zeros.shape[1] or LONGEST, LONGEST))
            for entry in loops
            if entry.through is not None
        ]
        self._loops = [(entry.layer, info.steps) for entry, info in zip(loops, self.recurrent)]

    def parse(self, vector: np.ndarray) -> Probed:
        """Returns the record of a vector that `trace` returned.

        Args:
            vector: A float32 array of shape `[size]`.

        Returns:
            The record. In the profiles, NaN marks a time step that no sample had, and Inf a step at
            which an entry of the gradient was NaN or Inf.
        """
        rows = _LOSSES + len(ACTIVATION_COLUMNS) * len(self.activations)
        profiles = {}
        start = rows
        for info in self.recurrent:
            profile = vector[start : start + info.steps]
            start += info.steps
            # Leading time steps that no sample of the batch had are dropped.
            there = np.flatnonzero(~np.isnan(profile))
            profiles[info.name] = profile[there[0] :] if there.size else profile
        return Probed(
            loss=float(vector[0]),
            shuffled_loss=float(vector[1]),
            names=tuple(info.name for info in self.activations),
            table=vector[_LOSSES:rows].reshape(-1, len(ACTIVATION_COLUMNS)),
            profiles=profiles,
        )


def _loss_scale(optimizer: Any) -> Any:
    """Returns the factor by which training scales its loss; None without one.

    Without this factor, half-precision gradients that are not zero in the training would be zero
    here.
    """
    if optimizer is None:
        return None
    one = tf.ones([])
    scaled = optimizer.scale_loss(one)
    return None if scaled is one else tf.convert_to_tensor(scaled)
