"""What a recorded step costs a layer and a parameter: the constants of docs/distribution.md.

    python benchmarks/scale.py

Bytes are those of the event file. Times are the least of nine: of the host for diagnosing
and writing, and of the device for reading gradients in the step.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from keras_vanish.capture.tensorflow.recorder import Recorder
from keras_vanish.capture.tensorflow.statistics.histograms import exponent_histograms
from keras_vanish.capture.tensorflow.statistics.packing import Packing
from keras_vanish.diagnosis import LearningProgress, diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.rows import from_rows
from keras_vanish.records.statistics import FLOATS

ROUNDS = 9


def seconds(run: Callable[[], object]) -> float:
    """The least time of a call, after one that does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def normal_counts() -> np.ndarray:
    """The histogram of a gradient whose entries are normally distributed: `[1, BINS]`."""
    packing = Packing([(20_000,)], [tf.float32])
    tf.random.set_seed(0)
    packed = packing.pack([1e-3 * tf.random.normal([20_000], seed=0)])
    return exponent_histograms(packing.groups, packed).numpy()


def written(layers: int, with_histograms: bool) -> tuple[float, float]:
    """Bytes and seconds of the host for one recorded step of layers with two variables each."""
    infos = [
        LayerInfo(f"block_{i}/dense", ("kernel", "bias"), (2 * i, 2 * i + 1), (9_000_000, 3000), 1)
        for i in range(layers)
    ]
    rng = np.random.default_rng(0)
    floats = rng.random((2 * layers, len(FLOATS))).astype("float32")
    counts = np.tile(normal_counts(), (2 * layers, 1))
    shown = Histograms(
        layers=tuple(info.name for info in infos for _ in info.variables),
        variables=tuple(name for info in infos for name in info.variables),
        sizes=tuple(size for info in infos for size in info.sizes),
        counts=counts,
    )
    with tempfile.TemporaryDirectory() as log_dir:
        writer = EventWriter(log_dir)
        steps = iter(range(1000))

        def step() -> None:
            reading = from_rows(next(steps), time.time(), infos, floats, counts)
            diagnosis = diagnose(reading, LearningProgress())
            writer.write(diagnosis, shown if with_histograms else None, "healthy", {})

        step()  # Metadata is written once.
        files = list(Path(log_dir).rglob("events.*"))
        before = sum(file.stat().st_size for file in files)
        taken = seconds(step)
        size = sum(file.stat().st_size for file in files) - before
        writer.close()
    return size / (ROUNDS + 1), taken


def read(variables: int, entries: int) -> float:
    """Seconds of the device for reading gradients and updates of variables of one size."""
    weights = [tf.Variable(tf.random.normal([entries])) for _ in range(variables)]
    recorder = Recorder(
        shapes=[weight.shape for weight in weights],
        dtypes=[weight.dtype for weight in weights],
        every=1,
        first=0,
        slots=1,
        xla=False,
        always=True,
    )

    @tf.function
    def step(number: tf.Tensor) -> None:
        values = [tf.convert_to_tensor(weight) for weight in weights]
        half = recorder.before(values, None, values)
        recorder.after(number, values, half)

    return seconds(lambda: step(tf.constant(0, tf.int64)))


def main() -> None:
    for with_histograms in (False, True):
        (few, few_s), (many, many_s) = (written(n, with_histograms) for n in (100, 1000))
        print(
            f"{'with' if with_histograms else 'without'} histograms: "
            f"{(many - few) / 900:.0f} bytes and {(many_s - few_s) / 900 * 1e6:.0f} us of the host "
            f"a layer; {many:.0f} bytes and {many_s * 1e3:.0f} ms for 1,000 layers"
        )
    small, more = read(100, 64), read(1000, 64)
    print(f"device: {(more - small) / 900 * 1e6:.1f} us a small variable")
    one, eight = read(1, 1 << 22), read(8, 1 << 22)
    print(f"device: {(eight - one) / (7 << 22) * 1e9:.2f} ns a parameter of large variables")


if __name__ == "__main__":
    main()
