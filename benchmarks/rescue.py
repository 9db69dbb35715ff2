"""What the flags rescue: faulty runs with and without them, and healthy ones with all of them.

    python benchmarks/rescue.py --seeds 3 --save logs/rescue.jsonl
    python benchmarks/rescue.py --only "sigmoid MLP" NaN --kinds vanishing exploding
    python benchmarks/rescue.py --settings twin untouched "all flags"  # no flag alone
    python benchmarks/rescue.py --only "pixels 0..255" --longer 6  # late, or not at all?
    python benchmarks/rescue.py --from logs/rescue.jsonl  # the report anew, without training

The sick runs of `runs.py`, and the explosions of `rescue_runs.py`, train three times as long as
in the detection benchmark: as they are, with all flags and `update_freq=10`, with each flag alone
(on the first seed), and as their healthy twin, which does without the fault. At the end the
model's error in inference mode on all of its training data, without noise, is taken: the share
of wrong classes (a prediction that is not finite is wrong), or the mean squared error.

Rescued is a run whose error is at most 2 points above that of the twin of the same seed, or, of
a regression, at most 1.1 times it; either in units of what the best constant prediction has. A
run counts only if it is not rescued when left as it is, and if its twin learned: removed at least
half of the error of the best constant prediction. Steps lost is how much later than the twin the
run reaches for good nine tenths of what the twin learned in the end, on 256 examples, to within
50 steps.

The healthy, converged and healing runs train as long as in the detection benchmark, with all
flags and without the monitor. There
should be no intervention, and then the weights at the end agree bit by bit. Harmed is a run
whose error is farther above that of the unmonitored run than the above tolerance.

For reference only: AutoTrainer (ICSE 2021) reports that it repaired 97.33% of the problems that
it detected, by rebuilding the model and training it from the start.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import rescue_runs
import runs
from outcomes import fit
from scoring import KINDS, render

import keras_vanish

FLAGS = ("auto_clip", "auto_lr", "auto_rollback", "auto_init")
#: What each way to train a run gives to the monitor; None: there is no monitor.
SETTINGS: dict[str, dict[str, bool] | None] = {
    "twin": None,
    "untouched": None,
    "all flags": dict.fromkeys(FLAGS, True),
    **{flag: {flag: True} for flag in FLAGS},
}
SICK = ("vanishing", "exploding", "dying", "saturated")
LONGER = 3
EVERY = 50


@dataclass(frozen=True)
class Ending:
    """What became of one training.

    Attributes:
        error: Share of wrong classes, or the squared error over that of a constant prediction;
            infinite where it is not finite.
        points: Whether it is a share of classes.
        course: Share of a constant prediction's error that was removed, on 256 examples, before
            each 50th step and at the end.
        acts: Step, action and sentence of each intervention.
        weights: Digest of the weights at the end.
        seconds: Processor time that it took.
        failure: What was raised, if anything was.
    """

    error: float
    points: bool
    course: Sequence[float]
    acts: Sequence[tuple[int, str, str]] = ()
    weights: str = ""
    seconds: float = math.nan
    failure: str = ""


#: The endings of one run, by setting.
Endings = Mapping[str, Ending]


def every_run() -> tuple[runs.Run, ...]:
    return (*runs.RUNS, *rescue_runs.EXPLOSIONS)


def chosen(only: Sequence[str] = (), kinds: Sequence[str] = KINDS, seeds: int = 1) -> list[str]:
    """The names of runs with their seeds; further seeds of one lie 100 apart."""
    return [
        f"{run.name}, seed {run.seed + 100 * more}"
        for more in range(seeds)
        for run in every_run()
        if run.kind in kinds and (not only or any(part in run.name for part in only))
    ]


@functools.cache
def named(name: str, longer: int = LONGER) -> runs.Run:
    """The run of that name and seed, as long as here."""
    plain, seed = name.rsplit(", seed ", 1)
    (run,) = (run for run in every_run() if run.name == plain)
    steps = run.steps * (longer if run.kind in SICK else 1)
    return dataclasses.replace(run, seed=int(seed), steps=steps)


def settings(name: str) -> tuple[str, ...]:
    """How a run is trained; with one flag alone on its first seed only."""
    if named(name).kind not in SICK:
        return ("untouched", "all flags")
    first = int(name.rsplit(" ", 1)[1]) < 100
    return ("twin", "untouched", "all flags", *(FLAGS if first else ()))


def errors(run: runs.Run, model: Any, examples: int | None = None) -> tuple[float, float]:
    """The model's error in inference mode, and that of the best constant prediction."""
    x, y = runs.DATA[run.data]()
    output = np.asarray(model(x[:examples], training=False), np.float64)
    if y.dtype.kind == "i":
        right = (output.argmax(-1) == y[:examples]) & np.isfinite(output).all(-1)
        shares = [(y == label).mean(0) for label in range(y.max() + 1)]
        return float(1 - right.mean()), float(1 - np.max(shares, 0).mean())
    with np.errstate(all="ignore"):
        error = float(np.mean((output - y[:examples]) ** 2)) / float(np.var(y))
    return (error if math.isfinite(error) else math.inf), 1.0


class Course(keras.callbacks.Callback):
    """Notes what was learned before each 50th step."""

    def __init__(self, run: runs.Run) -> None:
        super().__init__()
        self.run = run
        self.learned: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch % EVERY == 0:
            self.note()

    def on_train_end(self, logs: Any = None) -> None:
        self.note()

    def note(self) -> None:
        error, constant = errors(self.run, self.model, 256)
        self.learned.append(1 - error / constant)


def digest(model: Any) -> str:
    """Of the model's weights, bit by bit."""
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


def train(run: runs.Run, flags: Mapping[str, bool] | None) -> Ending:
    """Trains a run, with the monitor unless `flags` is None; it sees what is after `before`."""
    keras.backend.clear_session()
    began = time.process_time()
    course, callbacks, monitor = Course(run), [], None
    if flags is not None:
        monitor = keras_vanish.GradientMonitor(None, update_freq=10, **flags)
        callbacks.append(monitor)
    # The monitor says what it does; here that is in the report.
    with contextlib.redirect_stdout(io.StringIO()):
        model = fit(run, [*callbacks, course], rescue_runs.batches)
    acts = monitor.interventions if monitor is not None else []
    return Ending(
        error=errors(run, model)[0],
        points=runs.DATA[run.data]()[1].dtype.kind == "i",
        course=course.learned,
        acts=[(act.step, act.action, act.sentence()) for act in acts],
        weights=digest(model),
        seconds=time.process_time() - began,
    )


def ending(name: str, setting: str, longer: int = LONGER) -> Ending:
    """Trains a run in one of its settings; what that raises is noted."""
    run = named(name, longer)
    if setting == "twin":
        run = dataclasses.replace(run, **run.remedy)
    try:
        return train(run, SETTINGS[setting])
    except Exception as error:
        traceback.print_exc()
        return Ending(math.inf, True, (), failure=repr(error))


def rescued(found: Ending, twin: Ending) -> bool:
    """Whether an error is within 2 points, or a tenth, of the twin's."""
    most = twin.error + 0.02 if twin.points else 1.1 * twin.error
    return found.error <= most + 1e-9


def justified(endings: Endings) -> bool:
    """Whether the run fails as it is, and its twin learns."""
    twin = endings["twin"]
    return twin.course[-1] >= 0.5 and not rescued(endings["untouched"], twin)


def reached(course: Sequence[float], goal: float) -> int | None:
    """The mark from which on the course stays at its goal; None if it does not at the end."""
    below = [mark for mark, learned in enumerate(course) if not learned >= goal]
    first = below[-1] + 1 if below else 0
    return first if first < len(course) else None


def steps_lost(found: Ending, twin: Ending) -> int | None:
    """How much later than the twin the run learned nine tenths of what that did."""
    goal = 0.9 * twin.course[-1]
    late, in_time = reached(found.course, goal), reached(twin.course, goal)
    return None if late is None or in_time is None else EVERY * (late - in_time)


def _share(found: Iterable[bool]) -> str:
    values = list(found)
    return f"{sum(values)}/{len(values)}" if values else "–"


def _error(found: Ending | None) -> str:
    if found is None:
        return "–"
    if found.failure:
        return found.failure
    return f"{found.error:.1%}" if found.points else f"{found.error:.3g}"


def _acts(found: Ending) -> str:
    """Such as "roll_back × 2 from step 110"."""
    counts = Counter(action for _, action, _ in found.acts)
    first = {action: step for step, action, _ in reversed(found.acts)}
    acts = [
        action + (f" × {count}" if count > 1 else "") + f" from step {first[action]}"
        for action, count in counts.items()
    ]
    return ", ".join(acts) or "nothing"


def rescue_rows(results: Mapping[str, Endings]) -> list[list[str]]:
    """By kind and part: what was rescued in which setting, and the steps lost."""
    groups = {kind: [n for n in results if named(n).kind == kind] for kind in SICK}
    for part in ("choose", "held out"):
        groups[part] = [name for name in results if named(name).part == part]
    groups["all"] = list(results)
    rows = []
    for group, names in groups.items():
        row = [group, str(len(names))]
        for setting in list(SETTINGS)[1:]:
            trained = [results[name] for name in names if setting in results[name]]
            row.append(_share(rescued(found[setting], found["twin"]) for found in trained))
        lost = [
            steps
            for name in names
            if rescued(results[name]["all flags"], results[name]["twin"])
            and (steps := steps_lost(results[name]["all flags"], results[name]["twin"])) is not None
        ]
        rows.append([*row, f"{statistics.median(lost):.0f}" if lost else "–"])
    return rows


def harm_rows(results: Mapping[str, Endings]) -> list[list[str]]:
    """By kind: the healthy runs with an intervention, those that changed, and those harmed."""
    rows = []
    for kind in (kind for kind in KINDS if kind not in SICK):
        pairs = [
            (found["all flags"], found["untouched"])
            for name, found in results.items()
            if named(name).kind == kind
        ]
        rows.append(
            [
                kind,
                str(len(pairs)),
                _share(bool(flagged.acts) for flagged, _ in pairs),
                _share(flagged.weights == plain.weights for flagged, plain in pairs),
                _share(not rescued(flagged, plain) for flagged, plain in pairs),
            ]
        )
    return rows


def _faults(results: Mapping[str, Endings]) -> Iterable[str]:
    """The sick runs not rescued, and the healthy ones that were touched."""
    for name, found in results.items():
        run, flagged = named(name), found["all flags"]
        kept = found.get("twin", found["untouched"])
        same = "twin" in found or flagged.weights == kept.weights
        if not rescued(flagged, kept) or not same or (flagged.acts and "twin" not in found):
            figures = [f"{key} {_error(found[key])}" for key in SETTINGS if key in found]
            acts = _acts(flagged)
            yield f"- {run.kind}, {run.part}: {name}: {'; '.join(figures)}. All flags: {acts}."


def _left_out(results: Mapping[str, Endings]) -> Iterable[str]:
    for name, found in results.items():
        twin, untouched = found["twin"], found["untouched"]
        why = "fails no more than its twin" if twin.course[-1] >= 0.5 else "its twin did not learn"
        figures = f"error {_error(untouched)}, twin {_error(twin)}"
        yield f"- {named(name).kind}: {name}: {why}; {figures}."


def report(results: Mapping[str, Endings]) -> str:
    """All that is said of the runs together, in Markdown."""
    sick = {name: found for name, found in results.items() if "twin" in found}
    fine = {name: found for name, found in results.items() if "twin" not in found}
    counted = {name: found for name, found in sick.items() if justified(found)}
    left_out = {name: found for name, found in sick.items() if name not in counted}
    text = [f"{len(counted)} of {len(sick)} sick runs count."]
    if counted:
        header = ["", "runs", *list(SETTINGS)[1:], "median steps lost, all flags"]
        text += ["### Rescued", render(header, rescue_rows(counted), True)]
    if fine:
        header = ["", "runs", "with interventions", "bit-identical", "harmed"]
        text += ["### Healthy runs with all flags", render(header, harm_rows(fine), True)]
    faults = "\n".join(_faults({**counted, **fine})) or "None."
    text += ["### Not rescued, or healthy and touched", faults]
    if left_out:
        text += ["### Left out", "\n".join(_left_out(left_out))]
    rows = []
    for name, found in counted.items():
        cells = [_error(found.get(setting)) for setting in SETTINGS]
        lost = steps_lost(found["all flags"], found["twin"])
        acts = _acts(found["all flags"])
        rows.append([named(name).kind, name, *cells, "–" if lost is None else str(lost), acts])
    if rows:
        header = ["label", "run", *SETTINGS, "steps lost", "interventions, all flags"]
        text += ["### Errors at the end", render(header, rows, True)]
    return "\n\n".join(text)


def record(name: str, setting: str, found: Ending) -> str:
    """One line of what `--save` keeps."""
    return json.dumps({"run": name, "setting": setting, **dataclasses.asdict(found)})


def recorded(lines: Iterable[str]) -> dict[str, dict[str, Ending]]:
    """The endings by run and setting; the last of a setting counts.

    A run is left out that lacks one other than those with a flag alone.
    """
    results: dict[str, dict[str, Ending]] = {}
    for line in lines:
        fields = json.loads(line)
        fields["acts"] = [tuple(act) for act in fields["acts"]]
        name, setting = fields.pop("run"), fields.pop("setting")
        results.setdefault(name, {})[setting] = Ending(**fields)
    return {
        name: found
        for name, found in results.items()
        if set(settings(name)).difference(FLAGS) <= set(found)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(), help="runs with one of these in the name")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--settings", nargs="+", default=tuple(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=1, help="of each run")
    parser.add_argument(
        "--longer",
        type=int,
        default=LONGER,
        help="times as long as in detection; to be saved apart",
    )
    parser.add_argument("--save", help="append what was found to this file, a line a training")
    parser.add_argument("--from", dest="saved", help="report what --save kept, without training")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at a time")
    options = parser.parse_args()
    names = chosen(options.only, options.kinds, options.seeds)
    if options.saved:
        with open(options.saved) as file:
            results = recorded(file)
        print(report({name: results[name] for name in names if name in results}))
        return
    began = time.time()
    work = [(name, way) for name in names for way in settings(name) if way in options.settings]
    lines = []
    # These models are too small to share out: one runs on one core, and several at once.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    spawn = multiprocessing.get_context("spawn")
    with (
        open(options.save or os.devnull, "a") as file,
        ProcessPoolExecutor(options.jobs, spawn) as pool,
    ):
        pending = {pool.submit(ending, *item, options.longer): item for item in work}
        for done in as_completed(pending):
            item, found = pending[done], done.result()
            lines.append(record(*item, found))
            print(lines[-1], file=file, flush=True)
            figures = f"error {_error(found)}, {found.seconds:.0f} s, {_acts(found)}"
            print(f"{len(lines)}/{len(work)} {', '.join(item)}: {figures}", file=sys.stderr)
    results = recorded(lines)
    print(report({name: results[name] for name in names if name in results}))
    print(f"\n{(time.time() - began) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
