"""What a policy is: the rules that the flags `auto_*` follow, and that a user may write anew.

A policy decides and touches nothing. Its methods are pure functions: each takes the state that the
policy keeps of a run and what was seen since, and returns the next state. The state is None, a
number, a tuple, a mapping, or a frozen dataclass of these: so it can be written to `state.json`,
and a run that another process takes up goes on with it. The annotation of what `begin` returns
says of which type it is.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from keras_vanish.interventions.clipping.limits import Limits
from keras_vanish.interventions.intervention import Intervention
from keras_vanish.interventions.observation import Observation


@runtime_checkable
class ClippingPolicy(Protocol):
    """Decides when the train step clips gradients, and to what: `auto_clip=...`.

    ```python
    class TwiceTheLargest:
        def begin(self) -> float:
            return 0.0

        def after(self, state: float, norms) -> float:
            return max([state, *(norm for norm in norms if norm < float("inf"))])

        def limits(self, state: float) -> Limits:
            return Limits(2 * state, state) if state else Limits()

    GradientMonitor("logs", auto_clip=TwiceTheLargest())
    ```
    """

    def begin(self) -> Any:
        """The state before the first step."""

    def after(self, state: Any, norms: Iterable[float]) -> Any:
        """The state after more steps.

        Args:
            state: What `begin` or the last call gave.
            norms: The global norm of the gradient before clipping, one an update, oldest first.
                A norm is not finite where the gradient was not.
        """

    def limits(self, state: Any) -> Limits:
        """What the train step works with until the next call."""


@runtime_checkable
class RatePolicy(Protocol):
    """Decides what the learning rate is multiplied by: `auto_lr=...`.

    A class that inherits from this one needs `begin`, `factor` and `decide` only.

    ```python
    class HalveOnExplosion(RatePolicy):
        def begin(self) -> float:
            return 1.0

        def factor(self, state: float) -> float:
            return state

        def decide(self, state: float, observation: Observation):
            if observation.verdict != "exploding":
                return state, None
            reason = "gradients explode"
            return state / 2, Intervention(observation.step, "lower_rate", reason)

    GradientMonitor("logs", auto_lr=HalveOnExplosion())
    ```
    """

    def begin(self) -> Any:
        """The state before the first step."""

    def factor(self, state: Any) -> float:
        """What the learning rate is multiplied by in this state: positive and finite."""
        raise NotImplementedError

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Intervention | None]:
        """The next state, and what is done to the rate, if anything.

        Args:
            state: What `begin` or the last call gave.
            observation: What was seen since.
        """
        raise NotImplementedError

    def on_trial(self, state: Any) -> bool:
        """Whether a larger rate is being tried, and may be taken back.

        With `auto_rollback`, the weights from before the trial go back with the rate.
        """
        return False

    def forget(self, state: Any) -> Any:
        """The state after the run was taken back to earlier weights."""
        return state

    def renewed(self, state: Any) -> Any:
        """The state after the run was given new weights."""
        return self.forget(state)

    def returned(self, state: Any) -> Any:
        """The state after the run was given its first weights back."""
        return self.begin()

    def lowered(self, state: Any, share: float) -> Any:
        """The state after the run was taken back and its rate multiplied by `share`.

        None leaves the multiplication to the rollback, which keeps a factor of its own.
        """
        return None


def chosen(flag: str, given: Any, kinds: tuple[type, ...], protocol: Any = None) -> Any:
    """The policy that a flag asks for.

    Args:
        flag: The name of the flag.
        given: What the user gave.
        kinds: The policies that there are for it. The first one's default stands for True.
        protocol: What a policy of the user's own must have the methods of; None if there is none.

    Returns:
        None for False.

    Raises:
        ValueError: If `given` is neither True nor False nor one of the policies.
    """
    if given is False:
        return None
    if given is True:
        return kinds[0]()
    known = kinds if protocol is None else (*kinds, protocol)
    # A class has the methods that its objects have.
    if isinstance(given, known) and not isinstance(given, type):
        return given
    names = [f"{kind.__name__}(...)" for kind in kinds]
    if protocol is not None:
        names.append(f"an object with the methods of {protocol.__name__}")
    raise ValueError(
        f"{flag} must be True, False or {' or '.join(names)}. Received: {flag}={given!r}."
    )


def type_of_state(policy: Any) -> Any:
    """The type of the states of a policy, as the annotation of its `begin` gives it."""
    try:
        return typing.get_type_hints(type(policy).begin)["return"]
    except (KeyError, NameError, TypeError):
        return type(policy.begin())
