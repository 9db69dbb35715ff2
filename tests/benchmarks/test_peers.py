"""The rules of others, on observations made up for them."""

import dataclasses
import math

import peers
import pytest

KERNEL = peers.Variable(
    layer="Dense",
    kernel=True,
    size=100,
    norm=1.0,
    mean=0.1,
    zeros=0.0,
    finite=True,
    weight=10.0,
    changed=True,
)
RELU = peers.Activation(
    function="relu",
    nonpositive=0.5,
    inactive=0.0,
    quiet=0.0,
    beyond_5=0.0,
    clamped=math.nan,
    bounded=math.nan,
    flat=math.nan,
)
TANH = dataclasses.replace(RELU, function="tanh", clamped=0.0, bounded=0.1, flat=0.0)


def observations(kernels=((KERNEL, KERNEL),), activations=(RELU, TANH), steps=30, **columns):
    """One observation every ten steps; the last of `kernels` repeats."""
    columns = {"loss": 1.0, "accuracy": 0.3, "rate": 0.01} | columns
    rows = [kernels[min(n, len(kernels) - 1)] for n in range(steps)]
    return [
        peers.Observation(10 * n, variables=row, activations=activations, **columns)
        for n, row in enumerate(rows)
    ]


def changed(**fields):
    return dataclasses.replace(KERNEL, **fields)


def ways(rule, seen):
    return {way for _, way in peers.PEERS[rule](seen)}


@pytest.mark.parametrize("rule", peers.PEERS)
def test_no_rule_calls_a_plain_run_sick(rule):
    assert ways(rule, observations()) == set()


@pytest.mark.parametrize(
    ("rule", "kernels"),
    [
        ("SageMaker Debugger", ((changed(mean=9e-8), KERNEL),)),
        ("AutoTrainer", ((changed(norm=9e-5), KERNEL),)),
        ("AutoTrainer, no gate", ((changed(norm=9e-5), KERNEL),)),
        ("AutoTrainer", ((changed(zeros=0.95), changed(zeros=0.5)),)),
        ("DeepDiagnosis", ((changed(mean=9e-8), KERNEL),)),
        ("DeepDiagnosis", ((changed(changed=False), KERNEL),)),
        ("DeepDiagnosis, with updates", ((changed(norm=0.9e-2), KERNEL),)),
        ("TheDeepChecker", tuple((changed(mean=1e-6 * 0.8**n),) for n in range(30))),
        ("TheDeepChecker, with updates", ((changed(norm=0.9e-1), KERNEL),)),
        ("norm < 1e-7", ((changed(norm=9e-8), KERNEL),)),
    ],
)
def test_small_gradients(rule, kernels):
    assert ways(rule, observations(kernels)) == {"vanishing"}


@pytest.mark.parametrize(
    ("rule", "kernels"),
    [
        ("SageMaker Debugger", ((changed(mean=1.1e-7), KERNEL),)),
        ("AutoTrainer", ((changed(norm=1.1e-4), KERNEL),)),
        ("AutoTrainer", ((changed(norm=9e-5), changed(norm=1e-2)),)),
        ("AutoTrainer", ((changed(zeros=0.69),),)),
        ("DeepDiagnosis", ((changed(mean=9e-8, layer="Conv2D"), KERNEL),)),
        ("DeepDiagnosis", ((changed(mean=1.1e-7), KERNEL),)),
        ("DeepDiagnosis, with updates", ((changed(norm=1.1e-2), KERNEL),)),
        ("TheDeepChecker", ((changed(mean=1e-9),),)),
        ("TheDeepChecker, with updates", ((changed(norm=1.1e-1), KERNEL),)),
        ("norm < 1e-7", ((changed(norm=1.1e-7), KERNEL),)),
    ],
)
def test_gradients_that_are_not_small_enough(rule, kernels):
    assert ways(rule, observations(kernels)) == set()


@pytest.mark.parametrize(
    ("rule", "kernels"),
    [
        ("SageMaker Debugger", ((changed(finite=False),),)),
        ("AutoTrainer", ((changed(norm=71.0), KERNEL),)),
        ("DeepDiagnosis, with updates", ((changed(norm=101.0), KERNEL),)),
        ("TheDeepChecker", tuple((changed(mean=1e6 * 1.2**n),) for n in range(30))),
        ("TheDeepChecker, with updates", ((changed(norm=101.0), KERNEL),)),
        ("norm < 1e-7", ((changed(finite=False),),)),
    ],
)
def test_large_gradients(rule, kernels):
    assert ways(rule, observations(kernels)) == {"exploding"}


@pytest.mark.parametrize(
    ("rule", "activation"),
    [
        ("SageMaker Debugger", dataclasses.replace(RELU, inactive=0.51)),
        ("SageMaker Debugger", dataclasses.replace(TANH, clamped=0.51)),
        ("DeepDiagnosis", dataclasses.replace(RELU, nonpositive=0.7)),
        ("DeepDiagnosis", dataclasses.replace(TANH, beyond_5=0.51)),
        ("TheDeepChecker", dataclasses.replace(RELU, quiet=0.51)),
        ("TheDeepChecker", dataclasses.replace(TANH, bounded=0.51)),
    ],
)
def test_dead_and_saturated_units(rule, activation):
    assert ways(rule, observations(activations=(RELU, activation))) == {"vanishing"}


def test_the_accuracy_gate_holds_back_alarms():
    small = ((changed(norm=9e-5), KERNEL),)
    for accuracy in (0.7, math.nan):
        seen = observations(small, accuracy=accuracy)
        assert ways("AutoTrainer", seen) == set()
        assert ways("AutoTrainer, no gate", seen) == {"vanishing"}
    assert ways("AutoTrainer", observations(loss=math.nan, accuracy=0.9)) == {"exploding"}


def test_autotrainer_looks_every_three_epochs():
    seen = observations(((changed(norm=9e-5), KERNEL),), steps=60)
    # An epoch is 50 steps; the first 30% of the run are not looked at.
    assert [step for step, _ in peers.autotrainer(seen)] == [180, 290, 440, 590]
