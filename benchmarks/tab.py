"""How fast the tab "Gradient flow" draws: `python benchmarks/tab.py`.

Writes a run of 500 layers by 2,000 recorded steps, serves it with TensorBoard under both of its
loaders, opens the tab in Chromium, and prints how long it took to draw and how many frames a
second it scrolls at. Needs playwright, a Chromium (`KERAS_VANISH_BROWSER`, or one on the path)
and the package installed, so that TensorBoard finds the tab; takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS


def reading(step: int, steps: int, layers: int) -> Reading:
    """A deep stack whose gradients vanish less and less as it trains."""
    random = np.random.default_rng(step)
    depth = np.linspace(0, 1, layers)
    decades = 9 * (1 - depth) * (1 - 0.75 * step / steps)
    rms = 10 ** (-2 - decades + random.normal(0, 0.15, layers))
    table = np.zeros([layers, len(COLUMNS)])
    columns = dict(zip(COLUMNS, table.T))
    columns["size"][:] = 64 * 64
    columns["gradient_rms"][:] = rms
    columns["gradient_norm"][:] = columns["gradient_norm_after_clipping"][:] = rms * 64
    columns["gradient_min"][:], columns["gradient_max"][:] = -3 * rms, 3 * rms
    columns["weight_rms"][:] = 0.12
    columns["update_rms"][:] = 1e-2 * rms
    seen = np.full([layers, len(ACTIVATION_COLUMNS)], np.nan)
    of = dict(zip(ACTIVATION_COLUMNS, seen.T))
    of["size"][:], of["output_rms"][:], of["gradient_rms"][:] = 64, 1, rms
    of["gradient_nonfinite_count"][:] = of["output_nonfinite_count"][:] = 0
    of["saturated_fraction"][:] = 0.4 * (1 - depth)
    names = tuple(f"block_{number // 10}/dense_{number % 10}" for number in range(layers))
    return Reading(
        step=10 * step,
        wall_time=1.7e9 + step,
        names=names,
        units=(64,) * layers,
        table=table,
        probed=Probed(1.0, 2.0, names, seen, {}),
    )


def write(log_dir: Path, layers: int, steps: int) -> None:
    """Writes a run; the scores, which the tab makes itself, are those of the first step."""
    first = diagnose(reading(0, steps, layers))
    writer = EventWriter(log_dir)
    for step in range(steps):
        diagnosis = dataclasses.replace(first, reading=reading(step, steps, layers))
        writer.write(diagnosis, None, "vanishing")
    writer.close()


def asked(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}/data/plugin/gradient_flow/{path}") as answer:
        return json.load(answer)


def settled(address: str) -> None:
    """Waits until TensorBoard has read all: the tab's own reading is not part of that."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 15:
        time.sleep(0.5)
        try:
            runs = asked(address, "runs")["runs"]
        except OSError:
            runs = []
        if runs != before or not runs:
            before, since = runs, time.monotonic()


# Runs in the page before anything else: notes when the heatmap is drawn.
WATCH = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("[data-drawn]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.drawnAt = performance.now(); }));
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-drawn"] });
"""

SCROLL = """async () => {
  const map = document.querySelector(".heatmap");
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const start = performance.now();
  for (let i = 0; i < 180; i++) {
    map.scrollTop = (i * 40) % (map.scrollHeight - map.clientHeight);
    await frame();
  }
  return 180_000 / (performance.now() - start);
}"""


def drawn(page: Any, address: str, zoom: int) -> tuple[float, Any]:
    """Seconds from the opening of the tab's page until its heatmap is on the screen."""
    page.goto("about:blank")
    page.goto(f"{address}/#gradient_flow&p.gradient_flow.zoom={zoom}")
    frame = page.wait_for_selector("iframe[src*=gradient_flow]").content_frame()
    frame.wait_for_function("window.drawnAt")
    return frame.evaluate("window.drawnAt") / 1000, frame


def measured(log_dir: Path, load_fast: str, playwright: Any) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"http://localhost:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    command += ["--port", str(port), "--load_fast", load_fast, "--reload_interval", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = os.environ.get("KERAS_VANISH_BROWSER") or shutil.which("chromium")
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    try:
        settled(address)
        context = browser.new_context(viewport={"width": 1500, "height": 1100})
        context.set_default_timeout(120_000)
        context.add_init_script(WATCH)
        page = context.new_page()
        first, _ = drawn(page, address, 0)
        again, frame = drawn(page, address, 16)
        rate = frame.evaluate(SCROLL)
        print(f"| {load_fast} | {first:.2f} s | {again:.2f} s | {rate:.0f} |")
    finally:
        browser.close()
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--logdir", type=Path, help="written by an earlier call")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log_dir = arguments.logdir or Path(folder)
        if not any(log_dir.rglob("*tfevents*")):
            write(log_dir / "deep", arguments.layers, arguments.steps)
        print("| `--load_fast` | first drawn after | again after | frames a second |")
        print("| --- | --- | --- | --- |")
        with sync_playwright() as playwright:
            for load_fast in ("true", "false"):
                measured(log_dir, load_fast, playwright)


if __name__ == "__main__":
    main()
