from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from factories import MakeProbed
from hypothesis import given
from hypothesis import strategies as st
from policy_runs import MakeObservation, actions, decisions

from keras_vanish.interventions import Intervention, Observation, Reinitialization

POLICY = Reinitialization()
VANISHING = [1e-9, 1e-6, 1e-3]
GROWING = VANISHING[::-1]


def run(
    observations: Iterable[Observation], policy: Reinitialization = POLICY
) -> list[Intervention | None]:
    return decisions(policy, observations)[1]


@pytest.mark.parametrize("learned", [None, False])
def test_a_run_that_vanishes_and_learns_nothing_is_reinitialised(
    make_observation: MakeObservation, learned: bool | None
) -> None:
    (act,) = run([make_observation(step=4, rms=VANISHING, losses=[2.3] * 9, learned=learned)])
    assert act is not None
    assert (act.action, act.step) == ("reinitialize", 4)
    assert act.reason == (
        "Gradients vanish on the way to the input. Starved: dense_0, dense_1. The vanishing "
        "score is 0.88. Nothing has been learned yet."
    )
    assert act.before["vanishing_score"] == pytest.approx(0.875)


def test_the_run_and_its_last_reading_must_agree(make_observation: MakeObservation) -> None:
    assert actions(run([make_observation(rms=VANISHING, verdict="unknown")] * 9)) == []
    assert actions(run([make_observation(verdict="vanishing")] * 9)) == []
    assert actions(run([make_observation(rms=VANISHING, recorded=False)] * 9)) == []


def test_gradients_that_grow_are_reinitialised(make_observation: MakeObservation) -> None:
    (act,) = run([make_observation(rms=GROWING)])
    assert act is not None
    assert act.action == "reinitialize"
    assert "Gradients explode" in act.reason
    assert "exploding score is 0.88" in act.reason


def test_updates_that_are_too_large_are_not_the_initialisers_fault(
    make_observation: MakeObservation,
) -> None:
    assert actions(run([make_observation(ratio=40.0)] * 9)) == []


def test_unless_gradients_grew_from_the_first_step_on(
    make_observation: MakeObservation, make_probed: MakeProbed
) -> None:
    growing = make_observation(ratio=40.0, probed=make_probed(rms=GROWING))
    assert growing.thrown
    assert actions(run([growing])) == ["reinitialize"]
    clipped = make_observation(
        ratio=0.1,
        rms=[0.05] * 3,
        rate=20.0,
        norms=[1.0],
        clipped=1,
        probed=make_probed(rms=GROWING),
        verdict="unknown",
    )
    assert clipped.saved_by_clipping
    (act,) = run([clipped])
    assert act is not None
    assert act.reason.startswith("Updates are 10 times the weights, without clipping. From")
    # It is the first reading that tells; later ones follow what the updates have done.
    assert actions(run([make_observation(), growing])) == []
    nan = make_observation(nan_count=9.0)
    assert actions(run([make_observation(rms=GROWING, verdict="unknown"), nan])) == ["reinitialize"]
    assert actions(run([make_observation(), nan])) == []


def test_units_that_are_lost_in_training_are_left_to_others_for_a_while(
    make_observation: MakeObservation, make_probed: MakeProbed
) -> None:
    flat = make_observation(probed=make_probed(saturated_fraction=1.0))
    assert flat.lost
    assert actions(run([flat])) == ["reinitialize"]
    found = run([make_observation(), *[flat] * 5])
    assert [place for place, act in enumerate(found) if act] == [5]
    assert actions(run([*[make_observation(), *[flat] * 4] * 3])) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_whose_losses_were_never_finite_is_reinitialised(
    make_observation: MakeObservation, bad: float
) -> None:
    observation = make_observation(losses=[bad], recorded=False, verdict="unknown")
    assert [act is not None for act in run([observation] * 3)] == [False, False, True]
    assert actions(run([make_observation(losses=[2.0]), *[observation] * 9])) == []


def test_a_run_that_never_applied_an_update_is_reinitialised(
    make_observation: MakeObservation,
) -> None:
    stalled = make_observation(losses=[2.0] * 10, stalled=True)
    assert [act is not None for act in run([stalled] * 4)] == [False, False, False, True]
    assert actions(run([make_observation(losses=[2.0]), *[stalled] * 9])) == []


def test_a_run_that_has_learned_is_refused_once(make_observation: MakeObservation) -> None:
    found = run([make_observation(rms=VANISHING, learned=True, losses=[2.3] * 9)] * 9)
    assert actions(found) == ["refuse_reinitialization"]
    assert found[0] is not None
    assert found[0].reason.endswith("But the run has learned something of its input.")


def test_a_healthy_run_is_not_even_refused(make_observation: MakeObservation) -> None:
    assert run([make_observation(learned=True)] * 9) == [None] * 9


def test_a_loss_that_has_fallen_is_refused_where_nothing_else_is_known(
    make_observation: MakeObservation,
) -> None:
    def found(level: float, learned: bool | None) -> list[str]:
        observations = [
            make_observation(losses=[2.0] * 10, learned=learned),
            make_observation(losses=[level] * 20, learned=learned),
        ]
        return actions(
            run([*observations, *[make_observation(rms=VANISHING, learned=learned)] * 9])
        )

    assert found(1.89, None) == ["refuse_reinitialization"]
    assert found(1.91, None)[0] == "reinitialize"
    # That the biases learn how frequent the labels are is not to learn of the input.
    assert found(1.0, False)[0] == "reinitialize"


def test_it_waits_while_the_probe_may_still_tell(make_observation: MakeObservation) -> None:
    observations = [
        make_observation(losses=[2.0] * 10),
        make_observation(losses=[1.0] * 20, rms=VANISHING),
        make_observation(losses=[1.0] * 20, rms=VANISHING, learned=False),
    ]
    assert [act is not None for act in run(observations)] == [False, False, True]


def test_it_is_done_twice_at_most_and_not_at_once(make_observation: MakeObservation) -> None:
    def places(apart: int) -> list[int]:
        observations = [
            make_observation(step=apart * n, rms=VANISHING, learned=False) for n in range(30)
        ]
        return [place for place, act in enumerate(run(observations)) if act]

    assert places(100)[:2] == [0, 5]
    assert places(10)[:2] == [0, 20]
    observations = [make_observation(step=100 * n, rms=VANISHING, learned=False) for n in range(30)]
    assert actions(run(observations, Reinitialization(attempts=1))).count("reinitialize") == 1


def test_what_did_not_help_is_taken_back_once(make_observation: MakeObservation) -> None:
    observations = [make_observation(step=100 * n, rms=VANISHING, learned=False) for n in range(30)]
    found = run(observations)
    assert actions(found) == ["reinitialize", "reinitialize", "take_back_weights"]
    assert [place for place, act in enumerate(found) if act] == [0, 5, 10]
    last = found[10]
    assert last is not None
    assert last.reason.endswith("With the new ones, nothing was learned in 500 steps.")
    # What is well, or has begun to learn, keeps them.
    better = [make_observation(step=100 * n, learned=False) for n in range(8, 30)]
    assert actions(run(observations[:8] + better)) == ["reinitialize"] * 2
    learning = [make_observation(step=100 * n, rms=VANISHING, learned=True) for n in range(8, 30)]
    assert actions(run(observations[:8] + learning)) == ["reinitialize"] * 2


def test_what_came_of_it_is_not_refused(make_observation: MakeObservation) -> None:
    observations = [make_observation(rms=VANISHING, learned=False)]
    observations += [make_observation(rms=VANISHING, learned=True)] * 9
    assert actions(run(observations)) == ["reinitialize"]


@given(scale=st.integers(-20, 20).map(lambda exponent: 2.0**exponent))
def test_a_factor_of_loss_and_gradient_changes_nothing(
    make_observation: MakeObservation, scale: float
) -> None:
    def found(factor: float) -> list[bool]:
        levels = [2.0, 1.95, 1.0, 0.9]
        observations = [
            make_observation(losses=[factor * level] * 12, rms=[factor * rms for rms in VANISHING])
            for level in levels
        ]
        return [act is not None for act in run(observations)]

    assert found(scale) == found(1.0)


def test_states_are_left_alone(make_observation: MakeObservation) -> None:
    state = POLICY.begin()
    kept = str(state)
    POLICY.decide(state, make_observation(rms=VANISHING, losses=[1.0] * 20))
    assert str(state) == kept


def test_layers_and_names_can_be_protected() -> None:
    layer = SimpleNamespace(name="dense")
    assert Reinitialization(protect=[layer, "head"]).protect == (layer, "head")


@pytest.mark.parametrize("protect", ["head", 3, None, {"head"}])
def test_protect_must_be_a_list(protect: Any) -> None:
    with pytest.raises(ValueError, match="protect must be a list.*Received: protect=.*Write"):
        Reinitialization(protect=protect)


@pytest.mark.parametrize("layer", [3, None, SimpleNamespace(name=3)])
def test_protect_holds_layers_or_names(layer: Any) -> None:
    with pytest.raises(ValueError, match="protect must hold layers or their names. Received: .*Gi"):
        Reinitialization(protect=["head", layer])


def test_attempts_are_checked() -> None:
    with pytest.raises(ValueError, match="attempts must be a whole number, at least 1. Received"):
        Reinitialization(attempts=0)


def test_what_is_saved_by_chance_while_gradients_grow_is_not_learning(
    make_observation: MakeObservation, make_probed: MakeProbed
) -> None:
    def observations(loss: float) -> list[Observation]:
        probed = make_probed(rms=GROWING, loss=loss, shuffled_loss=1e6)
        return [make_observation(rms=GROWING, learned=True, probed=probed)] * 9

    assert actions(run(observations(7e5)))[:1] == ["reinitialize"]
    assert actions(run(observations(4e5))) == ["reinitialize"]  # One reading is not enough.
    state = POLICY.begin()
    for observation in observations(4e5):
        state, _ = POLICY.decide(state, replace(observation, verdict="unknown"))
    _, act = POLICY.decide(state, observations(4e5)[0])
    assert act is not None
    assert act.action == "refuse_reinitialization"
