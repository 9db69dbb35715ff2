"""What monitoring costs, as a ratio to plain `fit`, next to two things people do today.

    python benchmarks/overhead.py                    # the whole table
    python benchmarks/overhead.py --models CNN --rounds 3

Every variant trains its own copy of the model in this process. Rounds are interleaved:
in each, every variant trains for the same number of steps, and its time is divided by
that of plain `fit` in the same round. Everything is included: statistics, host reads,
diagnosis, event writing, histograms. Tracing is not: it happens in a first `fit`, whose
extra time, in seconds without and with the probe and with all flags, is a column of its own.
What is measured is a long run, which traces two functions: see `SHORT_RUN` in
`keras_vanish/capture/tensorflow/installation.py`.
The column of the flags is with the probe, on a run in which they find nothing to do. Peak memory is
that of processes of their own.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import models
import numpy as np
import tensorflow as tf

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow import installation


class SecondPass(keras.callbacks.Callback):
    """The recipe of Q&A sites: another `GradientTape` pass, and `tf.summary.histogram`."""

    def __init__(self, log_dir: str, every: int, batch: tuple[Any, Any]) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(log_dir)
        self.every = every
        self.x, self.y = batch
        self.seen = 0

    def on_train_begin(self, logs: Any = None) -> None:
        @tf.function
        def gradients() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = self.model.compute_loss(self.x, self.y, self.model(self.x, training=True))
            return [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]

        weights = [variable.value for variable in self.model.trainable_variables]
        if not hasattr(self, "gradients"):
            self.gradients = gradients

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.seen % self.every == 0:
            with self.writer.as_default():
                for variable, g in zip(self.model.trainable_variables, self.gradients()):
                    tf.summary.histogram(variable.path, g, step=self.seen)
            self.writer.flush()
        self.seen += 1


def callbacks(kind: str, every: int, batch: tuple[Any, Any]) -> list[Any]:
    log_dir = tempfile.mkdtemp(prefix="overhead-")
    if kind == "monitor":
        return [GradientMonitor(log_dir, update_freq=every, probe=False)]
    if kind == "with probe":
        return [GradientMonitor(log_dir, update_freq=every)]
    if kind == "all flags":
        flags = dict.fromkeys(("auto_clip", "auto_lr", "auto_rollback", "auto_init"), True)
        return [GradientMonitor(log_dir, update_freq=every, **flags)]
    if kind == "second pass":
        return [SecondPass(log_dir, every, batch)]
    if kind == "TensorBoard":
        return [keras.callbacks.TensorBoard(log_dir, histogram_freq=1)]
    return []


#: Where the machine is shared or throttled, the time of the process is the steadier one. It adds
#: up over threads.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Variant:
    """A model of its own, trained for `steps` steps at a time."""

    clock = "wall"

    def __init__(self, model: models.Benchmark, jit: bool, kind: str, every: int, steps: int):
        keras.utils.set_random_seed(0)
        self.model = model.build(jit)
        x, y = model.batch()
        self.callbacks = callbacks(kind, every, (tf.constant(x), tf.constant(y)))
        data = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
        self.data = data.prefetch(2)
        # Keras writes its histograms at the end of an epoch: there, an epoch is the cadence.
        self.length = every if kind in ("TensorBoard", "plain epochs") else steps
        self.epochs = steps // self.length

    def seconds(self) -> float:
        start = CLOCKS[self.clock]()
        self.model.fit(
            self.data,
            steps_per_epoch=self.length,
            epochs=self.epochs,
            verbose=0,
            callbacks=self.callbacks,
        )
        return CLOCKS[self.clock]() - start


def measure(
    model: models.Benchmark, jit: bool, every: int, kinds: list[str], rounds: int
) -> dict[str, tuple[list[float], float]]:
    """For each kind the ratios to plain `fit`, and the extra seconds of the first `fit`."""
    steps = max(every, model.steps)
    names = ["plain", *kinds] + (["plain epochs"] if "TensorBoard" in kinds else [])
    variants = {kind: Variant(model, jit, kind, every, steps) for kind in names}
    first = {kind: variant.seconds() for kind, variant in variants.items()}
    for variant in variants.values():
        variant.seconds()
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        times = {kind: variants[kind].seconds() for kind in order}
        for kind in kinds:
            base = "plain epochs" if kind == "TensorBoard" else "plain"
            ratios[kind].append(times[kind] / times[base])
    return {kind: (ratios[kind], first[kind] - first["plain"]) for kind in kinds}


def peak(name: str, jit: bool, kind: str) -> int:
    """Peak resident memory, in KiB, of a process that trains for ten steps."""
    arguments = [sys.executable, __file__, "--peak", name, kind, str(int(jit))]
    return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def train_for_peak(name: str, kind: str, jit: str) -> None:
    variant = Variant(models.BENCHMARKS[name], jit == "1", kind, 1, 10)
    variant.seconds()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def spread(ratios: list[float]) -> str:
    low, _, high = np.percentile(ratios, [25, 50, 75])
    return f"{statistics.median(ratios):.3f} ({low:.3f}–{high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(models.BENCHMARKS))
    parser.add_argument("--every", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--modes", nargs="+", default=["graph", "XLA"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        train_for_peak(*options.peak)
        return
    Variant.clock = options.clock
    installation.SHORT_RUN = 0
    print(
        f"{os.cpu_count()} cores, {platform.machine()}; TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}, Python {platform.python_version()}; median of "
        f"{options.rounds} interleaved rounds (quartiles), {options.clock} time\n"
    )
    print(
        row(
            *("model", "mode", "every", "probe=False", "with the probe", "all flags"),
            *("extra first fit", "second pass", "TensorBoard"),
        )
    )
    print(row(*["---"] * 9), flush=True)
    for name in options.models:
        for mode in options.modes:
            for every in options.every:
                peers = [] if options.no_peers or mode == "XLA" else ["second pass", "TensorBoard"]
                ours = ["monitor", "with probe", "all flags"]
                found = measure(
                    models.BENCHMARKS[name], mode == "XLA", every, [*ours, *peers], options.rounds
                )
                cells = [name, mode, str(every)]
                cells += [spread(found[kind][0]) for kind in ours]
                cells.append(" / ".join(f"{found[kind][1]:.1f}" for kind in ours))
                cells += [spread(found[peer][0]) for peer in peers] or ["", ""]
                print(row(*cells), flush=True)
    if options.no_memory:
        return
    print("\n" + row("model", "mode", "peak memory, every step, over plain"))
    print(row(*["---"] * 3), flush=True)
    for name in options.models:
        for mode in options.modes:
            jit = mode == "XLA"
            ratios = [peak(name, jit, "monitor") / peak(name, jit, "plain") for _ in range(3)]
            print(row(name, mode, f"{statistics.median(ratios):.3f}"), flush=True)


if __name__ == "__main__":
    main()
