"""The Keras callback: wires capture, diagnosis and logging together."""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_vanish.capture.capture import Capture, Captured
from keras_vanish.capture.probe import Probe
from keras_vanish.capture.train_function import TrainFunction, clear_leftover
from keras_vanish.diagnosis import AGREEING_READINGS, Diagnosis, Verdict, diagnose, steadied
from keras_vanish.events import EventWriter, Histograms
from keras_vanish.interventions import Intervention, LearningRateControl, Reinitialization, Rollback
from keras_vanish.reading import Probed, from_rows
from keras_vanish.rescue import CLIPPING, Rescue, policy
from keras_vanish.scores import Course
from keras_vanish.table import render


class GradientMonitor(keras.callbacks.Callback):
    """Shows whether gradients reach every layer, while `fit` runs.

    ```python
    monitor = GradientMonitor("logs")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.summary())
    ```

    Every `update_freq` optimizer steps the gradients that training itself computed are
    summarised inside the train step, diagnosed, and written for TensorBoard to the run
    `<log_dir>/gradients`. Training is not changed, unless a flag `auto_*` is on and finds
    cause: weights end bit for bit as without the monitor. The last scores are put into the
    epoch's logs as `vanishing_score` and `exploding_score`, for the callbacks that stand after
    this one.

    Args:
        log_dir: Directory of the event files, or None to write none and only keep
            `history`.
        update_freq: Optimizer steps from one reading to the next, at least 1; the first
            step of each `fit` is read. `"batch"` is 1. `"epoch"` reads the last step of
            each epoch, or its first where Keras does not know how long the epoch is.
            With gradient accumulation, an optimizer step is a real update of the weights.
        histograms: Whether to write a histogram of each variable's gradient.
        probe: Whether the model is run once more on recorded steps, forwards and backwards
            on at most 32 samples of the batch, for what the gradients of weights do not show:
            gradients of activations and, in recurrent layers, through time; dead and saturated
            units. Nothing of the training is touched. `"auto"` does it in `fit` where the model
            allows it, and warns once where not; True is the same; False does without.
        auto_clip: Whether gradients that would throw the weights away are clipped, and those
            that are not finite skipped, inside each train step. True, or a policy:
            `ZScoreClipping`, `PercentileClipping`, `NormClipping` or `AdaptiveClipping`.
        auto_lr: Whether the learning rate is lowered where training explodes, diverges or
            oscillates, restored when it is calm, and raised where all layers are starved
            evenly. True, or a `LearningRateControl`.
        auto_rollback: Whether a good state is kept in memory, and restored with a lower rate
            when training has diverged or met NaN. True, or a `Rollback`.
        auto_init: Whether a run that has not begun to learn, and cannot, is re-initialised
            from its data. True, or a `Reinitialization`. Does nothing in a custom loop.
        dry_run: Whether the flags only say what they would do.
        on_diagnosis: Called with each `Diagnosis`. An exception in it becomes a warning.

    Raises:
        ValueError: If `update_freq`, `probe` or a flag is none of the above, `on_diagnosis`
            cannot be called, or `log_dir` is a file.
        RuntimeError: If Keras runs on another backend than TensorFlow.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = "logs",
        update_freq: int | str = 100,
        histograms: bool = True,
        probe: bool | str = "auto",
        auto_clip: Any = False,
        auto_lr: bool | LearningRateControl = False,
        auto_rollback: bool | Rollback = False,
        auto_init: bool | Reinitialization = False,
        dry_run: bool = False,
        on_diagnosis: Callable[[Diagnosis], Any] | None = None,
    ) -> None:
        super().__init__()
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "GradientMonitor works in TensorFlow's train step only. Received: Keras "
                f"backend {keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before "
                "Keras is imported."
            )
        self._every = _updates_between_readings(update_freq)
        if on_diagnosis is not None and not callable(on_diagnosis):
            raise ValueError(
                "on_diagnosis must be callable with a Diagnosis. "
                f"Received: on_diagnosis={on_diagnosis!r}."
            )
        if probe not in (True, False, "auto"):
            raise ValueError(f'probe must be "auto", True or False. Received: probe={probe!r}.')
        if log_dir is not None and os.path.isfile(log_dir):
            raise ValueError(
                f"log_dir must be a directory, but a file stands there. Received: "
                f"log_dir={os.fspath(log_dir)!r}. Remove the file or choose another path."
            )
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.histograms = histograms
        self.probe = probe
        self.on_diagnosis = on_diagnosis
        self.history: list[Diagnosis] = []
        self.verdict: Verdict = "unknown"
        self.interventions: list[Intervention] = []
        self._rescue = Rescue(
            clipping=policy("auto_clip", auto_clip, CLIPPING),
            rate=policy("auto_lr", auto_lr, (LearningRateControl,)),
            rollback=policy("auto_rollback", auto_rollback, (Rollback,)),
            init=policy("auto_init", auto_init, (Reinitialization,)),
            dry_run=dry_run,
        )
        self._course = Course()
        self._capture: Capture | None = None
        self._function: TrainFunction | None = None
        self._watched: tuple[int, int, int] | None = None
        self._writer: EventWriter | None = None
        self._offset = 0
        self._warned: set[str] = set()
        self._epoch_length: int | None = None
        self._batch = 0
        self._steps_per_call = 1

    def set_model(self, model: Any) -> None:
        """Takes the model that is going to be trained.

        Raises:
            RuntimeError: If the model is not compiled.
        """
        super().set_model(model)
        if getattr(model, "optimizer", None) is None:
            raise RuntimeError(
                "GradientMonitor needs a compiled model. Received: "
                f"{model.name!r} without an optimizer. Call model.compile(...) first, or "
                "use monitor.watch(model, optimizer) in a custom training loop."
            )
        if model.built and not model.trainable_variables:
            warnings.warn(
                "GradientMonitor has nothing to show: the model has no trainable weights. "
                f"Received: {model.name!r}. Set layer.trainable = True before compile.",
                stacklevel=2,
            )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        clear_leftover(model)
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            self._function = self._capture = None
            self._warn(
                "replicas",
                "GradientMonitor does not read gradients that several replicas share yet: "
                f"this fit goes on unmonitored. Received: a strategy with {replicas} replicas.",
            )
            return
        watched = (id(model), id(model.optimizer), id(model.train_function))
        if self._function is None or self._watched != watched:
            # A compiled model keeps its train function, and so its traced step can be
            # used again by the next `fit`.
            xla = bool(model.jit_compile) and not model.run_eagerly
            steps = self._steps_per_call = model.steps_per_execution or 1
            interior = self._rescue.interior(xla)
            # What a `tf.cond` reads, XLA copies at every step. So there, the model's own
            # function runs on the steps that are not recorded, if the host can choose.
            always = xla and (self._every == 1 or steps == 1)
            self._capture = Capture(
                model,
                model.optimizer,
                self._every,
                # A train function that runs several steps records several before it returns.
                slots=1 + steps // (self._every or steps),
                xla=xla,
                always=always,
                probe=Probe(model, xla=xla) if self.probe else None,
                interior=interior,
            )
            guarded = always and not interior.empty
            self._function = TrainFunction(
                model,
                wrap=self._capture.wrap,
                wanted=self._capture.wanted,
                before=self._before_call,
                after=self._after_call,
                removed=self._end,
                wrap_other=self._capture.wrap_unread if guarded else None,
            )
            self._watched = watched
        self._begin(model, model.optimizer)
        self._function.install()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._batch = 0
        if self._every is None and self._steps_in_epoch() is None and self._capture is not None:
            self._capture.arm()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._every is None and self._capture is not None:
            steps = self._steps_in_epoch()
            if steps is not None and batch < steps <= batch + self._steps_per_call:
                self._capture.arm()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_length = self._batch
        if self._capture is not None and not self._capture.traced:
            self._warn(
                "untapped",
                "GradientMonitor saw no gradient: the train step does not call apply or "
                "apply_gradients of the optimizer that the model was compiled with. "
                f"Received: {type(self.model).__name__}, {type(self.model.optimizer).__name__}.",
            )
        if logs is not None:
            last = self.history[-1] if self.history else None
            logs["vanishing_score"] = last.vanishing_score if last else math.nan
            logs["exploding_score"] = last.exploding_score if last else math.nan

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._function is not None:
            self._function.remove()

    @contextlib.contextmanager
    def watch(self, model: Any, optimizer: Any = None) -> Iterator[GradientMonitor]:
        """Monitors a custom training loop; call `step()` after each train step.

        ```python
        monitor = GradientMonitor("logs")
        with monitor.watch(model, optimizer):
            for x, y in batches:
                train_step(x, y)
                monitor.step()
        ```

        A `tf.function` must be traced for the first time within the block. Outside of a
        `tf.function`, layers stand in the order of `model.trainable_variables`.

        Args:
            model: The Keras model that is trained.
            optimizer: The Keras optimizer whose `apply` or `apply_gradients` the loop
                calls; by default that of a compiled model.

        Raises:
            ValueError: If there is no optimizer, or `update_freq` is `"epoch"`, which a
                custom loop does not tell.
        """
        if self._every is None:
            raise ValueError(
                "A custom training loop does not tell where an epoch ends. Received: "
                'update_freq="epoch". Give a number of optimizer steps.'
            )
        optimizer = optimizer if optimizer is not None else getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(
                "watch needs the optimizer that the loop uses. Received: optimizer=None and "
                f"a model {model.name!r} that is not compiled. Pass optimizer=..."
            )
        interior = self._rescue.interior(xla=False)
        self._capture = Capture(model, optimizer, self._every, slots=2, interior=interior)
        self._function = self._watched = None
        self._steps_per_call = 1
        self._begin(model, optimizer)
        try:
            with self._capture.open():
                yield self
        finally:
            if not self._capture.traced:
                self._warn(
                    "untapped",
                    "GradientMonitor saw no gradient: optimizer.apply was not called within "
                    "the block, or its tf.function was traced before it. Received: "
                    f"{type(optimizer).__name__}. Call the train step for the first time "
                    "within the block.",
                )
            self._capture = None
            self._end()

    def step(self) -> None:
        """Tells the monitor that a custom loop has finished a train step."""
        if self._capture is None:
            raise RuntimeError(
                "step() was called outside of a `with monitor.watch(model, optimizer):` block."
            )
        self._after_call()

    def summary(self, width: int | None = None) -> str:
        """A table of the last reading, with the run's verdict and advice.

        Args:
            width: Characters a line; by default those of the terminal, or 80.
        """
        return render(self.history, self.verdict, width=width, interventions=self.interventions)

    def _begin(self, model: Any, optimizer: Any) -> None:
        assert self._capture is not None
        updates = self._capture.updates()
        self._rescue.begin(model, optimizer, updates, gives_batches=self._function is not None)
        # The step axis goes on where the last reading left it, also when the model was
        # compiled anew and its optimizer begins at 0.
        self._offset = 0
        if self.history:
            self._offset = max(0, self.history[-1].step + 1 - updates)
        if self._every is not None:
            self._capture.arm()

    def _steps_in_epoch(self) -> int | None:
        steps = (self.params or {}).get("steps")
        return steps if steps is not None else self._epoch_length

    def _before_call(self, iterator: Any) -> Any:
        iterator, done = self._rescue.before(iterator, self._steps_per_call)
        self._account(done)
        return iterator

    def _after_call(self) -> None:
        assert self._capture is not None
        self._batch += self._steps_per_call
        if not self._capture.count(self._steps_per_call):
            return
        try:
            found = self._capture.look()
            # Numbers belong to the last of them.
            for captured in found[:-1]:
                self._record(self._diagnosed(captured), captured, {})
            diagnosis = self._diagnosed(found[-1]) if found else None
            done, numbers = self._rescued(diagnosis)
            if diagnosis is not None:
                self._record(diagnosis, found[-1], numbers)
            self._account(done)
        except Exception as error:
            self._warn(
                "reading",
                f"GradientMonitor could not read what was recorded: {error!r}. Training goes on.",
            )

    def _rescued(self, diagnosis: Diagnosis | None) -> tuple[list[Intervention], dict[str, float]]:
        if not self._rescue.asked:
            return [], {}
        assert self._capture is not None
        updates = self._capture.updates()
        return self._rescue.look(
            step=self._offset + max(0, updates - 1),
            updates=updates,
            diagnosis=diagnosis,
            verdict=self.verdict,
            learned=self._course.learned,
        )

    def _account(self, done: list[Intervention]) -> None:
        for intervention in done:
            self.interventions.append(intervention)
            with contextlib.suppress(OSError, ValueError):  # A terminal that is closed.
                print(f"\nGradientMonitor: {intervention.sentence()}", flush=True)
        if done and self.log_dir is not None:
            self._written(lambda writer: writer.write_interventions(done))

    def _diagnosed(self, captured: Captured) -> Diagnosis:
        reading = from_rows(
            step=self._offset + captured.update,
            wall_time=time.time(),
            layers=captured.layers,
            floats=captured.floats,
            counts=captured.counts,
            probed=_probed(captured),
        )
        self._course = self._course.after(reading)
        diagnosis = diagnose(reading, self._course)
        self.history.append(diagnosis)
        self.verdict = steadied(self.verdict, self.history[-AGREEING_READINGS:])
        return diagnosis

    def _record(self, diagnosis: Diagnosis, captured: Captured, numbers: dict[str, float]) -> None:
        if self.log_dir is not None:
            histograms, verdict = self._histograms(captured), self.verdict
            self._written(lambda writer: writer.write(diagnosis, histograms, verdict, numbers))
        if self.on_diagnosis is not None:
            try:
                self.on_diagnosis(diagnosis)
            except Exception as error:
                self._warn("on_diagnosis", f"on_diagnosis raised {error!r}. Training goes on.")

    def _written(self, write: Callable[[EventWriter], None]) -> None:
        assert self.log_dir is not None
        try:
            if self._writer is None:
                self._writer = EventWriter(self.log_dir)
            write(self._writer)
        except Exception as error:
            self._warn(
                "writing",
                f"GradientMonitor could not write to log_dir={self.log_dir!r}: {error!r}. "
                "Training goes on; readings stay in monitor.history.",
            )

    def _histograms(self, captured: Captured) -> Histograms | None:
        if not self.histograms:
            return None
        layers = captured.layers
        return Histograms(
            layers=tuple(layer.name for layer in layers for _ in layer.variables),
            variables=tuple(name for layer in layers for name in layer.variables),
            sizes=tuple(size for layer in layers for size in layer.sizes),
            counts=captured.counts[[index for layer in layers for index in layer.indices]],
        )

    def _warn(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)

    def _end(self) -> None:
        self._rescue.end()
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()


def _probed(captured: Captured) -> Probed | None:
    found = captured.probed
    if found is None:
        return None
    losses = (found.loss, found.shuffled_loss)
    return Probed(*losses, found.names, found.activations, found.profiles)


def _updates_between_readings(update_freq: int | str) -> int | None:
    """The number of updates from one reading to the next; None for "epoch"."""
    if update_freq == "epoch":
        return None
    if update_freq == "batch":
        return 1
    if isinstance(update_freq, int) and not isinstance(update_freq, bool) and update_freq >= 1:
        return update_freq
    raise ValueError(
        'update_freq must be a whole number of optimizer steps, at least 1, or "batch" or '
        f'"epoch". Received: update_freq={update_freq!r}.'
    )
