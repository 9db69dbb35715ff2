"""Two networks on scikit-learn's digits: in one the gradients vanish, in the other not.

Both have twelve hidden layers. What differs is the activation, the initialiser and batch
normalisation.
"""

import argparse
import os
import sys
from pathlib import Path

import keras
from keras.layers import BatchNormalization, Dense, ReLU
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor

HIDDEN_LAYERS = 12


def sigmoid_model():
    model = keras.Sequential([keras.Input((64,))])
    for i in range(HIDDEN_LAYERS):
        model.add(Dense(64, activation="sigmoid", name=f"hidden_{i}"))
    model.add(Dense(10, name="digit"))
    return model


def relu_model():
    model = keras.Sequential([keras.Input((64,))])
    for i in range(HIDDEN_LAYERS):
        model.add(Dense(64, kernel_initializer="he_normal", use_bias=False, name=f"hidden_{i}"))
        model.add(BatchNormalization(momentum=0.9, name=f"norm_{i}"))
        model.add(ReLU())
    model.add(Dense(10, name="digit"))
    return model


def train(name, model, data, log_dir):
    # The curves of an earlier demo would lie on top of these.
    for events in log_dir.rglob("events.out.tfevents.*"):
        events.unlink()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    print(f"Training the {name} model ...", flush=True)
    monitor = GradientMonitor(log_dir, update_freq=10)
    losses = keras.callbacks.TensorBoard(log_dir)
    callbacks = [monitor, losses]
    model.fit(*data[0], epochs=10, validation_data=data[1], callbacks=callbacks, verbose=0)
    accuracy = model.evaluate(*data[1], verbose=0)[1]
    print(f"Accuracy on digits it has not seen: {accuracy:.0%}\n\n{monitor.summary()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logdir", type=Path, default=Path("logs"), help="for TensorBoard")
    logs = parser.parse_args().logdir

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=0)
    data = (x_train, y_train), (x_test, y_test)
    train("vanishing", sigmoid_model(), data, logs / "vanishing")
    train("healthy", relu_model(), data, logs / "healthy")

    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    print(f"To see both side by side:\n\n    {tensorboard} --logdir {logs}\n")


if __name__ == "__main__":
    main()
