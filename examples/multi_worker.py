"""One model on several machines, or on one in several processes.

Each process is told of all of them by TF_CONFIG; the first one writes the logs. Two on one
machine, in two terminals, where the second is told "index": 1:

    TF_CONFIG='{"cluster": {"worker": ["localhost:12345", "localhost:12346"]},
                "task": {"type": "worker", "index": 0}}' python examples/multi_worker.py

They wait for each other, and end together. Without TF_CONFIG this is the only process.
"""

import argparse

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor

BATCH = 60  # Of all processes together.

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--logdir", default="logs/multi_worker", help="for TensorBoard")
log_dir = parser.parse_args().logdir

# Before anything else of TensorFlow: here the processes meet.
strategy = tf.distribute.MultiWorkerMirroredStrategy()

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
data = tf.data.Dataset.from_tensor_slices(((x / 16).astype("float32"), y.astype("int32")))
data = data.shuffle(len(x), seed=0).batch(BATCH, drop_remainder=True)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
batches = strategy.experimental_distribute_dataset(data.with_options(options))

with strategy.scope():
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(4):
        model.add(keras.layers.Dense(64, activation="gelu", kernel_initializer="he_normal"))
    model.add(keras.layers.Dense(10))
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)


@tf.function
def train_step(batch):
    def on_replica(inputs, labels):
        with tf.GradientTape() as tape:
            losses = loss_of(labels, model(inputs, training=True))
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH)
        gradients = tape.gradient(loss, model.trainable_variables)
        # Keras sums what the replicas found, and the monitor reads the sum.
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    return strategy.reduce("SUM", strategy.run(on_replica, args=batch), axis=None)


monitor = GradientMonitor(log_dir, update_freq=20)
with monitor.watch(model, optimizer):
    for epoch in range(10):
        for batch in batches:
            loss = train_step(batch)
            monitor.step()
        print(f"Epoch {epoch + 1}: loss {float(loss):.3f}, {monitor.verdict}", flush=True)

print(f"Accuracy: {(model(x / 16).numpy().argmax(1) == y).mean():.0%}\n")
print(monitor.summary())
print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")
