"""Twelve sigmoid layers that learn nothing, until a flag initialises them from the data."""

import argparse
import os

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor


def compiled_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,))])
    for number in range(12):
        model.add(keras.layers.Dense(64, activation="sigmoid", name=f"hidden_{number}"))
    model.add(keras.layers.Dense(10, name="head"))
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", default="logs/deep_sigmoid_rescued", help="for TensorBoard")
    log_dir = parser.parse_args().logdir

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=0)

    for name, auto_init in (("untouched", False), ("rescued", True)):
        model = compiled_model()
        monitor = GradientMonitor(os.path.join(log_dir, name), update_freq=20, auto_init=auto_init)
        model.fit(x_train, y_train, epochs=20, callbacks=[monitor], verbose=0)

        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        print(f"\n{name}. Accuracy on digits it has not seen: {accuracy:.0%}\n")
        print(monitor.summary())
        for intervention in monitor.interventions:
            print(f"Intervention at step {intervention.step}: {intervention.action}")
    path = os.path.join(log_dir, "rescued", "gradients", "interventions.jsonl")
    print(f"\nWith all figures: {path}")
    print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
