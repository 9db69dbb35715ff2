"""One batch of NaN ends a training for good; with flags it goes on."""

import argparse
import os
from collections import Counter

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor


def compiled_model():
    keras.utils.set_random_seed(0)
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
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", default="logs/nan_rescued", help="for TensorBoard")
    log_dir = parser.parse_args().logdir

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, test_size=0.2, random_state=0)
    # A sensor fails for the length of one batch; it comes back in each epoch.
    x_train[20 * 32 : 21 * 32] = np.nan

    flags = {"auto_clip": True, "auto_lr": True, "auto_rollback": True}
    for name, chosen in (("untouched", {}), ("rescued", flags)):
        model = compiled_model()
        monitor = GradientMonitor(os.path.join(log_dir, name), update_freq=10, **chosen)
        model.fit(x_train, y_train, epochs=10, shuffle=False, callbacks=[monitor], verbose=0)

        broken = sum(np.isnan(weights).sum() for weights in model.get_weights())
        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        print(f"\n{name}. Weights that are NaN: {broken} of {model.count_params()}")
        print(f"Accuracy on digits it has not seen: {accuracy:.0%}\n")
        print(monitor.summary())
        acts = Counter(intervention.action for intervention in monitor.interventions)
        print(f"Interventions: {dict(acts)}")
    path = os.path.join(log_dir, "rescued", "gradients", "interventions.jsonl")
    print(f"\nThe interventions one by one: {path}")
    print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
