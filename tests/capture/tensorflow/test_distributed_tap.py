"""Reading what replicas have summed; more in tests/compatibility/test_distribution.py."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow import distributed_tap as reduction

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def fitted(strategy: Any, monitor: GradientMonitor | None, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1, **options), "mse")
    callbacks = [] if monitor is None else [monitor]
    model.fit(X, X[:, :1], batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    return [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 0.1}])
def test_one_replica_is_read_as_none_is(mirrored: Any, options: dict[str, Any]) -> None:
    monitor, alone = (GradientMonitor(None, update_freq=1) for _ in range(2))
    plain = fitted(mirrored, None, **options)
    for before, after in zip(plain, fitted(mirrored, monitor, **options)):
        np.testing.assert_array_equal(before, after)
    fitted(tf.distribute.get_strategy(), alone, **options)
    assert [diagnosis.step for diagnosis in monitor.history] == [0, 1]
    for found, expected in zip(monitor.history, alone.history):
        np.testing.assert_allclose(found.reading.table, expected.reading.table, 1e-4, 1e-9)


def test_a_custom_loop_under_a_strategy_is_read(mirrored: Any) -> None:
    with mirrored.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
        optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def train_step() -> None:
        def on_replica() -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(X))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))

        mirrored.run(on_replica)

    monitor = GradientMonitor(None, update_freq=2)
    with monitor.watch(model, optimizer):
        for _ in range(3):
            train_step()
            monitor.step()
    assert [diagnosis.step for diagnosis in monitor.history] == [0, 2]
    norm = float(np.linalg.norm(X.sum(0)))
    for diagnosis in monitor.history:
        assert diagnosis.reading.layers[0].gradient_norm == pytest.approx(norm, rel=1e-4)


class Unsummed(keras.optimizers.SGD):
    """As Keras before 3.5: it asks for the sum where replicas have met already."""

    def _backend_update_step(self, grads: Any, trainable_variables: Any, rate: Any) -> None:
        pairs = [(g, v.value) for g, v in zip(grads, trainable_variables)]
        context = tf.distribute.get_replica_context()
        context.merge_call(lambda strategy, pairs: self._all_reduce_sum_gradients(pairs), (pairs,))


def test_replicas_that_do_not_meet_are_not_read(
    mirrored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(mirrored), "num_replicas_in_sync", 2)
    with mirrored.scope():
        variable = keras.Variable(np.ones(3, "float32"))
        optimizer = Unsummed(0.1)
        optimizer.build([variable])
    asked = []

    def recorder_for(variables: list[Any], missing: list[Any]) -> Any:
        asked.append(variables)
        return reduction.Recorder([(3,)], [tf.float32], 1, 0, 1, False, False)

    with (
        reduction.tap_sum(optimizer, recorder_for, lambda: None),
        pytest.warns(UserWarning, match="weights drift apart.*Received: Keras .*Use a later"),
    ):
        mirrored.run(lambda: optimizer.apply([tf.ones(3)], [variable]))
    assert asked == [[variable]]
    assert "apply" not in vars(optimizer)
    assert "_all_reduce_sum_gradients" not in vars(optimizer)
