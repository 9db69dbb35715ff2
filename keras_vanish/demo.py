"""Trains two networks on scikit-learn's digits. Gradients vanish in one and not in the other.

Both have twelve hidden layers. They differ in activation, initialiser and batch normalisation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import keras
from keras import layers

from keras_vanish.monitor import GradientMonitor

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    raise ImportError(
        "The demo trains on the digits of scikit-learn. Received: an environment in which there "
        f'is no module named {error.name!r}. Install it: pip install "keras-vanish[examples]".'
    ) from error

HIDDEN_LAYERS = 12


def sigmoid_model() -> Any:
    """Returns twelve sigmoid layers with the default initialiser of Keras."""
    model = keras.Sequential([keras.Input((64,))])
    for i in range(HIDDEN_LAYERS):
        model.add(layers.Dense(64, activation="sigmoid", name=f"hidden_{i}"))
    model.add(layers.Dense(10, name="digit"))
    return model


def relu_model() -> Any:
    """Returns twelve ReLU layers with He initialisation and batch normalisation."""
    model = keras.Sequential([keras.Input((64,))])
    for i in range(HIDDEN_LAYERS):
        dense = layers.Dense(64, kernel_initializer="he_normal", use_bias=False, name=f"hidden_{i}")
        model.add(dense)
        model.add(layers.BatchNormalization(momentum=0.9, name=f"norm_{i}"))
        model.add(layers.ReLU())
    model.add(layers.Dense(10, name="digit"))
    return model


def run(log_dir: Path) -> None:
    """Trains both networks, and prints their summaries and the command for TensorBoard.

    Args:
        log_dir: The directory in which the runs `vanishing` and `healthy` replace earlier ones.
    """
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=0)
    data = (x_train, y_train), (x_test, y_test)
    _train("vanishing", sigmoid_model(), data, log_dir / "vanishing")
    _train("healthy", relu_model(), data, log_dir / "healthy")

    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    print(f"To see both side by side:\n\n    {tensorboard} --logdir {log_dir}\n")


def _train(name: str, model: Any, data: Any, log_dir: Path) -> None:
    # The curves of an earlier demo would overlap with these.
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
