"""What can be read under a distribution strategy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_vanish.capture.tensorflow.strategies import (
    is_chief,
    limits,
    reads_here,
    reduces_gradients,
    refusal,
    several_processes,
)


def model_under(strategy: Any, jit_compile: bool = False, run_eagerly: bool = False) -> Any:
    return SimpleNamespace(
        distribute_strategy=strategy, jit_compile=jit_compile, run_eagerly=run_eagerly
    )


def test_without_a_strategy_nothing_is_summed_and_all_is_read() -> None:
    strategy = tf.distribute.get_strategy()
    assert not reduces_gradients(strategy)
    assert not several_processes(strategy)
    assert is_chief(strategy)
    assert reads_here()
    assert refusal(model_under(strategy, jit_compile=True)) is None
    assert list(limits(strategy, [keras.optimizers.SGD(clipnorm=1.0)], True, True)) == []


def test_a_mirrored_strategy_sums_in_one_process(mirrored: Any) -> None:
    assert reduces_gradients(mirrored)
    assert not several_processes(mirrored)
    assert is_chief(mirrored)
    assert mirrored.run(reads_here)
    assert refusal(model_under(mirrored)) is None
    assert refusal(model_under(mirrored, jit_compile=True, run_eagerly=True)) is None


def test_xla_under_a_strategy_is_refused(mirrored: Any) -> None:
    assert refusal(model_under(mirrored, jit_compile=True)) == (
        "GradientMonitor reads gradients under MirroredStrategy and MultiWorkerMirroredStrategy "
        "without XLA, and where there is one replica: this fit goes on unmonitored. Received: "
        "a MirroredStrategy with 1 replica and jit_compile=True."
    )


def test_another_strategy_with_several_replicas_is_refused() -> None:
    class ShardedStrategy:
        num_replicas_in_sync = 4

    message = refusal(model_under(ShardedStrategy()))
    assert message is not None
    assert message.endswith("Received: a ShardedStrategy with 4 replicas.")


def test_flags_are_left_out_where_gradients_are_summed(mirrored: Any) -> None:
    clipping = keras.optimizers.SGD(clipnorm=1.0)
    assert [about for about, _ in limits(mirrored, [clipping], True, True)] == ["flags"]
    assert list(limits(mirrored, [clipping], False, True)) == []


def test_several_processes_neither_probe_nor_know_unclipped_gradients(
    mirrored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrored.extended, "_in_multi_worker_mode", lambda: True)
    plain, clipping = keras.optimizers.SGD(), keras.optimizers.SGD(clipvalue=1.0)
    assert [about for about, _ in limits(mirrored, [clipping], False, True)] == [
        "probe",
        "clipping",
    ]
    assert list(limits(mirrored, [plain], False, False)) == []
