"""Layers learnt on the digits 0 to 4, frozen below a new head for 5 to 9, then released."""

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor


def split(x, y, digits):
    chosen = [label in digits for label in y]
    return train_test_split(x[chosen] / 16, y[chosen] - digits[0], test_size=0.3, random_state=0)


def with_new_head(base):
    model = keras.Sequential(
        [base, keras.layers.Dense(32, activation="relu"), keras.layers.Dense(5)]
    )
    model.build((None, 64))
    return model


def compile_model(model, learning_rate):
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", default="logs/transfer_learning", help="for TensorBoard")
    log_dir = parser.parse_args().logdir

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    base = keras.Sequential(name="base")
    for _ in range(3):
        base.add(keras.layers.Dense(64, activation="relu"))

    x_train, _, y_train, _ = split(x, y, range(0, 5))
    model = with_new_head(base)
    compile_model(model, 1e-3)
    model.fit(x_train, y_train, epochs=15, verbose=0)

    x_train, x_test, y_train, y_test = split(x, y, range(5, 10))
    model = with_new_head(base)
    monitor = GradientMonitor(log_dir, update_freq=10)
    for frozen in (True, False):
        base.trainable = not frozen
        compile_model(model, 3e-3 if frozen else 3e-4)
        model.fit(x_train, y_train, epochs=20, callbacks=[monitor], verbose=0)
        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        print(f"The base is {'frozen' if frozen else 'released'}. Accuracy: {accuracy:.0%}\n")
        print(monitor.summary())
    print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
