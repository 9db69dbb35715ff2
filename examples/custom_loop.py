"""A training loop of one's own: no `compile`, no `fit`."""

import argparse

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--logdir", default="logs/custom_loop", help="for TensorBoard")
log_dir = parser.parse_args().logdir

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
batches = tf.data.Dataset.from_tensor_slices((x / 16, y)).shuffle(len(x), seed=0).batch(32)

model = keras.Sequential([keras.Input((64,))])
for _ in range(4):
    model.add(keras.layers.Dense(64, activation="gelu", kernel_initializer="he_normal"))
model.add(keras.layers.Dense(10))
optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@tf.function
def train_step(inputs, labels):
    with tf.GradientTape() as tape:
        loss = loss_of(labels, model(inputs, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


monitor = GradientMonitor(log_dir, update_freq=20)
with monitor.watch(model, optimizer):
    for epoch in range(10):
        for inputs, labels in batches:
            loss = train_step(inputs, labels)
            monitor.step()
        scores = monitor.history[-1]
        print(
            f"Epoch {epoch + 1}: loss {float(loss):.3f}, "
            f"vanishing score {scores.vanishing_score:.2f}, {monitor.verdict}"
        )

print(f"\n{monitor.summary()}")
print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")
