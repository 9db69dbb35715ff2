"""The Keras callback: its arguments and its hooks."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_vanish.capture import backend
from keras_vanish.capture.backend import Installation, Plan
from keras_vanish.diagnosis import Diagnosis, Verdict
from keras_vanish.history import History
from keras_vanish.interventions import (
    AdaptiveClipping,
    ClippingPolicy,
    Intervention,
    LearningRateControl,
    NormClipping,
    PercentileClipping,
    RatePolicy,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.policy import chosen
from keras_vanish.logs import file_system
from keras_vanish.report.summary import summary
from keras_vanish.rescue.rescue import Rescue
from keras_vanish.session import Session, installation_for, loop_for

_CLIPPING = (ZScoreClipping, PercentileClipping, NormClipping, AdaptiveClipping)


class GradientMonitor(keras.callbacks.Callback):
    """Shows whether gradients reach every layer while `fit` runs.

    ```python
    monitor = GradientMonitor("logs")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.summary())
    ```

    Every `update_freq` optimizer steps, the monitor summarises the gradients that the train step
    computes, diagnoses them, and writes them for TensorBoard to `<log_dir>/gradients`. Monitoring
    does not change the training: the weights after `fit` are bit-identical. Only the `auto_*` flags
    change a training, and only when they find a reason.

    At the end of each epoch, the last scores are added to Keras's logs as `vanishing_score` and
    `exploding_score`. Callbacks that follow the monitor in the list can read them.

    If a custom `train_step` applies several optimizers, as that of a GAN does, each one has a run
    of its own in `<log_dir>/<attribute>/gradients`, and counts its own steps. `Diagnosis.optimizer`
    names the optimizer. The scores in the logs are the worst of all.

    Args:
        log_dir: The directory of the event files, such as `"logs"`. With None, the monitor writes
            no files and only keeps `history`.
        update_freq: The number of optimizer steps between two readings, at least 1, such as `100`.
            The first step of each `fit` is read as well. `"batch"` reads every step. `"epoch"` only
            reads the last step of each epoch, or the first one while the length of the epoch is
            unknown. With gradient accumulation, an optimizer step is a real update of the weights.
        histograms: Whether to write a histogram of each variable's gradient. `histograms=False`
            makes the event files smaller.
        probe: Whether to run the model once more on recorded steps, on at most 32 samples of the
            batch. The probe measures gradients of activations, gradients through time in recurrent
            layers, and dead and saturated units. It does not change the training. `"auto"` and True
            probe in `fit` if the model allows it, and warn once if not. `probe=False` turns the
            probe off.
        auto_clip: Whether to clip outlier gradients, and to skip gradients with NaN or Inf, in
            every train step. Pass True or a policy: `ZScoreClipping`, `PercentileClipping`,
            `NormClipping`, `AdaptiveClipping` or your own `ClippingPolicy`, such as
            `auto_clip=NormClipping(1.0)`.
        auto_lr: Whether to lower the learning rate when training explodes, diverges or oscillates,
            to restore it when training is calm, and to raise it when all updates are too small to
            matter. Pass True, a `LearningRateControl` or your own `RatePolicy`, such as
            `auto_lr=LearningRateControl(highest=1.0)`.
        auto_rollback: Whether to keep good states in memory, and to restore the last one with a
            lower rate after NaN or divergence. Pass True or a `Rollback`, such as
            `auto_rollback=Rollback(copies=3)`.
        auto_init: Whether to give new weights to a run that has not begun to learn and cannot. They
            are computed from a batch of its data. Pass True or a `Reinitialization`, such as
            `auto_init=Reinitialization(protect=["embedding"])`. This flag has no effect in a custom
            training loop.
        dry_run: Whether the flags only report what they would do, as in
            `GradientMonitor("logs", auto_lr=True, dry_run=True)`.
        on_diagnosis: A function that is called with each `Diagnosis`, such as
            `lambda diagnosis: print(diagnosis.verdict)`. An exception in it becomes a warning.

    Attributes:
        history: Each `Diagnosis`, oldest first.
        interventions: Each `Intervention` of the flags, oldest first. The flags have no effect on a
            training with several optimizers.

    Raises:
        ValueError: If `update_freq`, `probe` or a flag has a value that is not described above, if
            `on_diagnosis` is not callable, or if `log_dir` is a file.
        RuntimeError: If Keras runs on another backend than TensorFlow.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = "logs",
        update_freq: int | str = 100,
        histograms: bool = True,
        probe: bool | str = "auto",
        auto_clip: bool | ClippingPolicy = False,
        auto_lr: bool | RatePolicy = False,
        auto_rollback: bool | Rollback = False,
        auto_init: bool | Reinitialization = False,
        dry_run: bool = False,
        on_diagnosis: Callable[[Diagnosis], Any] | None = None,
    ) -> None:
        super().__init__()
        self._backend = backend.load(keras.backend.backend())
        self._every = _updates_between_readings(update_freq)
        _check(probe, on_diagnosis)
        self.log_dir = None if log_dir is None else file_system.usable(log_dir)
        self.histograms = histograms
        self.probe = probe
        self._history = History(self.log_dir, histograms, on_diagnosis)
        self._rescue = Rescue(
            clipping=chosen("auto_clip", auto_clip, _CLIPPING, ClippingPolicy),
            rate=chosen("auto_lr", auto_lr, (LearningRateControl,), RatePolicy),
            rollback=chosen("auto_rollback", auto_rollback, (Rollback,)),
            init=chosen("auto_init", auto_init, (Reinitialization,)),
            dry_run=dry_run,
        )
        self._session: Session | None = None
        # A compiled model keeps its train function, so the next `fit` can reuse the traced step.
        self._installation: Installation | None = None
        self._installed_on: tuple[int, ...] = ()
        # The train steps of the last epoch, for data whose length Keras does not know.
        self._epoch_length: int | None = None
        self._copies = 0

    @property
    def history(self) -> list[Diagnosis]:
        """Each `Diagnosis`, oldest first."""
        return self._history.diagnoses

    @history.setter
    def history(self, diagnoses: list[Diagnosis]) -> None:
        self._history.diagnoses = diagnoses

    @property
    def interventions(self) -> list[Intervention]:
        """Each `Intervention` of the flags, oldest first."""
        return self._history.interventions

    @interventions.setter
    def interventions(self, interventions: list[Intervention]) -> None:
        self._history.interventions = interventions

    @property
    def on_diagnosis(self) -> Callable[[Diagnosis], Any] | None:
        """The function that is called with each `Diagnosis`, or None."""
        return self._history.on_diagnosis

    @on_diagnosis.setter
    def on_diagnosis(self, function: Callable[[Diagnosis], Any] | None) -> None:
        self._history.on_diagnosis = function

    @property
    def verdict(self) -> Verdict:
        """The run's verdict so far; the worst one if there are several optimizers."""
        return self._history.verdict

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict so far on each optimizer that was read, by `Diagnosis.optimizer`."""
        return self._history.verdicts

    def set_model(self, model: Any) -> None:
        """Prepares to monitor a model. Keras calls this method.

        Args:
            model: The Keras model that is going to be trained.

        Raises:
            RuntimeError: If the model is not compiled.
        """
        super().set_model(model)
        if not self._backend.optimizers_of(model):
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
        """Puts the monitor into the train step. Keras calls this method."""
        model, self._session = self.model, None
        self._backend.release(model)
        refused = self._backend.refusal(model)
        if refused is not None:
            self._installation = None
            self._history.warn("replicas", refused)
            return
        optimizers = self._backend.optimizers_of(model)
        installed_on = (id(model), id(model.train_function), *map(id, optimizers.values()))
        if self._installation is None or self._installed_on != installed_on:
            plan = Plan(self._every, bool(self.probe), _steps(self.params))
            self._installation = installation_for(
                self._backend, model, optimizers, plan, self._rescue
            )
            self._installed_on = installed_on
        self._session = self._new_session(model, optimizers, self._installation)
        self._session.epoch_steps = self._epoch_length
        self._installation.install(self._session)

    def _new_session(self, model: Any, optimizers: dict[str, Any], watched: Any) -> Session:
        self._history.log_dir, self._history.histograms = self.log_dir, self.histograms
        session = Session(
            self._backend, model, optimizers, watched, self._history, self._rescue, self._every
        )
        session.warn_of_limitations(bool(self.probe))
        return session

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps of an epoch from here. Keras calls this method."""
        if self._session is not None:
            self._session.begin_epoch(_epoch_steps(self.params))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Marks the last step of an epoch for reading if due. Keras calls this method."""
        if self._session is not None:
            self._session.begin_batch(batch, _epoch_steps(self.params))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the last scores to `logs`; NaN if unknown. Keras calls this method."""
        vanishing = exploding = math.nan
        if self._session is not None:
            self._session.end_epoch()
            self._epoch_length = self._session.epoch_steps
            vanishing, exploding = self._session.scores()
        if logs is not None:
            logs["vanishing_score"], logs["exploding_score"] = vanishing, exploding

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Removes the monitor from the train step. Keras calls this method."""
        if self._installation is not None:
            self._installation.remove()

    @contextlib.contextmanager
    def watch(self, model: Any, optimizer: Any = None) -> Iterator[GradientMonitor]:
        """Monitors a custom training loop. Call `step()` after each train step.

        ```python
        monitor = GradientMonitor("logs")
        with monitor.watch(model, optimizer):
            for x, y in batches:
                train_step(x, y)
                monitor.step()
        ```

        Call a `tf.function` for the first time within the block, so that it is traced there.
        Without a `tf.function`, the layers keep the order of `model.trainable_variables`.

        Args:
            model: The Keras model that is trained.
            optimizer: The Keras optimizer whose `apply` or `apply_gradients` the loop calls. By
                default, it is the optimizer that the model was compiled with.

        Raises:
            ValueError: If there is no optimizer, or if `update_freq` is `"epoch"`: the end of an
                epoch is unknown in a custom loop.
        """
        every, optimizer = _every_of_loop(self._every), _optimizer_of_loop(model, optimizer)
        self._installation = None
        loop = loop_for(self._backend, model, optimizer, every, self._rescue)
        session = self._new_session(model, {loop.main: optimizer}, loop)
        session.begin_steps()
        self._session = session
        try:
            with loop.open():
                yield self
        finally:
            session.warn_if_untraced()
            self._session = None
            session.removed()

    def step(self) -> None:
        """Tells the monitor that a custom training loop has finished a train step.

        Raises:
            RuntimeError: If it is called outside of a `watch` block.
        """
        if self._session is None:
            raise RuntimeError(
                "step() was called outside of a `with monitor.watch(model, optimizer):` block."
            )
        self._session.after_call()

    def summary(self, width: int | None = None) -> str:
        """Returns a table of the last reading, with the run's verdict and advice.

        With several optimizers, there is one table for each.

        Args:
            width: The number of characters in a line. By default, it is the width of the terminal,
                or 80.
        """
        return summary(self.history, self.verdicts, self.interventions, width)

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        bound = dict.fromkeys(("_model", "params", "_session", "_installation"))
        return {**vars(self), **bound}

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientMonitor:
        """Returns a monitor for another run, which writes to `copy_1`, `copy_2`, ... in `log_dir`.

        keras_tuner copies its callbacks for each trial. So each trial has a run of its own.
        """
        memo[id(self.on_diagnosis)] = self.on_diagnosis
        memo[id(self._backend)] = self._backend
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        if self.log_dir is not None:
            self._copies, twin.log_dir = file_system.unused(
                os.path.join(self.log_dir, "copy_"), self._copies
            )
            twin._history.move(twin.log_dir)
        twin._copies = 0
        return twin


def _check(probe: object, on_diagnosis: object) -> None:
    """Raises a ValueError unless the two arguments are what they must be."""
    if on_diagnosis is not None and not callable(on_diagnosis):
        raise ValueError(
            "on_diagnosis must be callable with a Diagnosis. "
            f"Received: on_diagnosis={on_diagnosis!r}."
        )
    if probe not in (True, False, "auto"):
        raise ValueError(f'probe must be "auto", True or False. Received: probe={probe!r}.')


def _epoch_steps(params: dict[str, Any] | None) -> int | None:
    """The number of train steps of an epoch, as far as Keras knows."""
    steps: int | None = (params or {}).get("steps")
    return steps


def _steps(params: dict[str, Any] | None) -> int | None:
    """The number of train steps of a `fit`, as far as Keras knows."""
    steps, epochs = _epoch_steps(params), (params or {}).get("epochs")
    return None if steps is None or epochs is None else steps * epochs


def _every_of_loop(every: int | None) -> int:
    """The number of updates between readings, which a custom loop must have."""
    if every is None:
        raise ValueError(
            "A custom training loop does not tell where an epoch ends. Received: "
            'update_freq="epoch". Give a number of optimizer steps.'
        )
    return every


def _optimizer_of_loop(model: Any, optimizer: Any) -> Any:
    """The optimizer that a custom loop was said to use, or the compiled one."""
    optimizer = optimizer if optimizer is not None else getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "watch needs the optimizer that the loop uses. Received: optimizer=None and "
            f"a model {model.name!r} that is not compiled. Pass optimizer=..."
        )
    return optimizer


def _updates_between_readings(update_freq: int | str) -> int | None:
    """Returns the number of updates between two readings; None for "epoch".

    Raises:
        ValueError: If `update_freq` is neither a whole number from 1 on, "batch" nor "epoch".
    """
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
