"""The order in which policies are asked, and who does what they decide."""

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
    """Shows the policies of one monitor what was seen, and has done what they decide.

    At one look at most one policy acts, the most thorough one first: new weights, then a rollback,
    then the learning rate. The limits of clipping follow at each look.

    Args:
        clipping: A clipping policy, or None.
        rate: A learning-rate policy, or None.
        rollback: A rollback policy, or None.
        init: A re-initialisation policy, or None.
        dry_run: Whether nothing is done and everything is said.

    Attributes:
        clipping: The clipping and its account; None where the flag is off.
        rate: The factor on the learning rate.
        good_states: The states that a rollback goes back to; None where the flag is off.
        new_weights: The re-initialisation; None where the flag is off.
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
        """What the flags ask to have built into a train step."""
        moves_rate = self.rate.policy is not None or self.good_states is not None
        return Controls(
            guard=None if self.clipping is None else self.clipping.settings(self._dry_run),
            rate=moves_rate and not self._dry_run,
            losses=moves_rate or self.new_weights is not None,
        )

    def enter(self, training: Training) -> None:
        """Takes the training that begins."""
        self._training, self._updates = training, training.updates
        self._started = not self.asked
        for hand in self._hands():
            hand.enter(training)
        if training.model.built:
            self._start()

    def leave(self) -> None:
        """Lets go of the model, and of what was kept of it."""
        self._training = None
        for hand in self._hands():
            hand.leave()

    def before(self, iterator: Any, steps: int) -> tuple[Any, list[Intervention]]:
        """Does what needs a batch: the iterator of the next call, and what was done.

        Args:
            iterator: What the train function is about to be called with.
            steps: How many batches it takes from it.

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
                # The next look comes after some steps: units that are lost then, training has lost.
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
        """Shows the policies the run, where any was `asked` for.

        Args:
            step: The step on the run's axis.
            updates: How many updates the optimizer has applied.
            diagnosis: The last reading's; None if there is none since the last look.
            verdict: The run's verdict so far.
            learned: Whether it has learned anything; None if that cannot be told.

        Returns:
            What was done, and numbers to log, by tag.
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
        """What the policies know of the run, as JSON has it."""
        return self._saved().to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Takes up what the policies of an earlier process knew; `enter` follows.

        Args:
            state: What `state` gave; it is not trusted.

        Raises:
            ValueError: If `state` gives no such thing. Nothing is taken up then.
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
        """Notes the state before the first step; called again, it does nothing."""
        if self._started or self._training is None:
            return
        self._started = True
        # Slots that are made later could not be taken back.
        self._training.backend.build_optimizer(self._training.model, self._training.optimizer)
        if self.new_weights is not None:
            self.new_weights.start()
        if self.good_states is not None:
            self.good_states.start(self.rate.remembered)
        if self.clipping is not None:
            self.clipping.set_limits()

    def _acts(self, observation: Observation) -> Iterator[Intervention]:
        """What at most one policy does."""
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
        """Forgets what the other policies saw of weights that are gone.

        Args:
            born: What is wrong with the units of those that are there now; None if not known.
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
        """Keeps the state before a larger rate is tried, and takes the run back to it after."""
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
        """What was seen of every step since the last look, and numbers to log, by tag."""
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
        # What is bound to a fit stays with it: a copy takes part in another.
        return {**vars(self), "_training": None, "_started": True}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rescue:
        for hand in self._saved().hands().values():
            memo[id(hand.policy)] = hand.policy  # It does not change, and may hold layers.
        twin = Rescue.__new__(Rescue)
        vars(twin).update(copy.deepcopy(self.__getstate__(), memo))
        return twin
