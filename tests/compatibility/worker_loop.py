"""One worker of MultiWorkerMirroredStrategy; prints what it read as JSON.

Trains the same model twice: unmonitored, and monitored into the log directory. TF_CONFIG says
which worker it is.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vanish import GradientMonitor
from keras_vanish.records.statistics import COLUMNS

BATCH = 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = (2 * X[:, :1]).astype("float32")


def trained(strategy: Any, monitor: GradientMonitor | None, steps: int, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), *map(keras.layers.Dense, (9, 5, 1))])
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9, **options)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).repeat().batch(BATCH)
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = iter(strategy.experimental_distribute_dataset(data.with_options(sharding)))

    @tf.function
    def train_step(batch: Any) -> Any:
        def on_replica(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(model(x) - y)) / BATCH
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))

        strategy.run(on_replica, args=batch)

    watching = contextlib.nullcontext() if monitor is None else monitor.watch(model, optimizer)
    with watching:
        for step in range(steps):
            train_step(next(batches))
            if monitor is not None:
                monitor.step()
                print(f"step {step}", flush=True)
    return [variable.numpy().tobytes().hex() for variable in model.trainable_variables]


def main(log_dir: str, steps: int) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if steps > 100:
        trained(strategy, GradientMonitor(log_dir, update_freq=1), steps)
        return
    plain = trained(strategy, None, steps)
    monitor = GradientMonitor(log_dir, update_freq=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weights = trained(strategy, monitor, steps)
        clipping = GradientMonitor(None, update_freq=3, auto_lr=True)
        trained(strategy, clipping, 1, clipvalue=0.1)
    alone = GradientMonitor(None, update_freq=3)
    trained(tf.distribute.get_strategy(), alone, steps)
    found = {
        "identical": plain == weights,
        "weights": weights,
        "warnings": [str(w.message) for w in caught if "Gradient" in str(w.message)],
    }
    for name, each in (("read", monitor), ("alone", alone), ("clipping", clipping)):
        found[name] = [
            [d.step, dict(zip(COLUMNS, d.reading.table.T.tolist()))] for d in each.history
        ]
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
