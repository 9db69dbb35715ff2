"""Lets the policies look at a run, and does to the model what they decide."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.capture.tensorflow.control.losses import LossLog
from keras_vanish.capture.tensorflow.control.rate import RateFactor
from keras_vanish.capture.tensorflow.control.step_controls import StepControls
from keras_vanish.capture.tensorflow.momentum import correct_momentum, momentum
from keras_vanish.capture.tensorflow.private_names import clear_losses
from keras_vanish.capture.tensorflow.snapshot import Snapshot
from keras_vanish.capture.tensorflow.update import build
from keras_vanish.diagnosis.diagnosis import Diagnosis, Verdict
from keras_vanish.interventions import (
    AdaptiveClipping,
    Decision,
    Intervention,
    LearningRateControl,
    NormClipping,
    Observation,
    PercentileClipping,
    Reinitialization,
    Rollback,
    ZScoreClipping,
    saved_states,
)
from keras_vanish.interventions.clipping import NormHistory
from keras_vanish.records.readings import StepLog
from keras_vanish.rescue.reinitialize.pretrained import pretrained
from keras_vanish.rescue.reinitialize.reinitialize import reinitialize

CLIPPING = (ZScoreClipping, PercentileClipping, NormClipping, AdaptiveClipping)


def policy(flag: str, given: Any, kinds: tuple[type, ...]) -> Any:
    """The policy that a flag asks for: None for False, the first kind's default for True.

    Raises:
        ValueError: If it is neither True nor False nor one of the policies.
    """
    if given is False:
        return None
    if given is True:
        return kinds[0]()
    if isinstance(given, kinds):
        return given
    names = " or ".join(f"{kind.__name__}(...)" for kind in kinds)
    raise ValueError(f"{flag} must be True, False or {names}. Received: {flag}={given!r}.")


class Rescue:
    """The policies of one monitor, and their hands.

    Args:
        clipping: A clipping policy, or None.
        rate: A learning-rate policy, or None.
        rollback: A rollback policy, or None.
        init: A re-initialisation policy, or None.
        dry_run: Whether nothing is done, only said.
    """

    def __init__(
        self, clipping: Any, rate: Any, rollback: Any, init: Any, dry_run: bool = False
    ) -> None:
        self._clipping = clipping
        self._rate: LearningRateControl | None = rate
        self._rollback: Rollback | None = rollback
        self._init: Reinitialization | None = init
        self._dry_run = dry_run
        self._clip_state = None if clipping is None else clipping.begin()
        self._rate_state = None if rate is None else rate.begin()
        self._rollback_state = None if rollback is None else rollback.begin()
        self._init_state = None if init is None else init.begin()
        self._rollback_factor = 1.0
        self._step_controls = StepControls()
        self._model: Any = None
        self._optimizer: Any = None
        self._norm: Callable[[], Any] | None = None
        self._kept: list[tuple[Snapshot, float]] = []
        self._remembered = 1.0
        self._start: Snapshot | None = None
        self._protected: frozenset[str] = frozenset()
        self._pending: Intervention | None = None
        self._firing = False
        self._refused = False
        self._renewed = False
        self._seed = 0
        self._gives_batches = self._fresh = False
        self._taken = True
        self._updates = 0

    @property
    def asked(self) -> bool:
        """Whether any flag is on."""
        return any((self._clipping, self._rate, self._rollback, self._init))

    def step_controls(self, xla: bool) -> StepControls:
        """What is to be built into the train step of a model."""
        if not self.asked:
            return StepControls()
        guard = None
        if self._clipping is not None:
            guard = Guard(
                xla=xla,
                enforces=not self._dry_run,
                unitwise=isinstance(self._clipping, AdaptiveClipping),
                smallest=getattr(self._clipping, "eps", 0.0),
            )
        moves_rate = (self._rate or self._rollback) and not self._dry_run
        self._step_controls = StepControls(
            guard=guard,
            factor=RateFactor(xla) if moves_rate else None,
            losses=LossLog() if self._rate or self._rollback or self._init else None,
        )
        return self._step_controls

    def state(self) -> dict[str, Any]:
        """What the policies know of the run, as JSON has it."""
        return {
            "policies": {
                flag: {"policy": type(policy).__name__, "state": saved_states.plain(state)}
                for flag, (policy, state) in self._states().items()
            },
            "rollback_factor": self._rollback_factor,
            "firing": self._firing,
            "refused": self._refused,
            "seed": self._seed,
        }

    def _states(self) -> dict[str, tuple[Any, Any]]:
        found = {
            "clip": (self._clipping, self._clip_state),
            "rate": (self._rate, self._rate_state),
            "rollback": (self._rollback, self._rollback_state),
            "init": (self._init, self._init_state),
        }
        return {flag: pair for flag, pair in found.items() if pair[0] is not None}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Takes up what the policies of an earlier process knew; `begin` follows.

        A policy of another kind than there was then begins anew.

        Args:
            state: What `state` gave; it is not trusted.

        Raises:
            ValueError: If `state` gives no such thing. Nothing is taken up then.
        """
        fields = saved_states.parsed(_Fields, {k: v for k, v in state.items() if k != "policies"})
        found = dict[str, Any]()
        for flag, (policy, _) in self._states().items():
            entry = state["policies"].get(flag) if isinstance(state.get("policies"), dict) else {}
            entry = entry if isinstance(entry, dict) else {}
            if entry.get("policy") == type(policy).__name__:
                found[flag] = saved_states.parsed(_kind(policy), entry.get("state"), flag)
        factor = found["rate"].factor if "rate" in found else 1.0
        if not (0 < factor * fields.rollback_factor < math.inf):
            raise ValueError(f"no learning rate is multiplied by {factor!r}")
        clip = found.get("clip")
        if isinstance(clip, NormHistory) and not (math.isfinite(clip.mean) and clip.variance >= 0):
            raise ValueError(f"no norms have the mean {clip.mean} and variance {clip.variance}")
        self._clip_state = found.get("clip", self._clip_state)
        self._rate_state = found.get("rate", self._rate_state)
        self._rollback_state = found.get("rollback", self._rollback_state)
        self._init_state = found.get("init", self._init_state)
        self._rollback_factor = fields.rollback_factor
        self._firing, self._refused, self._seed = fields.firing, fields.refused, fields.seed
        # What the optimizer remembers is of the process before, as its rate was.
        self._remembered = self._factor()
        self._kept = [(snapshot, self._remembered) for snapshot, _ in self._kept]

    def __getstate__(self) -> dict[str, Any]:
        # What is bound to a fit stays with it: a copy takes part in another.
        kept = {
            "_step_controls": StepControls(),
            "_kept": [],
            "_protected": frozenset(),
            "_taken": True,
        }
        bound = dict.fromkeys(("_model", "_optimizer", "_norm", "_start", "_pending"))
        return {**vars(self), **kept, **bound}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rescue:
        for policy, _ in self._states().values():
            memo[id(policy)] = policy  # It does not change, and may hold layers.
        twin = Rescue.__new__(Rescue)
        vars(twin).update(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def begin(self, model: Any, optimizer: Any, updates: int, gives_batches: bool) -> None:
        """Takes the model whose `fit` begins.

        Args:
            model: The Keras model.
            optimizer: Its optimizer.
            updates: How many updates the optimizer has applied; 0 for a model that has not
                been trained before, as far as that can be told.
            gives_batches: Whether `before` is going to be called.
        """
        self._fresh = updates == 0
        self._model, self._optimizer, self._norm = model, optimizer, None
        self._updates = updates
        self._pending = None
        self._renewed = False
        self._gives_batches = gives_batches
        self._taken = not self.asked
        self._remembered = self._factor()
        self._set_factor()
        if model.built:
            self._take()

    def _take(self) -> None:
        """Notes the state before the first step; called again, it does nothing."""
        if self._taken:
            return
        self._taken = True
        model, optimizer = self._model, self._optimizer
        if not optimizer.built:
            # As the first step would: slots that are made later could not be taken back.
            build(optimizer, model.trainable_variables)
        if self._init is not None and self._fresh:
            self._start = Snapshot(model, optimizer)
            self._protected = pretrained(model)
        if self._rollback is not None:
            self._kept = [self._copied()]
        self._set_limits()

    def end(self) -> None:
        """Lets go of the model and of what was kept of it."""
        self._model = self._optimizer = self._norm = self._start = None
        self._kept = []

    def before(self, iterator: Any, steps: int) -> tuple[Any, list[Intervention]]:
        """Does what needs a batch: the iterator of the next call, and what was done.

        Args:
            iterator: What the train function is about to be called with.
            steps: How many batches it takes from it.
        """
        if self._taken and self._pending is None:
            return iterator, []
        batches = list(itertools.islice(_until_end(iterator), steps))
        if not batches:
            raise StopIteration
        if not self._taken:
            _build(self._model, batches[0])
            self._take()
        if self._pending is None:
            return _iterator(batches, iterator), []
        planned, self._pending = self._pending, None
        try:
            done = self._reinitialized(planned, batches[0])
        except Exception as error:
            assert self._start is not None
            self._start.restore()
            done = _refused(planned, f"it failed: {error!r}")
        return _iterator(batches, iterator), [done]

    def look(
        self,
        step: int,
        updates: int,
        diagnosis: Diagnosis | None,
        verdict: Verdict,
        learned: bool | None,
    ) -> tuple[list[Intervention], dict[str, float]]:
        """Lets each policy look at the run, where any was `asked` for.

        Args:
            step: The step on the run's axis.
            updates: How many updates the optimizer has applied.
            diagnosis: The last reading's; None if there is none since the last look.
            verdict: The run's verdict so far.
            learned: Whether it has learned anything; None if that cannot be told.

        Returns:
            What was done, and numbers to log, by tag.
        """
        if self._pending is not None:
            return [], {}
        self._take()
        log, numbers = self._log(updates)
        look = Observation(step, diagnosis, verdict, learned, log)
        done = [*self._clip_account(look), *self._acts(look)]
        if self._clipping is not None:
            self._clip_state = self._clipping.after(self._clip_state, log.norms)
        self._set_limits()
        return done, numbers

    def _acts(self, look: Observation) -> Iterator[Intervention]:
        """At most one policy acts at a look, the most thorough one first."""
        if self._init is not None and self._init_state is not None:
            self._init_state, planned = self._init.decide(self._init_state, look)
            if planned is not None:
                if planned.action == "take_back_weights":
                    yield from self._taken_back(planned)
                    return
                yield from self._planned(planned)
                if self._pending is not None:
                    return
            if look.learned and look.verdict == "healthy":
                self._start = None  # It is not going to be needed: memory for training.
        if self._rollback is not None and self._rollback_state is not None:
            self._rollback_state, decision = self._rollback.decide(self._rollback_state, look)
            if decision.keep and not self._on_trial():
                self._keep()
            if decision.intervention is not None:
                yield self._rolled_back(decision, decision.intervention)
                return
        if self._rate is not None and self._rate_state is not None:
            self._rate_state, act = self._rate.decide(self._rate_state, look)
            if act is not None:
                yield self._marked(self._tried(act))
            self._set_factor()

    def _on_trial(self) -> bool:
        """Whether a larger rate is being tried."""
        return self._rate_state is not None and self._rate_state.on_trial

    def _tried(self, act: Intervention) -> Intervention:
        """Keeps the state before a larger rate is tried, and takes the run back to it after."""
        if self._rollback is None or self._rollback_state is None or self._dry_run:
            return act
        if self._on_trial():
            self._keep()
        elif act.action == "take_back_rate":
            self._go_back()
            self._rollback_state = self._rollback.forget(self._rollback_state)
            return dataclasses.replace(act, reason=f"{act.reason}; the weights go back with it")
        return act

    def _go_back(self) -> None:
        """Gives the run the last state that was kept."""
        snapshot, factor = self._kept[-1]
        snapshot.restore()
        self._remembered = factor
        self._model.reset_metrics()

    def _planned(self, planned: Intervention) -> Iterator[Intervention]:
        if planned.action != "reinitialize" or self._dry_run:
            yield self._marked(planned)
            return
        if self._start is not None and self._gives_batches:
            self._pending = planned
        elif not self._refused:
            self._refused = True
            why = "the model has been trained before this fit"
            if not self._gives_batches:
                why = "a custom training loop does not hand over its batches"
            yield _refused(planned, why)

    def _taken_back(self, planned: Intervention) -> Iterator[Intervention]:
        # What was only planned, or refused, left the weights as training made them.
        if self._start is not None and self._renewed:
            self._start.restore()
            self._start = None
            self._model.reset_metrics()
            self._begin_anew(None)
            self._leave_to_the_user()
            yield planned

    def _reinitialized(self, planned: Intervention, batch: Any) -> Intervention:
        assert self._start is not None
        assert self._init is not None
        self._start.restore()
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        protect = [*self._init.protect, *self._protected]
        found = reinitialize(self._model, x, protect=protect, seed=self._seed)
        self._seed += 1
        self._model.reset_metrics()
        if not found.touched:
            why = "every layer is left alone: pretrained, protected, frozen, or without a kernel"
            return _refused(planned, why)
        self._renewed = True
        # The next look comes after some steps: new units that are lost then, training has lost.
        self._begin_anew("" if found.whole else None)
        return dataclasses.replace(
            planned,
            before={layer.name: layer.before for layer in found.touched},
            after={layer.name: layer.after for layer in found.touched},
        )

    def _begin_anew(self, born: str | None) -> None:
        """Forgets what the other policies saw of weights that are gone.

        Args:
            born: What is wrong with the units of those that are there now; None if not known.
        """
        if self._rollback is not None:
            self._kept = [self._copied()]
            self._rollback_state = self._rollback.begin(born)
        if self._rate is not None and self._rate_state is not None:
            # A rate that was too large for the old weights may be so for the new ones.
            self._rate_state = self._rate.renewed(self._rate_state)
        if self._clipping is not None:
            self._clip_state = self._clipping.begin()
        self._set_limits()

    def _leave_to_the_user(self) -> None:
        """Undoes what was done to the rate for weights that are gone."""
        self._rollback_factor = 1.0
        # Less is enough to act on a run that begins than on one that goes on.
        if self._rate is not None and self._rate_state is not None:
            ratio = self._rate_state.ratio
            self._rate_state = dataclasses.replace(self._rate.begin(), ratio=ratio)
        if self._rollback_state is not None:
            self._rollback_state = dataclasses.replace(self._rollback_state, looks=1)
        self._set_factor()

    def _rolled_back(self, decision: Decision, act: Intervention) -> Intervention:
        if not self._dry_run:
            if decision.restore or decision.stop:
                self._go_back()
                # If it leads here again, it was not good.
                if len(self._kept) > 1:
                    self._kept.pop()
                if self._rate is not None and self._rate_state is not None:
                    self._rate_state = self._rate.lowered(self._rate_state, decision.factor)
                else:
                    self._rollback_factor *= decision.factor
                self._set_factor()
            if decision.stop:
                self._model.stop_training = True
        return self._marked(act)

    def _keep(self) -> None:
        assert self._rollback is not None
        kept = self._copied()
        if not kept[0].finite():
            return
        self._kept = [*self._kept, kept][-self._rollback.copies :]
        if self._rollback.folder is not None:
            folder = os.fspath(self._rollback.folder)
            os.makedirs(folder, exist_ok=True)
            self._model.save_weights(os.path.join(folder, "good.weights.h5"))

    def _copied(self) -> tuple[Snapshot, float]:
        """The state of the run, and the factor that is in what the optimizer remembers."""
        return Snapshot(self._model, self._optimizer), self._remembered

    def _clip_account(self, look: Observation) -> Iterator[Intervention]:
        log = look.log
        if log.skipped:
            steps = max(log.skipped, len(log.norms))
            yield self._marked(
                Intervention(
                    step=look.step,
                    action="skip",
                    reason=f"NaN or Inf in the gradient, in {log.skipped} of {steps} steps",
                    after={"skipped": float(log.skipped)},
                )
            )
        if log.clipped and not self._firing:
            largest = max((n for n in log.norms if math.isfinite(n)), default=math.nan)
            yield self._marked(
                Intervention(
                    step=look.step,
                    action="clip",
                    reason=(
                        f"{log.clipped} of {len(log.norms)} updates were beyond the limit, with "
                        f"global norms up to {largest:.3g}"
                    ),
                    before={"global_norm": largest},
                    after={"clipped": float(log.clipped)},
                )
            )
        self._firing = bool(log.clipped)

    def _marked(self, act: Intervention) -> Intervention:
        return dataclasses.replace(act, dry_run=self._dry_run)

    def _log(self, updates: int) -> tuple[StepLog, dict[str, float]]:
        step_controls = self._step_controls
        base = float(tf.convert_to_tensor(self._optimizer.learning_rate))
        rate = base * self._factor()
        numbers = {"gradients/learning_rate": rate}
        norms: Sequence[float] = ()
        clipped = skipped = 0
        if step_controls.guard is not None:
            seen = step_controls.guard.read()
            norms, clipped, skipped = seen.norms.tolist(), seen.clipped, seen.skipped
            if norms:
                numbers["gradients/clipped_fraction"] = clipped / len(norms)
                numbers["gradients/skipped_steps"] = float(skipped)
        losses = step_controls.losses.read().tolist() if step_controls.losses is not None else ()
        stalled, self._updates = updates == self._updates, updates
        remembers = momentum(self._optimizer)
        log = StepLog(tuple(norms), tuple(losses), clipped, skipped, stalled, rate, remembers)
        return log, numbers

    def _factor(self) -> float:
        """What the policies want the learning rate to be multiplied by."""
        return self._rollback_factor * (self._rate_state.factor if self._rate_state else 1.0)

    def _set_factor(self) -> None:
        factor, wanted = self._step_controls.factor, self._factor()
        if factor is not None and factor.value != wanted:
            factor.assign(wanted)
        if factor is not None and self._remembered != wanted:
            correct_momentum(self._optimizer, wanted / self._remembered)
            self._remembered = wanted

    def _set_limits(self) -> None:
        guard = self._step_controls.guard
        if guard is None:
            return
        limits = self._clipping.limits(self._clip_state)
        reach = getattr(self._clipping, "reach", math.inf)
        if math.isfinite(reach):
            if self._norm is None:
                self._norm = _global_norm(self._model.trainable_variables)
            norm = float(self._norm())
            reach = reach * norm if 0 < norm < math.inf else math.inf
        guard.limit(limits.fires_above, limits.clips_to, reach)


@dataclasses.dataclass(frozen=True)
class _Fields:
    """What is kept of a run beside the states of its policies."""

    rollback_factor: float
    firing: bool
    refused: bool
    seed: int


def _kind(policy: Any) -> Any:
    """The type of a policy's states."""
    return Mapping[int, int] if isinstance(policy, PercentileClipping) else type(policy.begin())


def _refused(planned: Intervention, why: str) -> Intervention:
    reason = f"{planned.reason} But {why}."
    return Intervention(planned.step, "refuse_reinitialization", reason)


def _global_norm(variables: Sequence[Any]) -> Callable[[], Any]:
    """The norm of all variables, compiled: eagerly it takes longer than a small model's step."""

    def norm() -> Any:
        return tf.linalg.global_norm([tf.cast(v.value, tf.float32) for v in variables])

    if not variables:
        return lambda: 0.0
    # Traced here: TensorFlow warns of a function that many short fits trace anew.
    return tf.function(norm, autograph=False).get_concrete_function()


def _build(model: Any, batch: Any) -> None:
    """Makes the weights of a model that has none before its first step."""
    x = keras.utils.unpack_x_y_sample_weight(batch)[0]
    model(tf.nest.map_structure(lambda tensor: tensor[:1], x))
    # Losses that layers added belong to no step.
    clear_losses(model)


def _until_end(iterator: Any) -> Iterator[Any]:
    try:
        yield from iterator
    except tf.errors.OutOfRangeError:
        return


def _iterator(batches: list[Any], like: Any) -> Any:
    """An iterator over these batches, for a function that was traced with another."""
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=like.element_spec
    )
    return iter(dataset)
