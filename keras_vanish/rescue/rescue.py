"""Asks the policies in a fixed order, and has their decisions carried out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from keras_vanish.capture.backend import Controls
from keras_vanish.diagnosis import Diagnosis, Verdict
from keras_vanish.interventions import (
    ClippingPolicy,
    Decision,
    Intervention,
    Observation,
    RatePolicy,
    Reinitialization,
    Rollback,
)
from keras_vanish.records.step_log import StepLog
from keras_vanish.rescue.batches import TakenBatches
from keras_vanish.rescue.clipping import Clipping
from keras_vanish.rescue.good_states import GoodStates
from keras_vanish.rescue.learning_rate import LearningRate
from keras_vanish.rescue.new_weights import NewWeights, refusal
from keras_vanish.rescue.saved_state import SavedState
from keras_vanish.rescue.training import Training


class Rescue:
    """Shows a run to the policies of a monitor, and carries out their decisions.

    At each observation at most one policy acts. They are asked in this order: new weights,
    rollback, learning rate. The limits of clipping are set at every observation.

    Args:
        clipping: A clipping policy, or None.
        rate: A learning-rate policy, or None.
        rollback: A rollback policy, or None.
        init: A re-initialisation policy, or None.
        dry_run: Whether decisions are only reported and not carried out.

    Attributes:
        clipping: The clipping; None if the flag is off.
        rate: The factor on the learning rate.
        good_states: The states that a rollback restores; None if the flag is off.
        new_weights: The re-initialisation; None if the flag is off.
    """

    def __init__(
        self,
        clipping: ClippingPolicy | None,
        rate: RatePolicy | None,
        rollback: Rollback | None,
        init: Reinitialization | None,
        dry_run: bool = False,
    ) -> None:
        self.clipping = None if clipping is None else Clipping(clipping)
        self.rate = LearningRate(rate)
        self.good_states = None if rollback is None else GoodStates(rollback)
        self.new_weights = None if init is None else NewWeights(init)
        self._dry_run = dry_run
        self._training: Training | None = None
        self._started = True
        self._updates = 0

    @property
    def asked(self) -> bool:
        """Whether any flag is on."""
        return bool(self._saved().hands())

    def controls(self) -> Controls:
        """Returns the controls that the flags need inside the train step."""
        moves_rate = self.rate.policy is not None or self.good_states is not None
        return Controls(
            guard=None if self.clipping is None else self.clipping.settings(self._dry_run),
            rate=moves_rate and not self._dry_run,
            losses=moves_rate or self.new_weights is not None,
        )

    def enter(self, training: Training) -> None:
        """Starts to act on a training."""
        self._training, self._updates = training, training.updates
        self._started = not self.asked
        for hand in self._hands():
            hand.enter(training)
        if training.model.built:
            self._start()

    def leave(self) -> None:
        """Releases the model and everything that was kept of it."""
        self._training = None
        for hand in self._hands():
            hand.leave()

    def before(self, iterator: Any, steps: int) -> tuple[Any, list[Intervention]]:
        """Carries out what needs a batch.

        Args:
            iterator: The iterator with which the train function is about to be called.
            steps: The number of batches that the call takes from it.

        Returns:
            The iterator to call the train function with, and the interventions.

        Raises:
            StopIteration: If there is no batch.
        """
        new_weights = self.new_weights
        planned = None if new_weights is None else new_weights.pending
        if self._training is None or (self._started and planned is None):
            return iterator, []
        batches = TakenBatches(iterator, steps)
        if not self._started:
            batches.build(self._training.model)
            self._start()
        if new_weights is None or planned is None:
            return batches.iterator(), []
        new_weights.pending = None
        try:
            done, whole = new_weights.carry_out(planned, batches.inputs())
            if done.action == "reinitialize":
                # The next observation follows after some steps. Units that are lost by then were
                # lost in training.
                self._begin_anew("" if whole else None)
        except Exception as error:
            new_weights.undo()
            done = refusal(planned, f"it failed: {error!r}")
        return batches.iterator(), [done]

    def look(
        self,
        step: int,
        updates: int,
        diagnosis: Diagnosis | None,
        verdict: Verdict,
        learned: bool | None,
    ) -> tuple[list[Intervention], dict[str, float]]:
        """Shows the run to the policies. To be called only if a flag is on.

        Args:
            step: The step on the run's axis.
            updates: The number of updates that the optimizer has applied.
            diagnosis: The diagnosis of the last reading; None without one since the last call.
            verdict: The run's verdict so far.
            learned: Whether the run has learned anything from its input; None if unknown.

        Returns:
            The interventions, and numbers to log, by tag.
        """
        if self.new_weights is not None and self.new_weights.pending is not None:
            return [], {}
        self._start()
        log, numbers = self._log(updates)
        observation = Observation(step, diagnosis, verdict, learned, log)
        done = [] if self.clipping is None else list(self.clipping.account(observation))
        done += self._acts(observation)
        if self.clipping is not None:
            self.clipping.see(log.norms)
            self.clipping.set_limits()
        return [self._marked(act) for act in done], numbers

    def state(self) -> dict[str, Any]:
        """Returns the states of the policies as JSON values."""
        return self._saved().to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Restores the states of the policies from an earlier process. `enter` follows.

        Args:
            state: A value that `state` returned; it is not trusted.

        Raises:
            ValueError: If `state` cannot have returned the value. No state is changed then.
        """
        self._saved().take_up(state)

    def _saved(self) -> SavedState:
        return SavedState(self.clipping, self.rate, self.good_states, self.new_weights)

    def _hands(self) -> Iterator[Any]:
        yield self.rate
        for hand in (self.clipping, self.good_states, self.new_weights):
            if hand is not None:
                yield hand

    def _start(self) -> None:
        """Keeps the state before the first step. Further calls do nothing."""
        if self._started or self._training is None:
            return
        self._started = True
        # A rollback could not restore slots that are created later.
        self._training.backend.build_optimizer(self._training.model, self._training.optimizer)
        if self.new_weights is not None:
            self.new_weights.start()
        if self.good_states is not None:
            self.good_states.start(self.rate.remembered)
        if self.clipping is not None:
            self.clipping.set_limits()

    def _acts(self, observation: Observation) -> Iterator[Intervention]:
        """Asks the policies in order, and yields the interventions of the first one that acts."""
        if self.new_weights is not None:
            planned = self.new_weights.decide(observation)
            if planned is not None and planned.action == "take_back_weights":
                yield from self._taken_back(self.new_weights, planned)
                return
            if planned is not None:
                yield from self._planned(self.new_weights, planned)
                if self.new_weights.pending is not None:
                    return
            if observation.learned and observation.verdict == "healthy":
                self.new_weights.let_start_go()
        if self.good_states is not None:
            decision = self.good_states.decide(observation)
            if decision.keep and not self.rate.on_trial:
                self.good_states.keep(self.rate.remembered)
            if decision.intervention is not None:
                self._roll_back(self.good_states, decision)
                yield decision.intervention
                return
        act = self.rate.decide(observation)
        if act is not None:
            yield self._tried(act)
        self.rate.apply()

    def _planned(self, new_weights: NewWeights, planned: Intervention) -> Iterator[Intervention]:
        if planned.action != "reinitialize" or self._dry_run:
            yield planned
        else:
            yield from new_weights.plan(planned)

    def _taken_back(self, new_weights: NewWeights, planned: Intervention) -> Iterator[Intervention]:
        if new_weights.take_back():
            self._begin_anew(None)
            self.rate.give_back()
            if self.good_states is not None:
                self.good_states.give_back()
            self.rate.apply()
            yield planned

    def _begin_anew(self, born: str | None) -> None:
        """Makes the other policies start again, because the model has received other weights.

        Args:
            born: How units are lost in the present weights (see `Observation.lost`); None if
                unknown.
        """
        if self.good_states is not None:
            self.good_states.renew(born, self.rate.remembered)
        self.rate.renew()
        if self.clipping is not None:
            self.clipping.renew()
            self.clipping.set_limits()

    def _roll_back(self, good_states: GoodStates, decision: Decision) -> None:
        if self._dry_run or self._training is None:
            return
        if decision.restore or decision.stop:
            self.rate.remembered = good_states.go_back()
            good_states.distrust_last()
            self.rate.lower(decision.factor)
        if decision.stop:
            self._training.model.stop_training = True

    def _tried(self, act: Intervention) -> Intervention:
        """Keeps the state before a trial of a larger rate, and restores it after a failed one."""
        if self.good_states is None or self._dry_run:
            return act
        if self.rate.on_trial:
            self.good_states.keep(self.rate.remembered)
        elif act.action == "take_back_rate":
            self.rate.remembered = self.good_states.go_back()
            self.good_states.forget()
            return dataclasses.replace(act, reason=f"{act.reason}; the weights go back with it")
        return act

    def _marked(self, act: Intervention) -> Intervention:
        return dataclasses.replace(act, dry_run=True) if self._dry_run else act

    def _log(self, updates: int) -> tuple[StepLog, dict[str, float]]:
        """Returns the log of every step since the last observation, and numbers to log, by tag."""
        assert self._training is not None
        backend, optimizer = self._training.backend, self._training.optimizer
        rate = backend.learning_rate(optimizer) * self.rate.factor
        numbers = {"gradients/learning_rate": rate}
        norms: tuple[float, ...] = ()
        clipped = skipped = 0
        seen = None if self.clipping is None else self.clipping.read()
        if seen is not None:
            norms, clipped, skipped = tuple(seen.norms.tolist()), seen.clipped, seen.skipped
            if norms:
                numbers["gradients/clipped_fraction"] = clipped / len(norms)
                numbers["gradients/skipped_steps"] = float(skipped)
        noted = self._training.controls.losses
        losses = () if noted is None else tuple(noted.read().tolist())
        stalled, self._updates = updates == self._updates, updates
        remembers = backend.momentum(optimizer)
        log = StepLog(norms, losses, clipped, skipped, stalled, rate, remembers)
        return log, numbers

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in another fit, so it drops everything that belongs to this one.
        return {**vars(self), "_training": None, "_started": True}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rescue:
        for hand in self._saved().hands().values():
            memo[id(hand.policy)] = hand.policy  # A policy never changes, and may hold layers.
        twin = Rescue.__new__(Rescue)
        vars(twin).update(copy.deepcopy(self.__getstate__(), memo))
        return twin
