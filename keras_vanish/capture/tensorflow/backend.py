"""The TensorFlow implementation of `keras_vanish.capture.backend`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_vanish.capture.backend import Controls, Plan
from keras_vanish.capture.tensorflow import momentum, strategies
from keras_vanish.capture.tensorflow.control.step_controls import built
from keras_vanish.capture.tensorflow.installation import Installation, Loop
from keras_vanish.capture.tensorflow.optimizers import have_one_rate, optimizers_of
from keras_vanish.capture.tensorflow.snapshot import Snapshot
from keras_vanish.capture.tensorflow.tap import unwrapped
from keras_vanish.capture.tensorflow.train_function import clear_leftover
from keras_vanish.capture.tensorflow.update import build


class TensorFlowBackend:
    """Keras on TensorFlow: eager, in a `tf.function`, with XLA, and with replica strategies."""

    def optimizers_of(self, model: Any) -> dict[str, Any]:
        return optimizers_of(model)

    def refusal(self, model: Any) -> str | None:
        return strategies.refusal(model)

    def limitations(
        self, model: Any, optimizers: Mapping[str, Any], flags: bool, probe: bool
    ) -> Iterator[tuple[str, str]]:
        inner = map(unwrapped, optimizers.values())
        return strategies.limits(model.distribute_strategy, inner, flags, probe)

    def has_one_rate(self, optimizers: Mapping[str, Any]) -> bool:
        return have_one_rate(optimizers)

    def can_control(self, model: Any, optimizers: Mapping[str, Any]) -> bool:
        reduces = strategies.reduces_gradients(model.distribute_strategy)
        return self.has_one_rate(optimizers) and not reduces

    def is_chief(self, model: Any) -> bool:
        return strategies.is_chief(model.distribute_strategy)

    def installation(
        self, model: Any, optimizers: Mapping[str, Any], plan: Plan, controls: Controls
    ) -> Installation:
        xla = bool(model.jit_compile) and not model.run_eagerly
        return Installation(model, optimizers, plan, built(controls, xla))

    def loop(self, model: Any, optimizer: Any, every: int, controls: Controls) -> Loop:
        return Loop(model, optimizer, every, built(controls, xla=False))

    def release(self, model: Any) -> None:
        clear_leftover(model)

    def learning_rate(self, optimizer: Any) -> float:
        return float(tf.convert_to_tensor(optimizer.learning_rate))

    def momentum(self, optimizer: Any) -> float:
        return momentum.momentum(optimizer)

    def correct_momentum(self, optimizer: Any, share: float) -> None:
        momentum.correct_momentum(optimizer, share)

    def build_optimizer(self, model: Any, optimizer: Any) -> None:
        if not optimizer.built:
            build(optimizer, model.trainable_variables)

    def snapshot(self, model: Any, optimizer: Any) -> Snapshot:
        return Snapshot(model, optimizer)

    def assigning(self, model: Any) -> contextlib.AbstractContextManager[None]:
        # In TensorFlow, the next step always reads the present values of the variables.
        return contextlib.nullcontext()

    def weights_norm(self, model: Any) -> Callable[[], float]:
        variables = model.trainable_variables
        if not variables:
            return lambda: 0.0

        def norm() -> Any:
            return tf.linalg.global_norm([tf.cast(v.value, tf.float32) for v in variables])

        # Run eagerly, the function takes longer than a step of a small model. It is traced here,
        # because TensorFlow warns about a function that many short fits trace again.
        traced = tf.function(norm, autograph=False).get_concrete_function()
        return lambda: float(traced())


#: The backend that `keras_vanish.capture.backend.load` returns.
BACKEND = TensorFlowBackend()
