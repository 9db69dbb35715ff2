"""How well a verdict is told from gradients: labelled runs, our verdict, and the rules of others.

    python benchmarks/detection.py                      # all runs
    python benchmarks/detection.py --only sigmoid --seeds 3
    python benchmarks/detection.py --save logs/detection
    python benchmarks/detection.py --from logs/detection # diagnose these logs anew

Each run of `runs.py` trains with `GradientMonitor(update_freq=10)`, and with a callback that
looks at the same steps by a pass of its own, for the rules of `peers.py`. Its twin, with the
remedy, trains alone. `learned` is the share of the loss of the best constant prediction that
training removed, on the training examples without noise.

A label counts only if the outcome agrees (`justified`):

- vanishing, exploding, dying, saturated: the twin learned at least 0.3, the run less than half
  as much as the twin. Besides, exploding: the loss became NaN or Inf, or 3 times that of a
  constant prediction; dying: in some layer at least 90% of the units are dead at the end;
  saturated: in the median layer at least half of the outputs lay within 0.5% of the range from
  its ends.
- healthy: learned at least 0.5. Converged: at least 0.9 at the beginning and at the end.
- healing: in the first fifth of the steps it learned less than a fifth of what it had at the
  end, which is at least 0.5, and its early third had moved at most a fifth of what it did in all.

A run is alarmed by us when the steadied verdict ever became vanishing, exploding or nonfinite.
Expected is "vanishing" for vanishing, dying and saturated runs, "exploding" (or nonfinite) for
exploding ones, and none otherwise. A healing run may be alarmed early, which is reported apart,
but not at the end. Precision is the share of the alarmed runs that were expected to be.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy.typing as npt
import runs
from outcomes import Outcome, observe
from scoring import COLUMNS, KINDS, Result, render, report, result_of, row

import keras_vanish

Array = npt.NDArray[Any]

#: Quick runs, one of each important kind.
REPRESENTATIVE = (
    "sigmoid MLP, 7 deep, Adam, seed 2",
    "ReLU MLP, 4 deep, rate 100, SGD, seed 0",
    "ReLU MLP, 4 deep, negative weights, SGD, seed 1",
    "hard sigmoid MLP, 5 deep, N(0, 4), AdamW, seed 0",
    "SimpleRNN, N(0, 0.1), recall 64, Adam, seed 0",
    "ReLU MLP, 3 deep, Adam, seed 0",
    "LSTM, sunspots, Adam, seed 0",
)


def representative() -> list[Result]:
    """Trains and scores the quick runs."""
    return [measure(name)[0] for name in REPRESENTATIVE]


def chosen(only: str = "", kinds: Sequence[str] = KINDS, seeds: int = 1) -> list[str]:
    """The names of runs with their seeds; further seeds of one lie 100 apart."""
    return [
        f"{run.name}, seed {run.seed + 100 * more}"
        for run in runs.RUNS
        if only in run.name and run.kind in kinds
        for more in range(seeds)
    ]


def named(name: str) -> runs.Run:
    """The run of that name and seed."""
    plain, seed = name.rsplit(", seed ", 1)
    (run,) = (run for run in runs.RUNS if run.name == plain)
    return dataclasses.replace(run, seed=int(seed))


def folder(top: str, name: str) -> str:
    """Where the event files of a run are kept."""
    return os.path.join(top, re.sub(r"[^A-Za-z0-9.]+", "_", name))


def _seen(top: str, name: str) -> str:
    return os.path.join(folder(top, name), "seen.json")


def measure(name: str, save: str | None = None) -> tuple[Result, Outcome]:
    """Trains a run and scores it; `save` keeps its event files and what else was seen."""
    run = named(name)
    log_dir = folder(save, name) if save else None
    history, outcome, alarms = observe(run, log_dir)
    if log_dir:
        with open(_seen(str(save), name), "w") as file:
            json.dump({"outcome": dataclasses.asdict(outcome), "alarms": alarms}, file)
    return result_of(name, run, history, outcome, alarms), outcome


def measured(name: str, saved: str) -> tuple[Result, Outcome]:
    """The same from what `measure` kept, with today's diagnosis."""
    with open(_seen(saved, name)) as file:
        seen = json.load(file)
    outcome = Outcome(**seen["outcome"])
    history = keras_vanish.read(folder(saved, name))
    return result_of(name, named(name), history, outcome, seen["alarms"]), outcome


def _work(name: str, save: str | None, saved: str | None) -> tuple[Result, Outcome]:
    return measured(name, saved) if saved else measure(name, save)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="runs with this in their name")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seeds", type=int, default=1, help="of each run")
    parser.add_argument("--save", help="keep the event files of each run in this folder")
    parser.add_argument("--from", dest="saved", help="diagnose what --save kept, without training")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    options = parser.parse_args()
    began = time.time()
    names = chosen(options.only, options.kinds, options.seeds)
    if options.saved:
        names = [name for name in names if os.path.exists(_seen(options.saved, name))]
    results = []
    if options.markdown:
        print(render(COLUMNS, [], True), flush=True)
    # These models are too small to share out: one runs on one core, and several at once.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn) as pool:
        work = functools.partial(_work, save=options.save, saved=options.saved)
        for result, outcome in (map if options.saved else pool.map)(work, names):
            results.append(result)
            cells = row(result, outcome)
            if options.markdown:
                print("| " + " | ".join(cells) + " |", flush=True)
            else:
                pairs = [f"{key}: {cell}" for key, cell in zip(COLUMNS[1:], cells[1:])]
                print(
                    "\n    ".join([cells[0], "; ".join(pairs[:7]), "; ".join(pairs[7:])]),
                    flush=True,
                )
    print("\n" + report(results, options.markdown))
    print(f"\n{(time.time() - began) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
