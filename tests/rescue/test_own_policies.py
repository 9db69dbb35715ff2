"""Policies that a user writes from the docs, in real fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor
from keras_vanish.interventions import Intervention, Limits, Observation, RatePolicy

# Of Keras, where it converts variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

L = keras.layers
X, Y = load_digits(return_X_y=True)
X = np.float32(X / 16)


class TwiceTheMedian:
    """Clips to the median of the last norms where a norm is above twice that."""

    def begin(self) -> tuple[float, ...]:
        return ()

    def after(self, state: tuple[float, ...], norms: Iterable[float]) -> tuple[float, ...]:
        return (*state, *(norm for norm in norms if np.isfinite(norm)))[-50:]

    def limits(self, state: tuple[float, ...]) -> Limits:
        if len(state) < 5:
            return Limits()
        median = float(np.median(state))
        return Limits(2 * median, median)


class UnitClipping:
    """Clips each unit whose gradient is above a share of its weights."""

    def begin(self) -> None:
        return None

    def after(self, state: None, norms: Iterable[float]) -> None:
        return None

    def limits(self, state: None) -> Limits:
        return Limits(1e-4, smallest_norm=1e-3)


class HalveOnExplosion(RatePolicy):
    """Halves the rate at each look at a run that explodes."""

    def begin(self) -> float:
        return 1.0

    def factor(self, state: float) -> float:
        return state

    def decide(self, state: float, observation: Observation) -> tuple[float, Intervention | None]:
        if observation.diagnosis is None or observation.diagnosis.verdict != "exploding":
            return state, None
        reason = "gradients explode"
        after = {"factor": state / 2}
        return state / 2, Intervention(
            observation.step, "lower_rate", reason, {"factor": state}, after
        )


def net(rate: float = 0.1) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(24, "relu"), L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


def fit(model: Any, monitor: GradientMonitor, x: Any = X, epochs: int = 1) -> Any:
    return model.fit(x, Y, 32, epochs, verbose=0, shuffle=False, callbacks=[monitor])


@pytest.mark.smoke
def test_a_clipping_policy_of_ones_own_clips_an_outlier() -> None:
    x = X.copy()
    x[32 * 20 : 32 * 21] *= 1e4
    monitor = GradientMonitor(None, update_freq=5, auto_clip=TwiceTheMedian())
    history = fit(net(), monitor, x, epochs=3)
    assert "clip" in [act.action for act in monitor.interventions]
    assert history.history["accuracy"][-1] > 0.5


def test_a_clipping_policy_of_ones_own_may_clip_by_unit() -> None:
    monitor = GradientMonitor(None, update_freq=1, auto_clip=UnitClipping())
    fit(net(), monitor)
    reading = monitor.history[-1].reading
    assert reading.global_norm_after_clipping < reading.global_norm / 10


@pytest.mark.smoke
@pytest.mark.parametrize("rollback", [False, True])
def test_a_rate_policy_of_ones_own_sets_the_rate(rollback: bool) -> None:
    monitor = GradientMonitor(
        None, update_freq=1, auto_lr=HalveOnExplosion(), auto_rollback=rollback
    )
    model = net(rate=1e4)
    fit(model, monitor)
    done = [act.action for act in monitor.interventions]
    # The rollback acts first, and keeps a factor of its own: the policy leaves that to it.
    assert done[0] == ("roll_back" if rollback else "lower_rate")
    # The rate of each recorded update was the optimizer's times the factor.
    layer = monitor.history[-1].reading.layers[-1]
    factor = layer.update_rms / layer.gradient_rms / 1e4
    assert factor < 0.5
    if not rollback:
        assert factor == pytest.approx(monitor.interventions[-1].after["factor"], rel=1e-2)
    assert model.optimizer.learning_rate.numpy() == 1e4


@pytest.mark.parametrize("policy", [TwiceTheMedian, HalveOnExplosion])
def test_what_a_policy_of_ones_own_knew_is_taken_up(
    tmp_path: Path, policy: Callable[[], Any]
) -> None:
    flag = "auto_lr" if policy is HalveOnExplosion else "auto_clip"
    model = net(rate=1e3 if flag == "auto_lr" else 0.1)
    first = GradientMonitor(tmp_path, update_freq=10, **{flag: policy()})
    fit(model, first)
    model.save(tmp_path / "model.keras")
    second = GradientMonitor(tmp_path, update_freq=10, **{flag: policy()})
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(X[:32], Y[:32], 32, verbose=0, callbacks=[second])
    known = [monitor._rescue.state()["policies"] for monitor in (first, second)]
    ((name, entry),) = known[0].items()
    if flag == "auto_lr":
        # The first step of the second fit may have halved it once more.
        assert known[1][name]["state"] in (entry["state"], entry["state"] / 2)
        assert entry["state"] < 0.1
    else:
        assert known[1][name]["state"][: len(entry["state"]) - 1] == entry["state"][1:]


def test_a_policy_of_ones_own_that_fails_is_one_warning() -> None:
    class Fails(HalveOnExplosion):
        def decide(
            self, state: float, observation: Observation
        ) -> tuple[float, Intervention | None]:
            raise RuntimeError("broken")

    monitor = GradientMonitor(None, update_freq=5, auto_lr=Fails())
    with pytest.warns(UserWarning, match="broken") as caught:
        fit(net(), monitor)
    assert len(caught) == 1
