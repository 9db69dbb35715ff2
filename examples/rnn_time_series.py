"""Next year's sunspots from those of the last 30 years, with two stacked LSTM layers."""

import argparse

import keras
import numpy as np
from statsmodels.datasets import sunspots

from keras_vanish import GradientMonitor

WINDOW = 30
TESTED_YEARS = 60

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--logdir", default="logs/rnn_time_series", help="for TensorBoard")
log_dir = parser.parse_args().logdir

keras.utils.set_random_seed(0)
series = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy("float32") / 100
x = np.lib.stride_tricks.sliding_window_view(series[:-1], WINDOW)[..., None]
y = series[WINDOW:]
x_train, y_train = x[:-TESTED_YEARS], y[:-TESTED_YEARS]
x_test, y_test = x[-TESTED_YEARS:], y[-TESTED_YEARS:]

model = keras.Sequential(
    [
        keras.Input((WINDOW, 1)),
        keras.layers.LSTM(32, return_sequences=True),
        keras.layers.LSTM(32),
        keras.layers.Dense(1),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse", metrics=["mae"])

monitor = GradientMonitor(log_dir, update_freq=10)
model.fit(x_train, y_train, epochs=40, batch_size=32, callbacks=[monitor], verbose=0)

error = model.evaluate(x_test, y_test, verbose=0)[1]
naive = np.abs(y_test - x_test[:, -1, 0]).mean()
print(f"Mean error over the last {TESTED_YEARS} years: {100 * error:.0f} sunspots")
print(f"'The same as last year' is wrong by {100 * naive:.0f}\n")
print(monitor.summary())
print(f"Open TensorBoard with: tensorboard --logdir {log_dir}")
