"""A residual network of 14 convolutions on 8 x 8 pixels."""

import argparse

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_vanish import GradientMonitor


def convolution(x, filters, strides=1):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def residual_block(x, filters, strides=1):
    shortcut = x
    if strides > 1:
        shortcut = layers.Conv2D(filters, 1, strides)(x)
    x = layers.ReLU()(convolution(x, filters, strides))
    x = convolution(x, filters)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def build_model():
    inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(convolution(inputs, 16))
    for filters, strides in [(16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)]:
        x = residual_block(x, filters, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", default="logs/deep_cnn", help="for TensorBoard")
    log_dir = parser.parse_args().logdir

    keras.utils.set_random_seed(0)
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images[..., None] / 16, digits.target, test_size=0.2, random_state=0
    )
    model = build_model()
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = GradientMonitor(log_dir, update_freq=10)
    model.fit(x_train, y_train, epochs=5, callbacks=[monitor], verbose=2)

    accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"\nAccuracy on digits it has not seen: {accuracy:.0%}\n")
    print(monitor.summary())
    print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
