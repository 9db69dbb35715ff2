"""Reads gradients after the replicas of a distribution strategy have summed them.

Each replica gives the optimizer the gradients of its share of the batch. Keras clips them, sums
them over all replicas, and updates every copy of the weights with the sum. This module reads the
sum on the first replica of each process, which needs no communication.

If the optimizer clips, recorded steps also sum the unclipped gradients of the replicas of one
process. Sums over several processes are left out, because they would need another exchange of all
gradients.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.attributes import replaced
from keras_vanish.capture.tensorflow.private_names import (
    clipped_by,
    sum_over_replicas,
    sum_over_replicas_replaced,
    variables_to_train,
)
from keras_vanish.capture.tensorflow.recorder import Recorder
from keras_vanish.capture.tensorflow.strategies import clips, reads_here, several_processes
from keras_vanish.capture.tensorflow.update import (
    Readable,
    iterations_variable,
    read_again,
    readable,
    recorded_when,
)


class _Reading:
    """One call of `apply` on the replica that reads, from its beginning to its end."""

    def __init__(
        self,
        optimizer: Any,
        found: Readable,
        recorder: Recorder,
        probe: Callable[[], tf.Tensor | None],
    ) -> None:
        self.places = found.places
        self._optimizer = optimizer
        self._variables = [getattr(v, "value", v) for v in found.trained]
        self._recorder = recorder
        self._probe = probe
        self._number = tf.cast(tf.identity(iterations_variable(optimizer)), tf.int64)
        self._due = recorder.due(self._number)
        # The unclipped gradients of other processes are not available.
        self.adds_up = clips(optimizer) and not several_processes(tf.distribute.get_strategy())
        self.goes_on = True

    def _weights(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(variable) for variable in self._variables]

    def _record(self, record: Callable[[], None]) -> None:
        self.goes_on = self.goes_on and recorded_when(self._due, record)

    def keep_weights(self) -> None:
        """Keeps a sample of the present weights.

        Keras applies weight decay before it sums the gradients.
        """

        def keep() -> None:
            self._recorder.keep_weights(self._weights())

        self._record(keep)

    def read(self, summed: Sequence[tuple[Any, Any]]) -> None:
        """Reads the gradients that Keras has summed.

        Args:
            summed: Pairs of a gradient, or None, and its `tf.Variable`.
        """
        by_variable = {id(variable): gradient for gradient, variable in summed}
        gradients = [by_variable[id(variable)] for variable in self._variables]

        def before() -> None:
            self._recorder.keep_probed(self._probe())
            self._recorder.keep(self._recorder.before(read_again(gradients), None, None))

        self._record(before)

    def read_unclipped(self, replicas: Sequence[Sequence[Any]], devices: Sequence[str]) -> None:
        """Reads the gradients before Keras clips and sums them.

        Args:
            replicas: The gradients of each replica.
            devices: The device of each replica.
        """

        def before() -> None:
            seen, clipped = [], []
            for gradients, device in zip(replicas, devices):
                with tf.device(device):
                    own = [tf.convert_to_tensor(g) for g in read_again(gradients)]
                    seen.append(own)
                    clipped.append(clipped_by(self._optimizer, own))
            before_clipping, after_clipping = (
                [tf.add_n(each) for each in zip(*parts)] for parts in (seen, clipped)
            )
            self._recorder.keep_probed(self._probe())
            read = self._recorder.before(before_clipping, after_clipping, self._weights())
            self._recorder.keep(read)

        self._record(before)

    def end(self) -> None:
        """Measures how much the update changed the weights."""

        def after() -> None:
            self._recorder.after(self._number, self._weights())

        self._record(after)


@contextlib.contextmanager
def tap_sum(
    optimizer: Any,
    recorder_for: Callable[[list[Any], list[Any]], Recorder | None],
    probe: Callable[[], tf.Tensor | None],
) -> Iterator[None]:
    """Records the sum of the replicas' gradients within the `with` block.

    TensorFlow traces each replica in a thread of its own, and the threads take turns. So every call
    checks which replica it belongs to.

    Args:
        optimizer: The innermost Keras optimizer.
        recorder_for: Returns the recorder for the trained variables.
        probe: Returns a float32 vector that is recorded with the gradients.
    """
    # The function is long because its two replacements share the readings in progress.
    untapped, summing = optimizer.apply, sum_over_replicas(optimizer)
    readings: list[_Reading] = []

    def begun(grads: Sequence[Any], variables: Sequence[Any]) -> _Reading | None:
        found = readable(grads, variables)
        recorder = recorder_for(found.trained, found.missing) if found.places else None
        return None if recorder is None else _Reading(optimizer, found, recorder, probe)

    def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)  # It may be an iterator.
        mine = None
        if reads_here() and (trainable_variables is not None or optimizer.built):
            mine = begun(grads, trainable_variables or variables_to_train(optimizer))
        if mine is not None:
            readings.append(mine)
        # The replica that reads comes first.
        current = readings[-1] if readings else None
        if current is not None and current.adds_up:
            met: list[list[Any]] = []

            def meet(strategy: Any, own: list[Any]) -> None:
                met.extend(strategy.experimental_local_results(each) for each in own)

            context = tf.distribute.get_replica_context()
            context.merge_call(meet, args=([grads[place] for place in current.places],))
            if mine is not None:
                devices = context.strategy.extended.worker_devices
                mine.read_unclipped(list(zip(*met)), devices)
        elif mine is not None:
            mine.keep_weights()
        untapped(grads, trainable_variables)
        if mine is not None:
            mine.end()
            readings.remove(mine)

    def all_reduce_sum(grads_and_vars: Sequence[tuple[Any, Any]]) -> Any:
        summed = summing(grads_and_vars)
        if not readings or not reads_here():
            return summed
        apart = tf.distribute.in_cross_replica_context()
        if apart and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            readings[-1].goes_on = False
            warnings.warn(
                "The replicas of this model are trained apart: before version 3.5, Keras does not "
                "sum their gradients under this strategy, and their weights drift apart. "
                f"Received: Keras {keras.__version__}. GradientMonitor reads nothing. Use a later "
                "version of Keras, or no strategy.",
                stacklevel=2,
            )
        elif not readings[-1].adds_up:
            readings[-1].read(summed)
        return summed

    with (
        replaced(optimizer, "apply", apply),
        sum_over_replicas_replaced(optimizer, all_reduce_sum),
    ):
        yield
