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
import math
import multiprocessing
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import numpy.typing as npt
import peers
import runs
import tensorflow as tf

import keras_vanish
from keras_vanish.diagnosis import Diagnosis
from keras_vanish.events import verdict_of

Array = npt.NDArray[Any]

OURS = "keras-vanish"
RULES = (OURS, *peers.PEERS)
EVERY = 10
KINDS = ("vanishing", "exploding", "dying", "saturated", "healthy", "converged", "healing")
EXPECTED = {
    "vanishing": "vanishing",
    "dying": "vanishing",
    "saturated": "vanishing",
    "exploding": "exploding",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a run and of its twin.

    Attributes:
        start: Learned before the first monitored step.
        fifth: Learned after a fifth of the steps.
        end: Learned at the end.
        twin: Learned by the twin at its end; NaN where there is none.
        peak: The largest loss on a batch over that of a constant prediction; infinite where
            it was not finite.
        early_fifth: Median relative change of the early third's kernels in the first fifth.
        early: The same over all steps.
        late: The same for the last third.
        dead: Largest share of dead units in a ReLU layer, at the end.
        flat: Share of outputs near their bounds, of the median layer, at most over time.
    """

    start: float
    fifth: float
    end: float
    twin: float
    peak: float
    early_fifth: float
    early: float
    late: float
    dead: float
    flat: float


@dataclass(frozen=True)
class Result:
    """What was found on one run.

    Attributes:
        name: The run's, with its seed.
        kind: Its label.
        part: "choose" or "held out".
        justified: Whether its outcome agrees with its label.
        last: Number of the last step that was read.
        alarms: By rule, the alarms in the order of their steps.
        vanishing: Our largest vanishing score; NaN if never known.
        exploding: Our largest exploding score.
        verdict: Our verdict at the end.
    """

    name: str
    kind: str
    part: str
    justified: bool
    last: int
    alarms: Mapping[str, Sequence[tuple[int, str]]]
    vanishing: float
    exploding: float
    verdict: str

    @property
    def expected(self) -> str | None:
        """The alarm that is right, or None."""
        return EXPECTED.get(self.kind)

    def detected(self, rule: str) -> int | None:
        """Step of the first right alarm."""
        steps = [step for step, way in self.alarms[rule] if way == self.expected]
        return steps[0] if steps else None

    def false_alarm(self, rule: str) -> bool:
        """Whether there was an alarm and none is right; for a healing run, at the end."""
        if self.expected is not None:
            return False
        since = self.last if self.kind == "healing" else 0
        return any(step >= since for step, _ in self.alarms[rule])


def justified(kind: str, outcome: Outcome) -> bool:
    """Whether the outcome agrees with the label; the criteria stand at the top."""
    o = outcome
    if kind == "healthy":
        return o.end >= 0.5
    if kind == "converged":
        return min(o.start, o.end) >= 0.9
    if kind == "healing":
        slow = o.fifth < 0.2 * o.end and o.early_fifth <= 0.2 * o.early
        return o.end >= 0.5 and slow
    sick = o.twin >= 0.3 and max(o.end, 0.0) < 0.5 * o.twin
    also = {"exploding": o.peak >= 3, "dying": o.dead >= 0.9, "saturated": o.flat >= 0.5}
    return sick and also.get(kind, True)


# Scoring.


def recall(results: Iterable[Result], rule: str) -> float:
    """Share of the runs with an expected alarm that got it; NaN if there are none."""
    found = [r.detected(rule) is not None for r in results if r.expected]
    return sum(found) / len(found) if found else math.nan


def precision(results: Iterable[Result], rule: str) -> float:
    """Share of right ones among the runs that were alarmed; NaN if none was."""
    right = wrong = 0
    for result in results:
        if result.detected(rule) is not None:
            right += 1
        elif result.false_alarm(rule) or (result.expected and result.alarms[rule]):
            wrong += 1
    return right / (right + wrong) if right + wrong else math.nan


def confusion(results: Iterable[Result], rule: str) -> dict[str, Counter[str]]:
    """By kind, how often which alarm was raised: the right one if it ever was, else the first.

    Without an alarm it is "healthy". Of a healing run only the end counts.
    """
    table: dict[str, Counter[str]] = {}
    for r in results:
        since = r.last if r.kind == "healing" else 0
        ways = [way for step, way in r.alarms[rule] if step >= since]
        called = r.expected if r.expected in ways else (ways[0] if ways else "healthy")
        table.setdefault(r.kind, Counter())[str(called)] += 1
    return table


# Training.


class Observer(keras.callbacks.Callback):
    """Looks at the gradients and activations of every tenth step, by a stateless pass."""

    def __init__(self, run: runs.Run) -> None:
        super().__init__()
        self.run = run
        x, y = runs.batches(run)
        self.x, self.y = x[run.before * run.batch :], y[run.before * run.batch :]
        self.seen: list[peers.Observation] = []
        self.before: list[Array] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        trained = model.trainable_variables
        owners = {id(v): type(w).__name__ for w in model._flatten_layers() for v in w.weights}
        self.owners = [owners.get(id(v), "") for v in trained]
        watched = [w for w in model.layers if _function(w) not in ("", "linear", "softmax")]
        self.functions = [_function(layer) for layer in watched]
        tensors = [[w.input, w.output] for w in watched]
        inside = keras.Model(model.inputs, {"output": model.outputs[0], "pairs": tensors})
        # A layer with its activation built in does not show what goes into it.
        bare = [_without_activation(layer) for layer in watched]
        own = [list(w.weights) for w in watched]

        @tf.function(autograph=False)
        def look(x: tf.Tensor, y: tf.Tensor) -> Any:
            values = [tf.convert_to_tensor(v) for v in trained]
            by_id = dict(zip([id(v) for v in trained], values))
            with tf.GradientTape() as tape:
                tape.watch(values)
                found, _ = inside.stateless_call(
                    [by_id[id(v)] for v in inside.trainable_variables],
                    [tf.convert_to_tensor(v) for v in inside.non_trainable_variables],
                    x,
                    training=True,
                )
                output, pairs = found["output"], found["pairs"]
                loss = loss_of(self.run)(y, output)
            gradients = tape.gradient(loss, values, unconnected_gradients="zero")
            inputs = []
            for layer, weights, (given, _) in zip(bare, own, pairs):
                if layer is None:
                    inputs.append(given)
                elif layer == "unseen":
                    inputs.append(tf.fill(tf.shape(given), math.nan))
                else:
                    state = [by_id.get(id(v), tf.convert_to_tensor(v)) for v in weights]
                    inputs.append(layer.stateless_call(state, [], given)[0])
            return (
                loss,
                output,
                [tf.convert_to_tensor(g) for g in gradients],
                values,
                inputs,
                [given for _, given in pairs],
            )

        self.look = look

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch % EVERY:
            return
        part = slice(batch * self.run.batch, (batch + 1) * self.run.batch)
        y = self.y[part]
        found = tf.nest.map_structure(lambda t: t.numpy(), self.look(self.x[part], y))
        loss, output, gradients, values, inputs, outputs = found
        classes = y.dtype.kind == "i"
        before, self.before = self.before or [math.nan] * len(values), values
        with np.errstate(all="ignore"):
            self.seen.append(
                peers.Observation(
                    step=batch,
                    loss=float(loss),
                    accuracy=float(np.mean(output.argmax(-1) == y)) if classes else math.nan,
                    rate=float(self.model.optimizer.learning_rate),
                    variables=tuple(map(_variable, self.owners, gradients, values, before)),
                    activations=tuple(map(_activation, self.functions, inputs, outputs)),
                )
            )


class Progress(keras.callbacks.Callback):
    """What was learned, and the kernels, at the beginning, after a fifth, and at the end."""

    def __init__(self, run: runs.Run) -> None:
        super().__init__()
        self.marks = (0, run.steps // 5)
        self.data = run.data
        self.learned: list[float] = []
        self.kernels: list[list[Array]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch in self.marks:
            self._note()

    def on_train_end(self, logs: Any = None) -> None:
        self._note()

    def _note(self) -> None:
        kernels = [v.numpy() for v in self.model.trainable_variables if len(v.shape) > 1]
        self.kernels.append(kernels)
        self.learned.append(learned(self.model, self.data))

    def moved(self, mark: int, late: bool) -> float:
        """Median change of a third of the kernels up to a mark, over the larger of both norms."""
        pairs = list(zip(self.kernels[0], self.kernels[mark]))
        third = max(1, len(pairs) // 3)
        changes = [
            np.linalg.norm(b - a) / max(np.linalg.norm(a), np.linalg.norm(b))
            for a, b in (pairs[-third:] if late else pairs[:third])
        ]
        return float(np.median(changes))


def learned(model: Any, data: str) -> float:
    """1 - loss / loss of the best constant prediction, on 256 examples; -inf for NaN."""
    x, y = (part[:256] for part in runs.DATA[data]())
    output = np.asarray(model(x, training=False), np.float64)
    with np.errstate(all="ignore"):
        if y.dtype.kind == "i":
            output -= output.max(-1, keepdims=True)
            logs = output - np.log(np.exp(output).sum(-1, keepdims=True))
            loss = -np.mean(np.take_along_axis(logs, y[..., None], -1))
        else:
            loss = np.mean((output - y) ** 2)
    share = 1.0 - loss / runs.constant_loss(data)
    return float(share) if math.isfinite(share) else -math.inf


def loss_of(run: runs.Run) -> Any:
    """The run's loss as a function of labels and predictions, a scalar."""
    if runs.DATA[run.data]()[1].dtype.kind == "i":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        loss = keras.losses.MeanSquaredError()
    return lambda y, p: run.scale * loss(y, p)


def fit(run: runs.Run, callbacks: Sequence[Any]) -> None:
    """Trains a run; the callbacks see what comes after `run.before`."""
    x, y = runs.batches(run)
    model = runs.model(run)
    model.compile(run.optimizer(), loss_of(run))
    options: dict[str, Any] = {"batch_size": run.batch, "shuffle": False, "verbose": 0}
    split = run.before * run.batch
    if split:
        model.fit(x[:split], y[:split], **options)
    model.fit(x[split:], y[split:], callbacks=list(callbacks), **options)


def observe(run: runs.Run, log_dir: str | None) -> tuple[list[Diagnosis], Outcome, dict[str, Any]]:
    """Trains a run and its twin: our history, the outcome, and the alarms of the peers."""
    monitor = keras_vanish.GradientMonitor(log_dir, update_freq=EVERY)
    progress, observer = Progress(run), Observer(run)
    fit(run, [monitor, observer, progress])
    twin = math.nan
    if run.remedy:
        keras.backend.clear_session()
        twin_run = dataclasses.replace(run, **run.remedy)
        twin_progress = Progress(twin_run)
        fit(twin_run, [twin_progress])
        twin = twin_progress.learned[-1]
    keras.backend.clear_session()
    seen = observer.seen
    dead = [a.inactive for a in seen[-1].activations if a.function == "relu"]
    flat = [[a.flat for a in now.activations if a.flat == a.flat] for now in seen]
    constant = run.scale * runs.constant_loss(run.data)
    outcome = Outcome(
        *progress.learned,
        twin=twin,
        peak=max(n.loss if math.isfinite(n.loss) else math.inf for n in seen) / constant,
        early_fifth=progress.moved(1, late=False),
        early=progress.moved(2, late=False),
        late=progress.moved(2, late=True),
        dead=max(dead, default=0.0),
        flat=max((statistics.median(shares) for shares in flat if shares), default=0.0),
    )
    return monitor.history, outcome, {name: list(rule(seen)) for name, rule in peers.PEERS.items()}


def _function(layer: Any) -> str:
    """Name of a layer's activation; empty where it has none."""
    activation = getattr(layer, "activation", None)
    if activation is None or isinstance(layer, keras.layers.MultiHeadAttention):
        return ""
    return str(getattr(activation, "__name__", type(activation).__name__.lower()))


def _without_activation(layer: Any) -> Any:
    """A copy that ends before the activation; None if there is nothing before it.

    "unseen" for recurrent layers, whose activations are within.
    """
    if isinstance(layer, keras.layers.Activation):
        return None
    if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
        return "unseen"
    copy = type(layer).from_config(
        {**layer.get_config(), "activation": "linear", "trainable": True, "name": "bare"}
        | {"kernel_initializer": "zeros", "bias_initializer": "zeros"}
    )
    copy.build(layer.input.shape)
    return copy


def _variable(owner: str, gradient: Array, value: Array, before: Any) -> peers.Variable:
    gradient = np.asarray(gradient, np.float64)
    return peers.Variable(
        layer=owner,
        kernel=gradient.ndim > 1,
        size=gradient.size,
        norm=float(np.linalg.norm(gradient)),
        mean=float(np.mean(np.abs(gradient))),
        zeros=float(np.mean(gradient == 0)),
        finite=bool(np.all(np.isfinite(gradient)) and np.all(np.isfinite(value))),
        weight=float(np.linalg.norm(value)),
        changed=bool(np.any(value != before)),
    )


#: The least and the largest output of an activation, and SageMaker's clamps on its input.
_BOUNDS = {
    "tanh": (-1.0, 1.0, -9.4999, 9.4999),
    "hard_tanh": (-1.0, 1.0, math.nan, math.nan),
    "sigmoid": (0.0, 1.0, -23.0, 16.99999),
    "hard_sigmoid": (0.0, 1.0, math.nan, math.nan),
}


def _activation(function: str, given: Array, output: Array) -> peers.Activation:
    units = output.shape[-1]
    output, given = output.reshape(-1, units), given.reshape(-1, given.shape[-1])
    low, high, least, most = _BOUNDS.get(function, (math.nan,) * 4)
    scaled = np.abs((output - low) / (high - low) * 2 - 1)
    seen = not np.isnan(given).all()
    clamped = np.mean((given <= least) | (given >= most), 0) >= 0.99
    return peers.Activation(
        function=function,
        nonpositive=float(np.mean(output <= 0)),
        inactive=float(np.mean(np.mean(output > 0, 0) < 0.01)),
        quiet=float(np.mean(np.percentile(np.abs(output), 95, axis=0) < 1e-5)),
        beyond_5=float(np.mean(np.abs(given) > 5)) if seen else math.nan,
        clamped=float(np.mean(clamped)) if seen and least == least else math.nan,
        # rho (Rakitianskaia & Engelbrecht 2015): with an even number of bins of the outputs
        # scaled to [-1, 1], the mean over the bins' averages is that of the absolute values.
        bounded=float(np.mean(scaled.mean(0) > 0.85)) if low == low else math.nan,
        flat=float(np.mean(scaled > 0.99)) if low == low else math.nan,
    )


# Reports.


def result_of(
    name: str,
    run: runs.Run,
    history: Sequence[Diagnosis],
    outcome: Outcome,
    alarms: Mapping[str, Sequence[tuple[int, str]]],
) -> Result:
    """Joins our steadied verdicts, at each reading, with the alarms of the peers."""
    ours = []
    for end in range(1, len(history) + 1):
        verdict = verdict_of(history[:end])
        if verdict not in ("healthy", "unknown"):
            way = "vanishing" if verdict == "vanishing" else "exploding"
            ours.append((history[end - 1].step, way))
    scores = [(d.vanishing_score, d.exploding_score) for d in history]
    vanishing, exploding = (
        max((score for score in column if score == score), default=math.nan)
        for column in zip(*scores)
    )
    return Result(
        name=name,
        kind=run.kind,
        part=run.part,
        justified=justified(run.kind, outcome),
        last=history[-1].step,
        alarms={OURS: ours, **alarms},
        vanishing=vanishing,
        exploding=exploding,
        verdict=verdict_of(history),
    )


def first_alarms(result: Result, rule: str) -> str:
    """Such as "v20 e40": vanishing at step 20, exploding at step 40."""
    first: dict[str, int] = {}
    for step, way in result.alarms[rule]:
        first.setdefault(way, step)
    return " ".join(f"{way[0]}{step}" for way, step in first.items()) or "–"


COLUMNS = (
    "run", "label", "part", "learned: start, fifth, end", "twin", "moved: early fifth, early, late",
    "peak, dead, flat", "largest scores, last verdict", *RULES,
)  # fmt: skip


def row(result: Result, outcome: Outcome) -> list[str]:
    """One run: the outcome, and for each rule its first alarms."""
    o = outcome
    return [
        result.name,
        result.kind + ("" if result.justified else ", not justified"),
        result.part,
        " ".join(_share(share) for share in (o.start, o.fifth, o.end)),
        _share(o.twin),
        f"{o.early_fifth:.2g} {o.early:.2g} {o.late:.2g}",
        f"{o.peak:.2g} {o.dead:.2f} {o.flat:.2f}",
        f"{result.vanishing:.2f} {result.exploding:.2f} {result.verdict}",
        *(first_alarms(result, rule) for rule in RULES),
    ]


def _share(share: float) -> str:
    if math.isnan(share):
        return "–"
    return f"{share:.2f}" if share > -10 else f"{share:.0e}"


def render(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """A table, in Markdown or in columns of spaces."""
    if markdown:
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [header, *rows]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines)


def scores(results: Sequence[Result]) -> list[list[str]]:
    """Precision and recall of each rule, and what it did on each kind."""
    by_kind = {kind: [r for r in results if r.kind == kind] for kind in KINDS}
    rows = []
    for rule in RULES:
        cells = [rule, f"{precision(results, rule):.2f}", f"{recall(results, rule):.2f}"]
        for kind, of_kind in by_kind.items():
            if kind in EXPECTED:
                cells.append(f"{recall(of_kind, rule):.2f}")
            else:
                cells.append(f"{sum(r.false_alarm(rule) for r in of_kind)}/{len(of_kind)}")
        rows.append(cells)
    return rows


def delays(results: Sequence[Result]) -> list[list[str]]:
    """Median and maximum of the steps until the right alarm, of each rule."""
    rows = []
    for rule in RULES:
        found = [step for r in results if (step := r.detected(rule)) is not None]
        if found:
            rows.append([rule, f"{statistics.median(found):.0f}", str(max(found))])
    return rows


def faults(results: Sequence[Result]) -> Iterator[str]:
    """Our misses, false alarms and late detections, and the early alarms of healing runs."""
    for r in results:
        step = r.detected(OURS)
        called = ", ".join(dict.fromkeys(way for _, way in r.alarms[OURS])) or "nothing"
        if r.expected and step is None:
            what = f"missed, called {called}"
        elif r.false_alarm(OURS):
            what = f"false alarm, {called} from step {r.alarms[OURS][0][0]}"
        elif step is not None and step > 50:
            what = f"late, at step {step}"
        elif r.kind == "healing" and r.alarms[OURS]:
            what = f"early alarm, {called} until step {r.alarms[OURS][-1][0]}"
        else:
            continue
        largest = f"vanishing {r.vanishing:.2f}, exploding {r.exploding:.2f}"
        yield f"- {r.kind}, {r.part}: {r.name}: {what}; largest {largest}; last {r.verdict}"


def report(results: Sequence[Result], markdown: bool) -> str:
    """All that is said of the runs together: those whose labels are justified."""
    known = [result for result in results if result.justified]
    counts = Counter(result.kind for result in known)
    listed = ", ".join(f"{kind} {counts[kind]}" for kind in KINDS)
    text = [f"{len(known)} of {len(results)} labels are justified: {listed}."]
    for part in ("choose", "held out", "both"):
        of_part = [r for r in known if part in (r.part, "both")]
        sizes = Counter(r.kind for r in of_part)
        header = ["rule", "precision", "recall", *(f"{kind} ({sizes[kind]})" for kind in KINDS)]
        text += [f"### {part.capitalize()}", render(header, scores(of_part), markdown)]
    text.append(
        "Under sick kinds: recall. Under healthy, converged and healing: runs with a false alarm; "
        "for healing, at the end."
    )
    header = ["rule", "median", "maximum"]
    text += ["### Steps until the right alarm", render(header, delays(known), markdown)]
    ways = ("healthy", "vanishing", "exploding")
    table = confusion(known, OURS)
    rows = [[kind, *(str(table[kind][way]) for way in ways)] for kind in KINDS if kind in table]
    text += ["### What we called each kind", render(["kind", *ways], rows, markdown)]
    text += ["### Our misses, false alarms, late and early ones", "\n".join(faults(known))]
    return "\n\n".join(text)


# Running.

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
