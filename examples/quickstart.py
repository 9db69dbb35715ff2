"""A small classifier of handwritten digits, watched while it trains."""

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--logdir", default="logs/quickstart", help="for TensorBoard")
log_dir = parser.parse_args().logdir

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=0)

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
)
model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

monitor = GradientMonitor(log_dir, update_freq=20)
model.fit(x_train, y_train, epochs=15, callbacks=[monitor], verbose=2)

accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
print(f"\nAccuracy on digits it has not seen: {accuracy:.0%}\n")
print(monitor.summary())
print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")
