"""The Keras callback: its arguments, and Keras's hooks."""

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
        self._history = History(self.log_dir, histograms, on_diagnosis)
        self._rescue = Rescue(
            clipping=chosen("auto_clip", auto_clip, _CLIPPING, ClippingPolicy),
            rate=chosen("auto_lr", auto_lr, (LearningRateControl,), RatePolicy),
            rollback=chosen("auto_rollback", auto_rollback, (Rollback,)),
            init=chosen("auto_init", auto_init, (Reinitialization,)),
            dry_run=dry_run,
        )
        self._session: Session | None = None
        # A compiled model keeps its train function, and so the next `fit` can use the traced
        # step again.
        self._installation: Installation | None = None
        self._installed_on: tuple[int, ...] = ()
        self._copies = 0

    @property
    def history(self) -> list[Diagnosis]:
        """Each `Diagnosis`, oldest first."""
        return self._history.diagnoses

    @property
    def interventions(self) -> list[Intervention]:
        """What the flags did, oldest first."""
        return self._history.interventions

    @property
    def on_diagnosis(self) -> Callable[[Diagnosis], Any] | None:
        """What is called with each `Diagnosis`; None if nothing is."""
        return self._history.on_diagnosis

    @on_diagnosis.setter
    def on_diagnosis(self, function: Callable[[Diagnosis], Any] | None) -> None:
        self._history.on_diagnosis = function

    @property
    def verdict(self) -> Verdict:
        """The run's verdict so far; of several optimizers' verdicts the worst."""
        return self._history.verdict

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict so far on each optimizer that was read, by `Diagnosis.optimizer`."""
        return self._history.verdicts

    def set_model(self, model: Any) -> None:
        """Takes the model that is going to be trained.

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
        model, before = self.model, self._session
        self._session = None
        self._backend.release(model)
        refused = self._backend.refusal(model)
        if refused is not None:
            self._installation = None
            self._history.warn("replicas", refused)
            return
        optimizers = self._backend.optimizers_of(model)
        installed_on = (id(model), id(model.train_function), *map(id, optimizers.values()))
        if self._installation is None or self._installed_on != installed_on:
            plan = Plan(self._every, bool(self.probe), self._steps())
            self._installation = installation_for(
                self._backend, model, optimizers, plan, self._rescue
            )
            self._installed_on = installed_on
        self._session = self._new_session(model, optimizers, self._installation)
        if before is not None:
            self._session.epoch_steps = before.epoch_steps
        self._installation.install(self._session)

    def _new_session(self, model: Any, optimizers: dict[str, Any], watched: Any) -> Session:
        session = Session(
            self._backend, model, optimizers, watched, self._history, self._rescue, self._every
        )
        session.warn_of_limitations(bool(self.probe))
        return session

    def _steps(self) -> int | None:
        """How many train steps the `fit` takes, as far as Keras knows."""
        steps, epochs = self._epoch_steps(), (self.params or {}).get("epochs")
        return None if steps is None or epochs is None else steps * epochs

    def _epoch_steps(self) -> int | None:
        steps: int | None = (self.params or {}).get("steps")
        return steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._session is not None:
            self._session.begin_epoch(self._epoch_steps())

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._session is not None:
            self._session.begin_batch(batch, self._epoch_steps())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        vanishing = exploding = math.nan
        if self._session is not None:
            self._session.end_epoch()
            vanishing, exploding = self._session.scores()
        if logs is not None:
            logs["vanishing_score"], logs["exploding_score"] = vanishing, exploding

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._installation is not None:
            self._installation.remove()

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
        self._installation = None
        loop = loop_for(self._backend, model, optimizer, self._every, self._rescue)
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
        """Tells the monitor that a custom loop has finished a train step.

        Raises:
            RuntimeError: If it is called outside of a `watch` block.
        """
        if self._session is None:
            raise RuntimeError(
                "step() was called outside of a `with monitor.watch(model, optimizer):` block."
            )
        self._session.after_call()

    def summary(self, width: int | None = None) -> str:
        """A table of the last reading, with the run's verdict and advice.

        With several optimizers there is one table each.

        Args:
            width: Characters a line; by default those of the terminal, or 80.
        """
        return summary(self.history, self.verdicts, self.interventions, width)

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        bound = dict.fromkeys(("_model", "params", "_session", "_installation"))
        return {**vars(self), **bound}

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientMonitor:
        """Another run's monitor: it writes to `copy_1`, `copy_2`, ... in `log_dir`.

        So each trial of keras_tuner, which copies its callbacks, has a run of its own.
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
