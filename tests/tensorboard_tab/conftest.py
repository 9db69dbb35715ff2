"""Runs for the tab to show, a client of its server's side, TensorBoard itself, and a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.data.provider import DataProvider
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from keras_vanish.diagnosis import diagnose
from keras_vanish.interventions import Intervention
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.histograms import Histograms
from keras_vanish.records.readings import Reading
from keras_vanish.tensorboard_tab.loader import GradientFlowLoader

ROOT = Path(__file__).parents[2]
STARTS_WITHIN = 120


def _write_run(
    log_dir: Path,
    readings: Sequence[Reading],
    histograms: Histograms | None = None,
    interventions: Sequence[Intervention] = (),
) -> EventWriter:
    """Writes a run as GradientMonitor does; returns the writer, which may go on."""
    writer = EventWriter(log_dir)
    for reading in readings:
        writer.write(diagnose(reading), histograms, "healthy")
    for intervention in interventions:
        writer.write_interventions([intervention])
    return writer


def _provider_of(log_dir: Path) -> DataProvider:
    """TensorBoard's data provider over a folder, with as many samples as the tab asks for."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"gradient_flow": 2000})
    multiplexer.AddRunsFromDirectory(str(log_dir)).Reload()
    return MultiplexerDataProvider(multiplexer, str(log_dir))


def _client_of(log_dir: Path) -> Callable[..., Any]:
    """A client of the plugin's routes over a folder: `get("/run", run="gradients")`."""
    plugin = GradientFlowLoader().load(TBContext(data_provider=_provider_of(log_dir)))
    assert plugin is not None
    apps = plugin.get_plugin_apps()

    def get(path: str, **arguments: object) -> Any:
        return Client(apps[path]).get(path, query_string=arguments)

    return get


@contextlib.contextmanager
def _served(log_dir: Path, folder: Path, *flags: str) -> Iterator[str]:
    """TensorBoard as a user starts it; gives its address once it answers.

    Neither TensorFlow nor Keras can be imported there: the tab needs neither, and without
    them TensorBoard starts at once.

    Args:
        log_dir: What it shows.
        folder: Where an installation of this package's metadata can be put: the entry point
            must be found in a checkout that was not installed, too.
        flags: More flags.
    """
    metadata = folder / "keras_vanish-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: keras-vanish\nVersion: 0\n")
    config = (ROOT / "setup.cfg").read_text()
    (entry,) = re.findall(r"tensorboard_plugins =\n +(.*)", config)
    (metadata / "entry_points.txt").write_text(f"[tensorboard_plugins]\n{entry}\n")
    for missing in ("tensorflow", "keras"):
        (folder / f"{missing}.py").write_text("raise ImportError('it is not here')")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    command += ["--port", str(port), "--reload_interval", "1", *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    log = (folder / "log.txt").open("w+")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address = f"http://localhost:{port}"
    try:
        until = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                with urllib.request.urlopen(f"{address}/data/plugins_listing") as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < until, (folder / "log.txt").read_text()
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture(scope="session")
def write_run() -> Callable[..., EventWriter]:
    """`write_run(log_dir, readings, histograms=None, interventions=())`."""
    return _write_run


@pytest.fixture(scope="session")
def provider_of() -> Callable[[Path], DataProvider]:
    """`provider_of(log_dir)`."""
    return _provider_of


@pytest.fixture(scope="session")
def client_of() -> Callable[[Path], Callable[..., Any]]:
    """`client_of(log_dir)`."""
    return _client_of


@pytest.fixture(scope="session")
def served() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """`served(log_dir, folder, *flags)`."""
    return _served


def chromium() -> str | None:
    """The browser that the tests use: `KERAS_VANISH_BROWSER`, or one on the path."""
    named = os.environ.get("KERAS_VANISH_BROWSER")
    names = ("chromium", "chromium-browser", "google-chrome")
    return named or next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium; without one the test is skipped, unless `KERAS_VANISH_BROWSER` names one."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: install one, or name it in KERAS_VANISH_BROWSER")
    named = "KERAS_VANISH_BROWSER" in os.environ
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if named:
            raise
        pytest.skip("playwright is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()
