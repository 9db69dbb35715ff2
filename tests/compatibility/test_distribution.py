"""Fits whose replicas sum their gradients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vanish
from keras_vanish import GradientMonitor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])

#: Before, Keras trained each replica apart.
SUMS = VERSION >= (3, 5)
#: Before, each replica's loss was its own mean: the sum was too large by their number.
AVERAGES = VERSION >= (3, 8)

summed = pytest.mark.skipif(not SUMS, reason="Keras before 3.5 does not sum gradients")
averaged = pytest.mark.skipif(not AVERAGES, reason="Keras before 3.8 does not average losses")


def started(script: str, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, HERE / script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def found_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def workers(log_dir: Path, steps: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as one, socket.socket() as two:
        places = []
        for listener in (one, two):
            listener.bind(("localhost", 0))
            places.append(f"localhost:{listener.getsockname()[1]}")
    return [
        started(
            "worker_loop.py",
            log_dir / str(index),
            steps,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": places}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in (0, 1)
    ]


@pytest.fixture(scope="module")
def fits() -> dict[str, Any]:
    return found_by(started("mirrored_fits.py", "decay", "clipping", "sparse"))


@pytest.fixture(scope="module")
def more_fits() -> dict[str, Any]:
    return found_by(started("mirrored_fits.py", "half", "normalised", "eager"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    log_dir = tmp_path_factory.mktemp("workers")
    return log_dir, [found_by(process) for process in workers(log_dir, 8)]


def assert_equal(reading: dict[str, Any], reference: dict[str, Any], rtol: float = 1e-4) -> None:
    for column, values in reading.items():
        expected = np.array(reference[column], float)
        # A mean of parts that cancel, or a fraction, is equal as beside the whole.
        atol = rtol * max(1e-6, float(np.nanmax(np.abs(expected))))
        actual = np.array(values, float)
        np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=column)


@pytest.mark.parametrize("name", ["decay", "clipping", "sparse"])
def test_weights_are_those_of_the_unmonitored_replicas(fits: dict[str, Any], name: str) -> None:
    assert fits[name]["identical"]


@pytest.mark.soak
@pytest.mark.parametrize("name", ["half", "normalised", "eager"])
def test_so_are_those_of_more_replicas(more_fits: dict[str, Any], name: str) -> None:
    assert more_fits[name]["identical"]
    assert more_fits[name]["warnings"] == [] or not SUMS


def check_readings(fit: dict[str, Any], rtol: float) -> None:
    assert fit["steps"] == fit["steps_alone"] == [0, 3, 6]
    for reading, reference in zip(fit["readings"], fit["readings_alone"]):
        assert_equal(reading, reference, rtol)


@averaged
@pytest.mark.parametrize("name", ["decay", "sparse"])
def test_readings_are_those_of_one_device_with_the_whole_batch(
    fits: dict[str, Any], name: str
) -> None:
    check_readings(fits[name], 1e-4)


@averaged
@pytest.mark.soak
@pytest.mark.parametrize(("name", "rtol"), [("half", 2e-2), ("eager", 1e-4)])
def test_so_are_readings_in_half_precision_and_of_eager_steps(
    more_fits: dict[str, Any], name: str, rtol: float
) -> None:
    check_readings(more_fits[name], rtol)


@averaged
def test_gradients_are_known_before_and_after_each_replica_clips(fits: dict[str, Any]) -> None:
    first, alone = fits["clipping"]["readings"][0], fits["clipping"]["readings_alone"][0]
    for column in ("gradient_rms", "gradient_norm", "gradient_min", "gradient_max"):
        np.testing.assert_allclose(first[column], alone[column], 1e-4)
    np.testing.assert_allclose(
        first["gradient_norm_after_clipping"], fits["expected_clipped"], 1e-4
    )


@averaged
def test_the_probe_sees_the_first_replicas_share(fits: dict[str, Any]) -> None:
    assert fits["clipping"]["probed_loss"] == pytest.approx(fits["expected_probed_loss"], rel=1e-4)


@summed
@pytest.mark.soak
def test_the_step_axis_goes_on_in_the_next_fit_with_replicas(more_fits: dict[str, Any]) -> None:
    assert more_fits["normalised"]["steps"] == [3, 7, 11, 15]
    assert more_fits["normalised"]["logged"] == more_fits["normalised"]["score"]


@summed
def test_flags_do_nothing_and_say_so(fits: dict[str, Any]) -> None:
    (warning,) = fits["sparse"]["warnings"]
    assert warning == (
        "GradientMonitor's flags auto_* do nothing in a fit whose replicas sum their gradients. "
        "Received: a MirroredStrategy with 2 replicas. Readings go on."
    )
    assert fits["sparse"]["interventions"] == 0
    assert all(not fits[name]["warnings"] for name in ("decay", "clipping"))


@pytest.mark.skipif(SUMS, reason="Keras sums the gradients")
def test_replicas_that_are_trained_apart_are_not_read(fits: dict[str, Any]) -> None:
    # Once a trace: by default, Python shows it once.
    (warning,) = set(fits["decay"]["warnings"])
    assert "weights drift apart" in warning
    assert f"Received: Keras {keras.__version__}." in warning
    assert fits["decay"]["readings"] == []


def test_accumulation_fails_in_keras_with_the_monitor_as_without(fits: dict[str, Any]) -> None:
    assert fits["accumulation"] == ["RuntimeError`merge_call`"] * 2


@summed
def test_workers_read_what_one_device_would(pair: tuple[Path, list[dict[str, Any]]]) -> None:
    for worker in pair[1]:
        assert worker["identical"]
        assert [step for step, _ in worker["read"]] == [0, 3, 6]
        for (_, reading), (_, reference) in zip(worker["read"], worker["alone"]):
            assert_equal(reading, reference)
    first, second = pair[1]
    # So that callbacks decide alike on every worker.
    assert first["read"] == second["read"]


@summed
def test_only_the_chief_writes(pair: tuple[Path, list[dict[str, Any]]]) -> None:
    log_dir, (chief, _) = pair
    assert not (log_dir / "1").exists()
    history = keras_vanish.read(log_dir / "0")
    assert [diagnosis.step for diagnosis in history] == [step for step, _ in chief["read"]]


@summed
def test_workers_show_clipped_gradients_and_say_so(
    pair: tuple[Path, list[dict[str, Any]]],
) -> None:
    for worker in pair[1]:
        flags, clipping = worker["warnings"]
        assert "flags auto_* do nothing" in flags
        assert clipping.endswith(
            "GradientMonitor shows what training used, after clipping. Received: a "
            "MultiWorkerMirroredStrategy with 2 replicas and clipnorm, global_clipnorm or "
            "clipvalue."
        )
        ((_, reading),) = worker["clipping"]
        # Two workers, each of which clips every entry at 0.1.
        assert max(reading["gradient_max"]) == pytest.approx(0.2)
        assert reading["gradient_norm"] == reading["gradient_norm_after_clipping"]


@summed
@pytest.mark.soak
def test_a_worker_that_is_killed_leaves_readable_logs(tmp_path: Path) -> None:
    chief, other = workers(tmp_path, 10**6)
    try:
        assert other.stdout is not None
        steps = 0
        while steps < 20:
            line = other.stdout.readline()
            assert line, other.communicate()[1]
            steps += bool(re.fullmatch(r"step \d+\n", line))
        other.send_signal(signal.SIGKILL)
        time.sleep(5)
        history = keras_vanish.read(tmp_path / "0")
    finally:
        for process in (chief, other):
            process.kill()
            process.communicate()
    assert len(history) >= 20
    assert [diagnosis.step for diagnosis in history] == list(range(len(history)))
    assert [d.step for d in keras_vanish.read(tmp_path / "0")] == [d.step for d in history]


def test_one_device_is_read_and_acted_on_as_without_a_strategy() -> None:
    histories = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("CPU:0")):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile("adam", "mse")
        monitor = GradientMonitor(None, update_freq=1, auto_clip=True)
        x = np.linspace(-1, 1, 64, dtype="float32").reshape(16, 4)
        model.fit(x, x[:, :1], batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
        histories.append([diagnosis.reading.table for diagnosis in monitor.history])
    assert len(histories[0]) == 2
    np.testing.assert_array_equal(*histories)
