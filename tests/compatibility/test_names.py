"""Names of layers that are paths, markup or nonsense: in the log directory and in tags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from keras_vanish import GradientMonitor, read
from keras_vanish.cli import main

L = keras.layers

NAMES = [
    "..",
    ".. up",
    "~",
    "%2e%2e%2f",
    "C:\\windows",
    "gs:",
    "with space",
    "schön 层 🎉 é",
    "right\u202eto left",
    "new\nline\ttab",
    "bell\x07 escape\x1b[31m",
    "<img src=x onerror=alert(1)>",
    "`*_[x](javascript:1)",
    "{braces} {0}",
    "x" * 300,
    "层" * 300,
]


def named() -> Any:
    """A model with all of these names; one is within a block whose name is a path upwards."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((4,)), L.Dense(4, name=".."), L.Dense(4, name="x" * 300)], name=".."
    )
    outer = keras.Sequential([keras.Input((4,)), inner], name=".. ")
    layers = [L.Dense(4, name=name) for name in NAMES[1:]]
    model = keras.Sequential([keras.Input((4,)), outer, *layers, L.Dense(2, name="head")])
    # In a graph, TensorFlow itself takes letters, digits and a few signs only.
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")
def test_names_stay_in_the_log_dir_and_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = named()
    # The probe needs a graph.
    monitor = GradientMonitor(tmp_path / "logs", update_freq=1, probe=False)
    x = np.ones((8, 4), "float32")
    model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[monitor])
    names = monitor.history[0].reading.names
    nested = [".. /../..", f".. /../{'x' * 300}"]
    assert list(names) == [*nested, *NAMES[1:], "head"]

    assert [d.reading for d in read(tmp_path)] == [d.reading for d in monitor.history]
    (folder,) = (tmp_path / "logs").iterdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]
    assert folder.name == "gradients"
    assert all("tfevents" in path.name or path.suffix == ".json" for path in folder.iterdir())

    # TensorBoard tells each layer from the others, in the order of depth.
    accumulator = EventAccumulator(os.fspath(folder), tensor_size_guidance={})
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    rms = sorted(tag for tag in tags if tag.startswith("gradient_rms/"))
    assert rms == [f"gradient_rms/{depth:02d}_{name}" for depth, name in enumerate(names)]
    kernels = [tag for tag in tags if tag.startswith("gradients/") and tag.endswith("/kernel")]
    assert len(kernels) == len(names)

    assert main(["report", os.fspath(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert not {"\x07", "\x1b", "\u202e", "\t"} & set(shown)
    assert "schön 层 🎉" in shown


def test_paths_as_names_in_a_graph(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    names = ["..", "x" * 300, "a.b", "A"]
    layers = [keras.Sequential([keras.Input((4,)), L.Dense(4, name=n)], name=n) for n in names]
    model = keras.Sequential([keras.Input((4,)), *layers], name="..")
    model.compile("sgd", "mse")
    monitor = GradientMonitor(tmp_path / "logs", update_freq=1)
    x = np.ones((8, 4), "float32")
    model.fit(x, x, batch_size=4, verbose=0, callbacks=[monitor])
    reading = monitor.history[0].reading
    assert [a.name for a in reading.activations] == [f"{name}/{name}" for name in names]
    assert read(tmp_path) == monitor.history
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == [
        "gradients",
        "logs",
    ]
