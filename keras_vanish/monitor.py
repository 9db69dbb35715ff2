"""The Keras callback: wires capture, diagnosis and logging together."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_vanish.capture.tensorflow.activations.probe import Probe
from keras_vanish.capture.tensorflow.capture import Capture, Captured
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.optimizers import COMPILED, have_one_rate, optimizers_of
from keras_vanish.capture.tensorflow.strategies import (
    is_chief,
    limits,
    reduces_gradients,
    refusal,
    several_processes,
)
from keras_vanish.capture.tensorflow.tap import unwrapped
from keras_vanish.capture.tensorflow.train_function import TrainFunction, clear_leftover
from keras_vanish.diagnosis import Diagnosis, Verdict, worst, worst_of
from keras_vanish.interventions import Intervention, LearningRateControl, Reinitialization, Rollback
from keras_vanish.logs import file_system
from keras_vanish.report.table import render
from keras_vanish.rescue.rescue import CLIPPING, Rescue, policy
from keras_vanish.run import Run

#: In a fit of fewer steps, all of them run as one function, where XLA does not compile it: to trace
#: another takes seconds, which a short run does not win back.
SHORT_RUN = 1000


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

    Where a `train_step` of the model's own applies several optimizers that it holds, as that of
    a GAN does, each has a run of its own, `<log_dir>/<attribute>/gradients`, and counts its own
    steps. Diagnoses tell by `optimizer` whose they are; the scores in the logs are the worst.

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

    Attributes:
        history: Each `Diagnosis`, oldest first.
        interventions: What the flags did, oldest first. With several optimizers they do
            nothing.

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
        self.log_dir = None if log_dir is None else file_system.usable(log_dir)
        self.histograms = histograms
        self.probe = probe
        self.on_diagnosis = on_diagnosis
        self.history: list[Diagnosis] = []
        self.interventions: list[Intervention] = []
        self._rescue = Rescue(
            clipping=policy("auto_clip", auto_clip, CLIPPING),
            rate=policy("auto_lr", auto_lr, (LearningRateControl,)),
            rollback=policy("auto_rollback", auto_rollback, (Rollback,)),
            init=policy("auto_init", auto_init, (Reinitialization,)),
            dry_run=dry_run,
        )
        # By what keeps them apart over all fits: the attribute, and "" for the compiled one.
        self._runs: dict[str, Run] = {}
        # Those of the fit that runs, by the attribute.
        self._watched: dict[str, Run] = {}
        self._acting = False
        self._function: TrainFunction | None = None
        self._function_of: tuple[int, ...] | None = None
        self._warned: set[str] = set()
        self._epoch_length: int | None = None
        self._batch = 0
        self._steps_per_call = 1
        self._begun = False
        self._copies = 0

    @property
    def verdict(self) -> Verdict:
        """The run's verdict so far; of several optimizers' verdicts the worst."""
        return worst_of(self.verdicts.values())

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict so far on each optimizer that was read, by `Diagnosis.optimizer`."""
        return {run.name or "": run.verdict for run in self._runs.values() if run.last is not None}

    def set_model(self, model: Any) -> None:
        """Takes the model that is going to be trained.

        Raises:
            RuntimeError: If the model is not compiled.
        """
        super().set_model(model)
        if not optimizers_of(model):
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
        refused = refusal(model)
        if refused is not None:
            self._function, self._watched = None, {}
            self._warn("replicas", refused)
            return
        optimizers = optimizers_of(model)
        function_of = (id(model), id(model.train_function), *map(id, optimizers.values()))
        if self._function is None or self._function_of != function_of:
            # A compiled model keeps its train function, and so its traced step can be
            # used again by the next `fit`.
            self._function = self._new_function(model, optimizers)
            self._function_of = function_of
        self._begin(model, optimizers)
        self._function.install()

    def _new_function(self, model: Any, optimizers: dict[str, Any]) -> TrainFunction:
        xla = bool(model.jit_compile) and not model.run_eagerly
        steps = self._steps_per_call = model.steps_per_execution or 1
        alone = len(optimizers) == 1
        strategy = model.distribute_strategy
        probes = bool(self.probe) and alone and not several_processes(strategy)
        step_controls = (
            self._rescue.step_controls(xla) if self._may_act(model, optimizers) else StepControls()
        )
        # What a `tf.cond` may read, XLA copies at every step, and elsewhere the optimizer cannot
        # compute in its place. So the model's own function runs on the steps that are not
        # recorded, if the host can choose.
        every_step = self._every == 1
        chooses = xla and (every_step or steps == 1)
        chooses = chooses or (not model.run_eagerly and self._is_long())
        always = every_step or (chooses and steps == 1)
        self._watched = {}
        for attribute, optimizer in optimizers.items():
            capture = Capture(
                model,
                optimizer,
                self._every,
                # A train function that runs several steps records several before it returns.
                slots=1 + steps // (self._every or steps),
                xla=xla,
                always=always,
                chooses=chooses,
                probe=Probe(model, xla=xla) if probes else None,
                step_controls=step_controls,
            )
            compiled = alone or unwrapped(optimizer) is unwrapped(model.optimizer)
            self._attach(attribute, "" if compiled else attribute, capture, strategy)
        captures = [run.capture for run in self._watched.values()]
        return TrainFunction(
            model,
            wrap=lambda step: functools.reduce(lambda s, c: c.wrap(s), captures, step),
            wanted=lambda: any(capture.wanted() for capture in captures),
            before=self._before_call,
            after=self._after_call,
            after_data=self._after_data,
            removed=self._end,
            wrap_other=captures[0].wrap_unread if chooses and not step_controls.empty else None,
        )

    def _is_long(self) -> bool:
        """Whether the `fit` that begins is no short one, as far as Keras knows."""
        params = self.params or {}
        steps, epochs = params.get("steps"), params.get("epochs")
        return steps is None or epochs is None or steps * epochs >= SHORT_RUN

    def _attach(self, attribute: str, key: str, capture: Capture, strategy: Any) -> None:
        if key not in self._runs:
            log_dir = self.log_dir if is_chief(strategy) else None
            self._runs[key] = Run(log_dir, self.histograms, self._warn)
        run = self._watched[attribute] = self._runs[key]
        run.attach(capture)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._batch = 0
        if self._every is None and self._steps_in_epoch() is None:
            self._arm()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._every is None:
            steps = self._steps_in_epoch()
            if steps is not None and batch < steps <= batch + self._steps_per_call:
                self._arm()

    def _arm(self) -> None:
        for run in self._watched.values():
            run.capture.arm()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_length = self._batch
        if self._watched and not self._traced():
            kinds = [type(optimizer).__name__ for optimizer in optimizers_of(self.model).values()]
            self._warn(
                "untapped",
                "GradientMonitor saw no gradient: the train step does not call apply or "
                "apply_gradients of the optimizer that the model was compiled with, nor of "
                "another that the model holds. "
                f"Received: {type(self.model).__name__}, {', '.join(kinds)}.",
            )
        if logs is not None:
            last = [run.last for run in self._watched.values() if run.last is not None]
            logs["vanishing_score"] = worst(*(diagnosis.vanishing_score for diagnosis in last))
            logs["exploding_score"] = worst(*(diagnosis.exploding_score for diagnosis in last))

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
        optimizers = {COMPILED: optimizer}
        acts = self._may_act(model, optimizers)
        step_controls = self._rescue.step_controls(xla=False) if acts else StepControls()
        capture = Capture(model, optimizer, self._every, slots=2, step_controls=step_controls)
        self._function, self._watched = None, {}
        self._attach(COMPILED, "", capture, model.distribute_strategy)
        self._steps_per_call = 1
        self._begin(model, optimizers)
        self._begin_steps(model)
        try:
            with capture.open():
                yield self
        finally:
            if not capture.traced:
                self._warn(
                    "untapped",
                    "GradientMonitor saw no gradient: optimizer.apply was not called within "
                    "the block, or its tf.function was traced before it. Received: "
                    f"{type(optimizer).__name__}. Call the train step for the first time "
                    "within the block.",
                )
            self._watched = {}
            self._end()

    def step(self) -> None:
        """Tells the monitor that a custom loop has finished a train step."""
        if not self._watched:
            raise RuntimeError(
                "step() was called outside of a `with monitor.watch(model, optimizer):` block."
            )
        self._after_call()

    def summary(self, width: int | None = None) -> str:
        """A table of the last reading, with the run's verdict and advice.

        With several optimizers there is one of each.

        Args:
            width: Characters a line; by default those of the terminal, or 80.
        """
        verdicts = self.verdicts
        if not any(verdicts):
            return render(self.history, self.verdict, width=width, interventions=self.interventions)
        tables = [
            render(
                [diagnosis for diagnosis in self.history if diagnosis.optimizer == name],
                verdict,
                title=name,
                width=width,
            )
            for name, verdict in verdicts.items()
        ]
        return "\n".join(tables)

    def _begin(self, model: Any, optimizers: dict[str, Any]) -> None:
        strategy = model.distribute_strategy
        self._acting = self._may_act(model, optimizers)
        self._begun = False
        if len(optimizers) == 1:
            for run in self._watched.values():
                run.settle("")
        if not have_one_rate(optimizers):
            self._warn_of_several(optimizers)
        inner = map(unwrapped, optimizers.values())
        probes = bool(self.probe) and self._function is not None
        for about, message in limits(strategy, inner, self._rescue.asked, probes):
            self._warn(about, message)
        if self._every is not None:
            self._arm()

    def _may_act(self, model: Any, optimizers: dict[str, Any]) -> bool:
        """Whether a flag is on that can do something in a fit with these optimizers."""
        ruled = have_one_rate(optimizers) and not reduces_gradients(model.distribute_strategy)
        return self._rescue.asked and ruled

    def _begin_steps(self, model: Any) -> None:
        """Sees the state from which the first step starts.

        Not before: another callback may restore a model when the training begins.
        """
        self._begun = True
        updates = [run.begin() for run in self._watched.values()]
        for run in self._watched.values():
            if run.settled:
                self._resume(run)
        if self._acting:
            (run,) = self._watched.values()
            self._rescue.begin(
                model,
                run.capture.optimizer,
                updates[0],
                gives_batches=self._function is not None,
            )

    def _resume(self, run: Run) -> None:
        past = run.resume()
        if past is None:
            return
        everything = [*past.history, *self.history]
        self.history[:] = sorted(everything, key=lambda diagnosis: diagnosis.reading.wall_time)
        self.interventions[:0] = past.interventions
        if self._acting and past.state.policies:
            try:
                self._rescue.resume(past.state.policies)
            except ValueError as error:
                self._warn(
                    "resume",
                    "GradientMonitor could not take up what the flags knew of the run, and "
                    f"begins anew: {error}. Training goes on.",
                )

    def _warn_of_several(self, optimizers: dict[str, Any]) -> None:
        names = ", ".join(optimizers)
        if len(optimizers) == 1:
            names = f"a {type(optimizers[names]).__name__}"
        if self._rescue.asked:
            self._warn(
                "flags",
                "GradientMonitor's flags auto_* act on the run of one optimizer, with one learning "
                "rate: they do nothing in this fit."
                f" Received: a model that holds {names}. Readings go on.",
            )
        if self.probe and len(optimizers) > 1:
            self._warn(
                "probe",
                "GradientMonitor probes the batch of one optimizer's loss: with several it shows "
                f"the gradients of weights only. Received: a model that holds {names}. Set "
                "probe=False to say that this is meant.",
            )

    def _traced(self) -> list[str]:
        return [name for name, run in self._watched.items() if run.capture.traced]

    def _settle(self) -> None:
        """Names the runs of the optimizers that the train step is seen to apply."""
        traced = self._traced()
        for attribute in traced:
            run = self._watched[attribute]
            if not run.settled:
                # The compiled optimizer by itself is all that there is to most models.
                compiled = run is self._runs.get("")
                run.settle("" if compiled and len(traced) == 1 else attribute)
                self._resume(run)

    def _steps_in_epoch(self) -> int | None:
        steps = (self.params or {}).get("steps")
        return steps if steps is not None else self._epoch_length

    def _before_call(self, iterator: Any) -> Any:
        if not self._begun:
            self._begin_steps(self.model)
        if not self._acting:
            return iterator
        iterator, done = self._rescue.before(iterator, self._steps_per_call)
        self._account(done)
        return iterator

    def _after_call(self) -> None:
        self._batch += self._steps_per_call
        counted = [(t, t.capture.count(self._steps_per_call)) for t in self._watched.values()]
        self._look([run for run, due in counted if due])

    def _after_data(self) -> None:
        # In Keras 3.4, the last call of an epoch fails after the last of its steps.
        if self._steps_per_call > 1:
            self._look([run for run in self._watched.values() if run.capture.awaited])

    def _look(self, runs: Sequence[Run]) -> None:
        if not runs:
            return
        try:
            self._settle()
            found = [(run, captured) for run in runs for captured in run.capture.look()]
            found.sort(key=lambda pair: pair[1].update)
            # Numbers belong to the last of them.
            for run, captured in found[:-1]:
                self._record(run, self._diagnosed(run, captured), captured, {})
            diagnosis = self._diagnosed(*found[-1]) if found else None
            done, numbers = self._rescued(runs[0], diagnosis)
            if diagnosis is not None:
                self._record(found[-1][0], diagnosis, found[-1][1], numbers)
            self._account(done)
            written = runs if done else [run for run, _ in found]
            for run in dict.fromkeys(written):
                run.save(self._rescue.state() if self._acting else {})
        except Exception as error:
            self._warn(
                "reading",
                f"GradientMonitor could not read what was recorded: {error!r}. Training goes on.",
            )

    def _rescued(
        self, run: Run, diagnosis: Diagnosis | None
    ) -> tuple[list[Intervention], dict[str, float]]:
        if not self._acting:
            return [], {}
        updates = run.capture.updates()
        return self._rescue.look(
            step=run.step(max(0, updates - 1)),
            updates=updates,
            diagnosis=diagnosis,
            verdict=run.verdict,
            learned=run.course.learned,
        )

    def _account(self, done: list[Intervention]) -> None:
        for intervention in done:
            self.interventions.append(intervention)
            with contextlib.suppress(OSError, ValueError):  # A terminal that is closed.
                print(f"\nGradientMonitor: {intervention.sentence()}", flush=True)
        if done:
            (run,) = self._watched.values()
            run.write_interventions(done)

    def _diagnosed(self, run: Run, captured: Captured) -> Diagnosis:
        diagnosis = run.diagnosed(captured)
        self.history.append(diagnosis)
        return diagnosis

    def _record(
        self, run: Run, diagnosis: Diagnosis, captured: Captured, numbers: dict[str, float]
    ) -> None:
        run.write(diagnosis, captured, numbers)
        if self.on_diagnosis is not None:
            try:
                self.on_diagnosis(diagnosis)
            except Exception as error:
                self._warn("on_diagnosis", f"on_diagnosis raised {error!r}. Training goes on.")

    def _warn(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=3)

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        bound = dict.fromkeys(("_model", "params", "_function", "_function_of"))
        return {**vars(self), **bound, "_watched": {}, "_begun": False}

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientMonitor:
        """Another run's monitor: it writes to `copy_1`, `copy_2`, ... in `log_dir`.

        So each trial of keras_tuner, which copies its callbacks, has a run of its own.
        """
        memo[id(self.on_diagnosis)] = self.on_diagnosis
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        if self.log_dir is not None:
            self._copies, twin.log_dir = file_system.unused(
                os.path.join(self.log_dir, "copy_"), self._copies
            )
            for run in twin._runs.values():
                run.move(twin.log_dir)
        twin._copies = 0
        return twin

    def _end(self) -> None:
        self._rescue.end()
        for run in self._runs.values():
            run.close()


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
