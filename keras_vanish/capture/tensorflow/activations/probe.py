"""Gradients of activations and of recurrent states, over a slice of the current batch.

The model runs once more inside the compiled train step, forwards and backwards, with
its current weights and without changing any of its variables.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations import activations, recurrent
from keras_vanish.capture.tensorflow.activations.layer_outputs import LayerOutput, intercepted
from keras_vanish.capture.tensorflow.activations.side_effects import refuse_side_effects
from keras_vanish.capture.tensorflow.graph.recompute import barred
from keras_vanish.capture.tensorflow.private_names import (
    flattened,
    loss_for_all_replicas,
    takes_training,
)
from keras_vanish.records.columns import ACTIVATION_COLUMNS

#: How many samples of a batch are probed, at most.
SAMPLES = 32

#: How many time steps are kept of a recurrent layer: the last ones it goes through.
LONGEST = 1024

# How many losses stand at the beginning of the vector.
_LOSSES = 2


@dataclass(frozen=True)
class ActivationInfo:
    """A layer whose output is measured.

    Attributes:
        name: As `keras_vanish.capture.tensorflow.layers` names it.
        kind: The class of the layer, such as `Dense`.
        units: The length of the last axis of its output; 0 if that is unknown.
    """

    name: str
    kind: str
    units: int


@dataclass(frozen=True)
class RecurrentInfo:
    """A recurrent layer that is measured through time.

    Attributes:
        name: As `keras_vanish.capture.tensorflow.layers` names it.
        steps: How many time steps are kept, at most.
    """

    name: str
    steps: int


@dataclass(frozen=True)
class Probed:
    """What the probe found in one step.

    Attributes:
        loss: The loss of the probed samples, unscaled.
        shuffled_loss: The loss where each sample is given another's input; NaN for one
            sample.
        names: The layers of `activations`.
        activations: Float32 array of shape `[activations, len(ACTIVATIONS)]`, in the order
            of the forward pass.
        profiles: By recurrent layer a float32 array: the RMS of dL/dh_t at the time steps
            it went through, the last one last. NaN where there was none, Inf where the
            gradient was NaN or Inf.
    """

    loss: float
    shuffled_loss: float
    names: tuple[str, ...]
    activations: np.ndarray
    profiles: dict[str, np.ndarray]


class Probe:
    """Adds the probe to a train step while it is traced, and reads what came of it.

    Args:
        model: A compiled Keras model.
        samples: How many samples of a batch are probed, at most. A model with a stateful
            recurrent layer is given the whole batch.
        xla: Whether the train step is compiled by XLA.

    Attributes:
        activations: The layers whose outputs are measured, in the order of the forward
            pass. Empty before the first trace, as is `recurrent`.
        recurrent: The layers that are measured through time, in the same order.
        size: The length of the vector that `trace` returns.
    """

    def __init__(self, model: Any, samples: int = SAMPLES, xla: bool = False) -> None:
        self._model = model
        self._samples = samples
        self._xla = xla
        self._function = tf.function(self._probe, autograph=False)
        self._pure: list[Any] = []
        self._rows: list[Any] = []
        self._loops: list[Any] = []
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
        """Probes a batch: in the graph that is being traced, or at once.

        Args:
            data: What `train_step` was given: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            A float32 vector of length `size`, which the first trace fixes. What a later
            trace does not see is NaN in it.

        Raises:
            TypeError: If the batch contains what cannot be sliced.
            ValueError: If no layer was seen, or if running the model once more would
                change the training.
        """
        # A graph of its own can be looked through before it becomes a part of the step.
        function = self._function
        if not tf.executing_eagerly():
            # When a step is traced anew, the model may have changed.
            function = tf.function(self._probe, autograph=False)
        probe = function.get_concrete_function(data)
        if probe not in self._pure:
            refuse_side_effects(probe.graph)
            self._refuse_fixed_batch(data)
            self._pure.append(probe)
        return function(data)

    def _refuse_fixed_batch(self, data: Any) -> None:
        """Traces the forward pass on fewer samples, where Keras does not know how many come.

        A model that reshapes to a batch of its own size would fail in the middle of the
        training: the probe gives it fewer.
        """
        tensors = tf.nest.flatten(keras.utils.unpack_x_y_sample_weight(data))
        if not all(t is None or (isinstance(t, tf.Tensor) and _unknown_batch(t)) for t in tensors):
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
        x, y, weight, share = self._slice(data)
        scale = _loss_scale(self._model.optimizer)
        variables = self._model.variables
        # Keras' regularizers know what is in the scope's mapping only.
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
            shuffled = tf.cast(self._loss(_rolled(x), y, weight), tf.float32)
        alone = tf.equal(_samples(y if x is None else x), 1)
        shuffled = tf.where(alone, math.nan, shuffled)
        losses = tf.stack([unscaled, shuffled])
        return tf.concat([losses, self._measure(seen, tape, loss, factor)], 0)

    def _slice(self, data: Any) -> tuple[Any, Any, Any, Any]:
        """The first samples of a batch, and which share of it they are."""
        parts = keras.utils.unpack_x_y_sample_weight(data)
        tensors = [t for t in tf.nest.flatten(parts) if t is not None]
        for tensor in tensors:
            shape = tf.TensorShape(getattr(tensor, "shape", ()))
            if isinstance(tensor, tf.SparseTensor) or shape.rank == 0:
                raise TypeError(
                    "The probe takes the first samples of each tensor of a batch. Received: a "
                    f"{_kind(tensor)} of shape {shape}, which is "
                    "sparse or has no first axis. Use probe=False."
                )
        if any(getattr(layer, "stateful", False) for layer in flattened(self._model)):
            return (*parts, 1.0)
        total = _samples(tensors)
        count = tf.minimum(total, self._samples)
        share = tf.cast(count, tf.float32) / tf.cast(total, tf.float32)
        if isinstance(total, int) and total <= self._samples:
            return (*parts, share)
        parts = tf.nest.map_structure(
            lambda t: None if t is None else t[: self._samples], tuple(parts)
        )
        return (*parts, share)

    def _loss(self, x: Any, y: Any, weight: Any) -> tf.Tensor:
        model = self._model
        arguments = {"training": True} if takes_training(model) else {}
        y_pred = model(x, **arguments)
        compute = model.compute_loss
        # Keras asks its own training argument of no method that overrides its own.
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
        self._loops = [entry.layer for entry in loops]
        self.recurrent = [
            RecurrentInfo(entry.name, min(entry.through.zeros.shape[1] or LONGEST, LONGEST))
            for entry in loops
            if entry.through is not None
        ]

    def _measure(
        self, seen: list[LayerOutput], tape: tf.GradientTape, loss: tf.Tensor, factor: Any
    ) -> tf.Tensor:
        sources = {
            "outputs": [entry.outputs for entry in seen],
            "before": [[] if entry.before is None else [entry.before] for entry in seen],
            "zeros": [[] if entry.through is None else [entry.through.zeros] for entry in seen],
        }
        gradients = tape.gradient(loss, sources)
        found = {id(entry.layer): i for i, entry in enumerate(seen)}
        rows, profiles = [], []
        for layer in self._rows:
            i = found.get(id(layer))
            if i is None:
                rows.append(activations.UNKNOWN)
                continue
            reaching = [g for g in gradients["outputs"][i] if g is not None]
            # A loss that is computed from logits goes past the function that gives the output.
            reaching = reaching or [g for g in gradients["before"][i] if g is not None]
            rows.append(activations.measures(seen[i], reaching))
        for layer, info in zip(self._loops, self.recurrent):
            i = found.get(id(layer))
            through = None if i is None else seen[i].through
            if i is None or through is None:
                profiles.append(tf.fill([info.steps], math.nan))
            else:
                profiles.append(recurrent.profile(through, gradients["zeros"][i][0], info.steps))
        table = activations.table(rows)
        if factor is not None:
            scaled = np.array(ACTIVATION_COLUMNS) == "gradient_rms"
            table = tf.where(scaled, table / factor, table)
            profiles = [profile / factor for profile in profiles]
        return tf.concat([tf.reshape(table, [-1]), *profiles], 0)

    def parse(self, vector: np.ndarray) -> Probed:
        """Reads what `trace` returned.

        Args:
            vector: Float32 array of shape `[size]`.
        """
        rows = _LOSSES + len(ACTIVATION_COLUMNS) * len(self.activations)
        profiles = {}
        start = rows
        for info in self.recurrent:
            profile = vector[start : start + info.steps]
            start += info.steps
            # Time steps that no sample of the batch had.
            there = np.flatnonzero(~np.isnan(profile))
            profiles[info.name] = profile[there[0] :] if there.size else profile
        return Probed(
            loss=float(vector[0]),
            shuffled_loss=float(vector[1]),
            names=tuple(info.name for info in self.activations),
            activations=vector[_LOSSES:rows].reshape(-1, len(ACTIVATION_COLUMNS)),
            profiles=profiles,
        )


def _loss_scale(optimizer: Any) -> Any:
    """What training multiplies its loss by; None if by nothing.

    Half-precision gradients that training sees thanks to it would be zero without.
    """
    if optimizer is None:
        return None
    one = tf.ones([])
    scaled = optimizer.scale_loss(one)
    return None if scaled is one else tf.convert_to_tensor(scaled)


def _samples(tensors: Any) -> Any:
    """How many samples a batch has: a number, or a tensor where it is not known yet."""
    first = tf.nest.flatten(tensors)[0]
    if first.shape[0] is not None:
        return first.shape[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def _rolled(x: Any) -> Any:
    """Gives each sample the input of the one before it, and the first that of the last."""
    return tf.nest.map_structure(lambda tensor: tf.concat([tensor[-1:], tensor[:-1]], 0), x)


def _unknown_batch(tensor: tf.Tensor) -> bool:
    return tensor.shape.rank is not None and tensor.shape[0] is None


def _kind(tensor: Any) -> str:
    return "Tensor" if isinstance(tensor, tf.Tensor) else type(tensor).__name__
