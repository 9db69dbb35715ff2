"""Trains a labelled run, and finds what became of it and what the rules of others see."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import peers
import runs
import tensorflow as tf

import keras_vanish
from keras_vanish.diagnosis import Diagnosis

Array = npt.NDArray[Any]

EVERY = 10


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
                    rate=float(self.model.optimizer.learning_rate.numpy()),
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


def fit(
    run: runs.Run,
    callbacks: Sequence[Any],
    batches: Callable[[runs.Run], tuple[Array, Array]] = runs.batches,
) -> Any:
    """Trains a run's model; the callbacks see what comes after `run.before`."""
    x, y = batches(run)
    model = runs.model(run)
    model.compile(run.optimizer(), loss_of(run))
    options: dict[str, Any] = {"batch_size": run.batch, "shuffle": False, "verbose": 0}
    split = run.before * run.batch
    if split:
        model.fit(x[:split], y[:split], **options)
    model.fit(x[split:], y[split:], callbacks=list(callbacks), **options)
    return model


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
