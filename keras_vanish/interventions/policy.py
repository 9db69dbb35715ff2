"""The protocols of the policies behind the `auto_*` flags. Users can write their own.

A policy decides and changes nothing. Its methods are pure functions: each takes the policy's state
of a run and the latest observations, and returns the next state. A state is None, a number, a
tuple, a mapping, or a frozen dataclass of these. So the monitor can write it to `state.json`, and a
resumed run continues with it. The return annotation of `begin` declares the type of the state.
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
    """Decides when the train step clips gradients, and to which norm: `auto_clip=...`.

    ```python
    from keras_vanish.interventions import Limits

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
        """Returns the state before the first step."""

    def after(self, state: Any, norms: Iterable[float]) -> Any:
        """Returns the state after more steps.

        Args:
            state: The state that `begin` or the previous call returned.
            norms: The global norm of each update's gradient before clipping, oldest first. A norm
                is NaN or infinite if its gradient was.
        """

    def limits(self, state: Any) -> Limits:
        """Returns the limits that the train step applies until the next call.

        Args:
            state: The state that `begin` or `after` returned.
        """


@runtime_checkable
class RatePolicy(Protocol):
    """Decides the factor that multiplies the learning rate: `auto_lr=...`.

    A subclass only has to implement `begin`, `factor` and `decide`.

    ```python
    from keras_vanish.interventions import Intervention, Observation, RatePolicy

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
        """Returns the state before the first step."""

    def factor(self, state: Any) -> float:
        """Returns the factor on the learning rate in this state: positive and finite."""
        raise NotImplementedError

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Intervention | None]:
        """Returns the next state, and the change to the rate or None.

        Args:
            state: The state that `begin` or the previous call returned.
            observation: The run since the previous call.
        """
        raise NotImplementedError

    def on_trial(self, state: Any) -> bool:
        """Returns whether the policy is trying a larger rate that it may still take back.

        With `auto_rollback`, the monitor then also restores the weights from before the trial.
        """
        return False

    def forget(self, state: Any) -> Any:
        """Returns the state after the run went back to earlier weights."""
        return state

    def renewed(self, state: Any) -> Any:
        """Returns the state after the run received new weights."""
        return self.forget(state)

    def returned(self, state: Any) -> Any:
        """Returns the state after the run received its first weights back."""
        return self.begin()

    def lowered(self, state: Any, share: float) -> Any:
        """Returns the state after a rollback multiplied the rate by `share`.

        None means that the policy does not count the multiplication. The rollback then keeps a
        factor of its own.

        Args:
            state: The state before.
            share: The factor that the rollback applied to the rate.
        """
        return None


def chosen(flag: str, given: Any, kinds: tuple[type, ...], protocol: Any = None) -> Any:
    """Returns the policy that a flag asks for; None if the flag is False.

    Args:
        flag: The name of the flag.
        given: The value that the user passed.
        kinds: The built-in policies for the flag. True selects the first one with its defaults.
        protocol: The protocol of a user's own policy; None if the flag allows none.

    Raises:
        ValueError: If `given` is neither a bool nor one of the policies.
    """
    if given is False:
        return None
    if given is True:
        return kinds[0]()
    known = kinds if protocol is None else (*kinds, protocol)
    # A class also has the methods of its instances, but is no policy.
    if isinstance(given, known) and not isinstance(given, type):
        return given
    names = [f"{kind.__name__}(...)" for kind in kinds]
    if protocol is not None:
        names.append(f"an object with the methods of {protocol.__name__}")
    raise ValueError(
        f"{flag} must be True, False or {' or '.join(names)}. Received: {flag}={given!r}."
    )


def type_of_state(policy: Any) -> Any:
    """Returns the type of a policy's state: the return annotation of `begin`.

    Without a usable annotation, it is the type of the first state.
    """
    try:
        return typing.get_type_hints(type(policy).begin)["return"]
    except (KeyError, NameError, TypeError):
        return type(policy.begin())
