"""Tells what can be read of a `fit` under a `tf.distribute` strategy, and by which process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import replica_number, runs_in_several_processes

#: The strategies whose replicas each hold all weights and sum their gradients.
MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


def reduces_gradients(strategy: Any) -> bool:
    """Returns whether the replicas of a strategy sum their gradients, even if there is only one."""
    return isinstance(strategy, MIRRORED)


def several_processes(strategy: Any) -> bool:
    """Returns whether the replicas of a strategy are spread over several processes."""
    return bool(reduces_gradients(strategy) and runs_in_several_processes(strategy))


def is_chief(strategy: Any) -> bool:
    """Returns whether this process is the chief, which writes the files that all processes use."""
    return bool(strategy.extended.should_save_summary)


def reads_here() -> bool:
    """Returns whether the code that runs or is traced now belongs to the replica that is read.

    This is the first replica of each process. It is always True without replicas.
    """
    context = tf.distribute.get_replica_context()
    if context is None or not reduces_gradients(context.strategy):
        return True
    return bool(replica_number(context) == 0)


def clips(optimizer: Any) -> bool:
    """Returns whether a Keras optimizer clips the gradients that it receives."""
    return bool(optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue)


def refusal(model: Any) -> str | None:
    """Returns why a fit of this model is not monitored; None if it is.

    Args:
        model: A compiled Keras model.
    """
    strategy = model.distribute_strategy
    compiled = bool(model.jit_compile) and not model.run_eagerly
    if not compiled if reduces_gradients(strategy) else strategy.num_replicas_in_sync == 1:
        return None
    return (
        "GradientMonitor reads gradients under MirroredStrategy and MultiWorkerMirroredStrategy "
        "without XLA, and where there is one replica: this fit goes on unmonitored. Received: "
        f"{_described(strategy)}{' and jit_compile=True' if compiled else ''}."
    )


def limits(
    strategy: Any, optimizers: Iterable[Any], flags: bool, probe: bool
) -> Iterator[tuple[str, str]]:
    """Yields what is not monitored in a fit of this model: pairs of a subject and a sentence.

    Args:
        strategy: The model's strategy.
        optimizers: The innermost Keras optimizers.
        flags: Whether any flag `auto_*` is on.
        probe: Whether the batch is to be probed.
    """
    if not reduces_gradients(strategy):
        return
    if flags:
        yield (
            "flags",
            "GradientMonitor's flags auto_* do nothing in a fit whose replicas sum their "
            f"gradients. Received: {_described(strategy)}. Readings go on.",
        )
    if not several_processes(strategy):
        return
    if probe:
        yield (
            "probe",
            "GradientMonitor does not probe the batch where each process has another: it shows "
            f"the gradients of weights only. Received: {_described(strategy)}. Set probe=False "
            "to say that this is meant.",
        )
    if any(clips(optimizer) for optimizer in optimizers):
        yield (
            "clipping",
            "The optimizer clips the gradients of each replica before they are summed, and those "
            "of other processes are not known unclipped: GradientMonitor shows what training "
            f"used, after clipping. Received: {_described(strategy)} and clipnorm, "
            "global_clipnorm or clipvalue.",
        )


def _described(strategy: Any) -> str:
    # TensorFlow exports the class under a name that differs from `__name__`.
    name = type(strategy).__name__.replace("CollectiveAllReduce", "MultiWorkerMirrored")
    replicas = strategy.num_replicas_in_sync
    return f"a {name} with {replicas} replica{'' if replicas == 1 else 's'}"
