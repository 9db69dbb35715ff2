"""Records the updates of one optimizer, from the traced step to the host."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.capture.tensorflow.activations.side_effects import draws
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.graph.data_flow import data_flow_ranks
from keras_vanish.capture.tensorflow.layers import layers_of
from keras_vanish.capture.tensorflow.private_names import clear_losses
from keras_vanish.capture.tensorflow.recorder import NEVER, Recorder, Row
from keras_vanish.capture.tensorflow.strategies import reads_here
from keras_vanish.capture.tensorflow.tap import RecorderFor, tap, unwrapped
from keras_vanish.capture.tensorflow.update import iterations_variable
from keras_vanish.records.bins import BINS
from keras_vanish.records.captured import Captured
from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.statistics import FLOATS


class Capture:
    """Taps a model's optimizer, and brings the recorded updates to the host.

    Args:
        model: The Keras model.
        optimizer: The optimizer that trains the model.
        every: The number of updates between two recorded ones. With None, a recording needs `arm`.
        slots: The number of updates that may be recorded before the host reads them.
        xla: Whether XLA compiles the train step.
        always: Whether every tapped step is recorded: either all steps are to be recorded, or the
            host runs the tapped step only when it is `wanted`.
        chooses: Whether the host can run another function for calls that are not `wanted`.
        probe: The probe that runs on recorded steps of a wrapped train step; None without one.
        step_controls: The controls inside every train step; None without any.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        every: int | None,
        slots: int,
        xla: bool = False,
        always: bool = False,
        chooses: bool = False,
        probe: Probe | None = None,
        step_controls: StepControls | None = None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._every = every or NEVER
        self._slots = slots
        self._xla = xla
        self._always = always
        self._chooses = chooses
        self._probe = probe
        self._step_controls = step_controls or StepControls()
        self._data: Any = None
        self._recorder: Recorder | None = None
        self._variables: list[Any] = []
        self._missing: list[Any] = []
        self._layers: list[LayerInfo] = []
        self._seen = 0
        self._calls = 0
        self._steps = 1
        self._look_at = math.inf

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a train step that does the same as `step`, with the optimizer tapped.

        Args:
            step: A function with a batch as its first argument, such as `model.train_step`.
        """

        def tapped_step(*args: Any, **kwargs: Any) -> Any:
            if not reads_here():
                return step(*args, **kwargs)
            self._data = args[0] if args else None
            try:
                with self.open():
                    outputs = self._step_controls.run(self._model, step, args, kwargs)
            finally:
                self._data = None
            self._choose_if(tf.compat.v1.get_default_graph())
            if self._variables and not self._layers:
                self._layers = self._order(_traced_forward_pass(self._model, args))
            return outputs

        return tapped_step

    def _choose_if(self, graph: Any) -> None:
        """Stops choosing between functions if they would draw different random numbers."""
        # XLA's generator has no seed, so no two runs agree in any case.
        if self._chooses and not self._xla:
            self._chooses = not draws(graph)

    def wrap_unread(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a train step like that of `wrap`, but without recording.

        Args:
            step: A function with a batch as its first argument, such as `model.train_step`.
        """

        def unread_step(*args: Any, **kwargs: Any) -> Any:
            with self._open(lambda variables, missing: None):
                return self._step_controls.run(self._model, step, args, kwargs)

        return unread_step

    def open(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the optimizer's updates are recorded."""
        return self._open(self._recorder_for)

    def _open(self, recorder_for: RecorderFor) -> contextlib.AbstractContextManager[None]:
        step_controls = self._step_controls
        return tap(
            self._optimizer, recorder_for, self._probed, step_controls.guard, step_controls.factor
        )

    def _probed(self) -> tf.Tensor | None:
        if self._probe is None or self._data is None:
            return None
        try:
            return self._probe.trace(self._data)
        except Exception as error:
            # The gradients of weights are still read.
            self._probe = None
            warnings.warn(
                "GradientMonitor cannot probe this model, and shows the gradients of its weights "
                f"only: {error!r}. Set probe=False to say that this is meant.",
                stacklevel=2,
            )
            return None

    def _recorder_for(self, variables: list[Any], missing: list[Any]) -> Recorder | None:
        try:
            if self._recorder is None:
                self._recorder = self._new_recorder(variables, missing)
        except Exception as error:
            warnings.warn(
                f"GradientMonitor cannot read these variables: {error!r}. Training goes on "
                "without.",
                stacklevel=2,
            )
            return None
        if [id(variable) for variable in variables] != [id(v) for v in self._variables]:
            warnings.warn(
                "GradientMonitor shows the variables that the optimizer was first given in a "
                f"train step. Received: a second call of `apply` with {len(variables)} "
                "variables, which is not monitored.",
                stacklevel=2,
            )
            return None
        return self._recorder

    def _new_recorder(self, variables: list[Any], missing: list[Any]) -> Recorder:
        graph = _forward_graph()
        if graph is not None:
            self._choose_if(graph)
        recorder = Recorder(
            shapes=[variable.shape for variable in variables],
            dtypes=[tf.as_dtype(variable.dtype) for variable in variables],
            every=self._every,
            first=0 if self._look_at < math.inf else NEVER,
            slots=self._slots,
            xla=self._xla,
            always=self._always and (self._chooses or self._every == 1),
        )
        self._variables, self._missing = variables, missing
        if graph is not None:
            self._layers = self._order(graph)
        return recorder

    def _order(self, graph: Any) -> list[LayerInfo]:
        variables = self._variables + self._missing
        ranks = [0.0] * len(variables)
        if graph is not None:
            handles = [getattr(variable, "value", variable).handle for variable in variables]
            ranks = data_flow_ranks(graph, handles)
        return layers_of(self._model, variables, ranks)

    @property
    def optimizer(self) -> Any:
        """The optimizer that trains the model."""
        return self._optimizer

    @property
    def traced(self) -> bool:
        """Whether a train step has passed through the tap."""
        return self._recorder is not None

    def arm(self) -> None:
        """Makes the next update a recorded one."""
        if self._recorder is not None:
            self._recorder.arm()
        self._look_at = self._calls + 1

    @property
    def awaited(self) -> bool:
        """Whether the host is going to read again without another call of `arm`."""
        return self._look_at < math.inf

    def updates(self) -> int:
        """Returns the number of updates that the optimizer has applied. Waits for the device."""
        return self._applied() // self._accumulated()

    def _applied(self) -> int:
        return int(iterations_variable(unwrapped(self._optimizer)).numpy())

    def _accumulated(self) -> int:
        return unwrapped(self._optimizer).gradient_accumulation_steps or 1

    def wanted(self) -> bool:
        """Returns whether the next call must run the tapped step.

        This is True on calls that end with a reading. It is always True if there is only one
        function, or if two functions would draw the same random numbers twice.
        """
        return not self._chooses or self._calls + self._steps >= self._look_at

    def count(self, steps: int) -> bool:
        """Counts train steps that the host started. Returns whether it is time to `read`.

        Args:
            steps: The number of these steps.
        """
        self._steps = steps
        self._calls += steps
        return self._calls >= self._look_at

    @property
    def layers(self) -> list[LayerInfo]:
        """The layers in the order of the data flow; empty before a step was traced."""
        return self._layers

    def read(self) -> list[Captured]:
        """Returns the updates that were recorded since the last call, oldest first.

        Waits for the device.
        """
        if self._recorder is None:
            self._look_at = self._calls + 1
            return []
        if not self._layers:
            self._layers = self._order(None)
        self._seen, rows = self._recorder.read(self._seen)
        self._look_at = self._next_look(rows)
        return [self._captured(row) for row in rows]

    def _next_look(self, rows: Sequence[Row]) -> float:
        if self._every == NEVER:
            return math.inf if rows else self._calls + 1
        if rows:
            # The host counts calls, so it converts the distance to the next recorded update into
            # calls.
            ahead = self._every * self._accumulated()
            return self._calls + max(1, ahead - self._excess(rows[-1]))
        # Skipped steps of a loss scaler, and steps without an update, make this read too early. It
        # then finds nothing, and the next estimate is better.
        assert self._recorder is not None
        ahead = (self._recorder.due_at() + 1) * self._accumulated() - self._applied()
        return self._calls + max(1, ahead)

    def _excess(self, row: Row) -> int:
        """Returns the number of calls of `apply` since the recorded one, within one train call."""
        if self._steps == 1:
            return 0
        return self._applied() - (row.update + 1) * self._accumulated()

    def _captured(self, row: Row) -> Captured:
        floats, counts = row.floats, row.counts
        if self._missing:
            missing = len(self._missing)
            floats = np.concatenate([floats, np.full((missing, len(FLOATS)), np.nan, np.float32)])
            counts = np.concatenate([counts, np.full((missing, BINS), np.nan, np.float32)])
        probed = None
        if row.probed is not None and self._probe is not None:
            probed = self._probe.parse(row.probed)
        return Captured(row.update, self._layers, floats, counts, probed)


def _forward_graph() -> Any:
    """Returns the graph in which the forward pass is being traced; None in eager execution."""
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    # A `LossScaleOptimizer` applies updates inside a branch of a `tf.cond`.
    while "Branch" in type(graph).__name__ or "While" in type(graph).__name__:
        graph = graph.outer_graph
    return graph


def _traced_forward_pass(model: Any, batch: Sequence[Any]) -> Any:
    """Returns the graph of `model(x)`, traced but not run; None if tracing fails."""
    x = keras.utils.unpack_x_y_sample_weight(batch[0])[0] if batch else None
    try:
        traced = tf.function(lambda inputs: model(inputs)).get_concrete_function(x)
    except Exception:
        return None
    finally:
        # The tracing may have added layer losses. They belong to no step.
        clear_losses(model)
    return traced.graph
