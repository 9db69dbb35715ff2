"""Which objects are policies, and of which type their states are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from keras_vanish.interventions import (
    AdaptiveClipping,
    ClippingPolicy,
    Intervention,
    LearningRateControl,
    Limits,
    NormClipping,
    Observation,
    PercentileClipping,
    RatePolicy,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.clipping import NormHistory
from keras_vanish.interventions.learning_rate import RateState
from keras_vanish.interventions.policy import chosen, type_of_state
from keras_vanish.interventions.reinitialization import ReinitializationState
from keras_vanish.interventions.rollback import RollbackState

BUILT_IN = (ZScoreClipping(), PercentileClipping(), NormClipping(1.0), AdaptiveClipping())
KINDS = (ZScoreClipping, NormClipping)


class Own:
    """A clipping policy that inherits from nothing of ours."""

    def begin(self) -> float:
        return 0.0

    def after(self, state: float, norms: Iterable[float]) -> float:
        return max([state, *norms])

    def limits(self, state: float) -> Limits:
        return Limits(state, state)


class OwnRate(RatePolicy):
    """A rate policy with the three methods that it must have."""

    def begin(self) -> float:
        return 1.0

    def factor(self, state: float) -> float:
        return state

    def decide(self, state: float, observation: Observation) -> tuple[float, Intervention | None]:
        return state / 2, None


@pytest.mark.parametrize("policy", [*BUILT_IN, Own()], ids=lambda policy: type(policy).__name__)
def test_a_clipping_policy_has_three_methods(policy: Any) -> None:
    assert isinstance(policy, ClippingPolicy)
    assert policy.limits(policy.begin()) == policy.limits(policy.after(policy.begin(), []))


def test_a_rate_policy_of_ones_own_needs_three_methods() -> None:
    policy = OwnRate()
    assert isinstance(policy, RatePolicy)
    assert isinstance(LearningRateControl(), RatePolicy)
    assert not policy.on_trial(0.5)
    assert policy.forget(0.5) == policy.renewed(0.5) == 0.5
    assert policy.returned(0.5) == 1.0
    # The rollback keeps a factor of its own, then.
    assert policy.lowered(0.5, 0.1) is None


def test_what_a_flag_asks_for() -> None:
    assert chosen("auto_clip", False, KINDS) is None
    assert chosen("auto_clip", True, KINDS) == ZScoreClipping()
    given, own = NormClipping(2.0), Own()
    assert chosen("auto_clip", given, KINDS) is given
    assert chosen("auto_clip", own, KINDS, ClippingPolicy) is own


@pytest.mark.parametrize("given", ["yes", 1.0, None, Own, ZScoreClipping, object()])
def test_what_is_no_policy_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="auto_clip must be True, False or Z") as error:
        chosen("auto_clip", given, KINDS, ClippingPolicy)
    assert str(error.value) == (
        "auto_clip must be True, False or ZScoreClipping(...) or NormClipping(...) or an object "
        f"with the methods of ClippingPolicy. Received: auto_clip={given!r}."
    )
    with pytest.raises(ValueError, match=r"NormClipping\(\.\.\.\)\. Received"):
        chosen("auto_clip", given, KINDS)


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (ZScoreClipping(), NormHistory),
        (PercentileClipping(), Mapping[int, int]),
        (NormClipping(1.0), type(None)),
        (LearningRateControl(), RateState),
        (Rollback(), RollbackState),
        (Reinitialization(), ReinitializationState),
        (OwnRate(), float),
    ],
    ids=lambda part: getattr(part, "__name__", type(part).__name__),
)
def test_the_type_of_a_policys_states(policy: Any, kind: Any) -> None:
    assert type_of_state(policy) == kind


def test_without_an_annotation_the_first_state_tells_the_type() -> None:
    class Silent:
        def begin(self):  # type: ignore[no-untyped-def]
            return 3

    assert type_of_state(Silent()) is int
