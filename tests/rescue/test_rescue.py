"""The flags in real fits: what they do to a sick run, and that they leave a calm one alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow import installation
from keras_vanish.capture.tensorflow.backend import BACKEND
from keras_vanish.capture.tensorflow.control.guard import Guard
from keras_vanish.interventions import (
    AdaptiveClipping,
    Intervention,
    LearningRateControl,
    NormClipping,
    Observation,
    PercentileClipping,
    Reinitialization,
    Rollback,
    ZScoreClipping,
)
from keras_vanish.interventions.learning_rate import RateState
from keras_vanish.rescue import new_weights

L = keras.layers
Array = npt.NDArray[Any]
X, Y = load_digits(return_X_y=True)
X = np.float32(X / 16)
ALL = {"auto_clip": True, "auto_lr": True, "auto_rollback": True, "auto_init": True}


def net(
    optimizer: Any,
    depth: int = 2,
    activation: str = "relu",
    start: Any = "he_normal",
    norm: bool = False,
    **options: Any,
) -> Any:
    keras.utils.set_random_seed(0)
    inner: list[Any] = []
    for _ in range(depth):
        inner.append(L.Dense(24, activation, kernel_initializer=start))
        if norm:
            inner += [L.BatchNormalization(), L.Dropout(0.2)]
    model = keras.Sequential([keras.Input((64,)), *inner, L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def state(model: Any) -> list[Array]:
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def fit(model: Any, *callbacks: Any, x: Any = X, steps: int = 28, epochs: int = 1) -> Any:
    count = 32 * steps
    return model.fit(
        x[:count], Y[:count], 32, epochs, verbose=0, shuffle=False, callbacks=list(callbacks)
    )


def actions(monitor: GradientMonitor) -> list[str]:
    return [intervention.action for intervention in monitor.interventions]


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "adam": (lambda: keras.optimizers.Adam(0.01), {}),
    "accumulating": (lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), {}),
    "clipped": (lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0), {}),
    "schedule": (
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 50)),
        {},
    ),
    # Another function runs the steps that are not recorded.
    "two functions": (lambda: keras.optimizers.Adam(0.01), {}),
    "executions": (lambda: keras.optimizers.Adam(0.01), {"steps_per_execution": 7}),
    "loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
        {},
    ),
    "xla": (lambda: keras.optimizers.Adam(0.01), {"jit_compile": True}),
    "xla momentum": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        {"jit_compile": True},
    ),
    "eager": (lambda: keras.optimizers.Adam(0.01), {"run_eagerly": True}),
}


SMOKE, SOAK = pytest.mark.smoke, pytest.mark.soak
MARKS = {"adam": SMOKE, "loss scale": SMOKE, "xla momentum": SOAK}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=MARKS.get(case, ())) for case in sorted(CASES)]
)
def test_a_calm_run_ends_bit_for_bit_as_without(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, options = CASES[case]
    if case in ("two functions", "executions"):
        monkeypatch.setattr(installation, "SHORT_RUN", 2)
    steps = 6 if case == "eager" else 28
    plain, watched = (net(optimizer(), norm=True, **options) for _ in range(2))
    history = fit(plain, steps=steps)
    monitor = GradientMonitor(None, update_freq=5, **ALL)
    found = fit(watched, monitor, steps=steps)
    assert monitor.interventions == []
    assert len(monitor.history) >= 2
    for one, other in zip(state(plain), state(watched)):
        np.testing.assert_array_equal(one, other)
    assert history.history["loss"] == found.history["loss"]
    inner = getattr(watched.optimizer, "inner_optimizer", watched.optimizer)
    for name in ("apply", "_get_current_learning_rate"):
        assert name not in vars(inner)
    assert "compute_loss" not in vars(watched)


@pytest.mark.parametrize(
    "jit_compile",
    [pytest.param(False, marks=SMOKE), pytest.param(True, marks=SOAK)],
)
def test_nan_in_one_batch_is_skipped(jit_compile: bool) -> None:
    x = X.copy()
    x[32 * 11 + 3] = np.nan
    lost = net(keras.optimizers.Adam(0.01))
    fit(lost, x=x)
    assert not np.isfinite(lost.get_weights()[0]).all()
    model = net(keras.optimizers.Adam(0.01), norm=True, jit_compile=jit_compile)
    monitor = GradientMonitor(None, update_freq=5, auto_clip=True)
    seen = []
    batch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(logs))
    history = fit(model, monitor, batch, keras.callbacks.TerminateOnNaN(), x=x)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert actions(monitor) == ["skip"]
    # The metrics are those of the batches that were used.
    assert len(seen) == 28
    assert all(math.isfinite(logs["loss"]) for logs in seen)
    assert history.history["accuracy"][0] > 0.4
    assert math.isfinite(model.evaluate(X, Y, verbose=0)[0])


def test_an_exploding_step_is_clipped_before_it_touches_the_weights() -> None:
    x = X.copy()
    x[32 * 20 : 32 * 21] *= 1e4
    ends = {}
    for clip in (False, True):
        model = net(keras.optimizers.SGD(0.1))
        monitor = GradientMonitor(None, update_freq=10, auto_clip=clip)
        ends[clip] = fit(model, monitor, x=x, epochs=2).history["accuracy"][-1]
    assert ends[False] < 0.3
    assert ends[True] > 0.5
    assert actions(monitor)[0] == "clip"
    assert "of 10 updates" in monitor.interventions[0].reason


def test_limits_of_each_policy_reach_the_graph() -> None:
    for clip in (NormClipping(0.01), PercentileClipping(), AdaptiveClipping(0.001)):
        model = net(keras.optimizers.SGD(0.1))
        monitor = GradientMonitor(None, update_freq=1, auto_clip=clip)
        fit(model, monitor, steps=6)
        assert actions(monitor)[0] == "clip"
        reading = monitor.history[-1].reading
        assert reading.global_norm_after_clipping < reading.global_norm
    model = net(keras.optimizers.SGD(0.1))
    monitor = GradientMonitor(None, update_freq=1, auto_clip=NormClipping(0.01))
    fit(model, monitor, steps=3)
    reading = monitor.history[-1].reading
    assert reading.global_norm_after_clipping == pytest.approx(0.01, rel=1e-3)


def test_the_bound_without_history_follows_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    limit = Guard.limit

    def watched(guard: Guard, fires_above: float, clips_to: float, reach: float) -> None:
        bounds.append(reach)
        limit(guard, fires_above, clips_to, reach)

    norms: list[float] = []
    model = net(keras.optimizers.SGD(0.1))

    def note(step: int, logs: Any) -> None:
        norms.append(float(tf.linalg.global_norm([v.value for v in model.trainable_variables])))

    monkeypatch.setattr(Guard, "limit", watched)
    monitor = GradientMonitor(None, update_freq=1, auto_clip=True)
    note(0, None)
    fit(model, monitor, keras.callbacks.LambdaCallback(on_train_batch_end=note), steps=5)
    assert len(set(bounds)) == len(bounds) == 6
    np.testing.assert_allclose(bounds, np.array(norms) * ZScoreClipping().reach, rtol=1e-6)


@pytest.mark.smoke
def test_a_rate_that_is_too_large_is_lowered_after_going_back() -> None:
    lost = net(keras.optimizers.Adam(3.0))
    fit(lost, epochs=4)
    model = net(keras.optimizers.Adam(3.0))
    monitor = GradientMonitor(None, update_freq=10, auto_lr=True, auto_rollback=True)
    history = fit(model, monitor, epochs=4)
    assert lost.history.history["accuracy"][-1] < 0.5 < history.history["accuracy"][-1]
    first = monitor.interventions[0]
    assert (first.step, first.action) == (0, "roll_back")
    assert first.after["learning_rate"] < 0.1
    # The optimizer is as it was found.
    assert model.optimizer.learning_rate.numpy() == 3.0


@dataclasses.dataclass(frozen=True)
class Tries(LearningRateControl):
    """Tries a larger rate at step 10, and finds at step 20 that it was too large."""

    def decide(
        self, state: RateState, observation: Observation
    ) -> tuple[RateState, Intervention | None]:
        if observation.step == 10:
            state = dataclasses.replace(state, factor=0.5, before=0.25)
            return state, Intervention(10, "restore_rate", "on trial")
        if observation.step == 20:
            state = dataclasses.replace(state, factor=0.25, before=math.nan)
            return state, Intervention(20, "take_back_rate", "it is worse")
        return state, None


@pytest.mark.parametrize("how", [{"auto_rollback": Rollback(every=1)}, {}, {"dry_run": True}])
def test_a_trial_that_failed_leaves_no_trace(how: dict[str, Any]) -> None:
    model = net(keras.optimizers.SGD(0.1, momentum=0.9), norm=True)
    monitor = GradientMonitor(None, update_freq=5, auto_lr=Tries(), **how)
    weights: list[list[Array]] = []
    slots: list[list[Array]] = []

    def note(batch: int, logs: Any) -> None:
        weights.append([v.numpy() for v in model.variables])
        slots.append([v.numpy() for v in model.optimizer.momentums])

    fit(model, monitor, keras.callbacks.LambdaCallback(on_train_batch_end=note), steps=22)
    assert actions(monitor) == ["restore_rate", "take_back_rate"]
    # Another state that was kept meanwhile is that of the trial.
    same = all(map(np.array_equal, weights[10], weights[20]))
    assert same == ("auto_rollback" in how)
    if same:
        # They hold the rate that there is now, half of that of the trial.
        for one, other in zip(slots[10], slots[20]):
            np.testing.assert_allclose(one, 2 * other, rtol=1e-6)
    assert ("the weights go back with it" in monitor.interventions[1].reason) == same


@pytest.mark.smoke
def test_what_is_left_of_the_larger_rate_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    correct = BACKEND.correct_momentum

    def noted(optimizer: Any, share: float) -> None:
        shares.append(share)
        correct(optimizer, share)

    monkeypatch.setattr(BACKEND, "correct_momentum", noted, raising=True)
    model = net(keras.optimizers.SGD(100.0, momentum=0.9))
    monitor = GradientMonitor(None, update_freq=5, auto_lr=True, auto_rollback=True)
    fit(model, monitor)
    assert "roll_back" in actions(monitor)
    rates = [act.after["learning_rate"] for act in monitor.interventions]
    # In all, what there is now is that of the last rate.
    assert np.prod(shares) == pytest.approx(rates[-1] / 100.0)


#: Of Keras, where it converts variables.
ARRAY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@ARRAY
def test_a_callback_that_sets_the_rate_and_the_factor_do_not_fight() -> None:
    model = net(keras.optimizers.SGD(50.0))
    rates: list[float] = []

    def schedule(epoch: int, rate: float) -> float:
        rates.append(rate)
        return rate / 2

    monitor = GradientMonitor(None, update_freq=10, auto_lr=True, auto_rollback=True)
    fit(model, monitor, keras.callbacks.LearningRateScheduler(schedule), epochs=3)
    assert rates == [50.0, 25.0, 12.5]
    assert "roll_back" in actions(monitor)


def test_after_too_many_restores_training_is_stopped() -> None:
    model = net(keras.optimizers.SGD(0.1))
    x = np.full_like(X, np.nan)
    monitor = GradientMonitor(None, update_freq=5, auto_rollback=Rollback(attempts=1))
    history = fit(model, monitor, x=x, epochs=20)
    assert actions(monitor)[-1] == "stop"
    assert len(history.epoch) < 20
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@ARRAY
def test_the_last_good_state_is_written_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    model = net(keras.optimizers.Adam(0.01))
    monitor = GradientMonitor(None, update_freq=5, auto_rollback=Rollback(folder=folder, every=10))
    fit(model, monitor)
    other = net(keras.optimizers.Adam(0.01))
    other.optimizer.build(other.trainable_variables)
    (path,) = folder.iterdir()
    other.load_weights(path)
    assert np.isfinite(other.get_weights()[0]).all()
    assert not np.array_equal(
        other.get_weights()[0], net(keras.optimizers.Adam(0.01)).get_weights()[0]
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=SMOKE),
        pytest.param({"jit_compile": True}, marks=SOAK),
        {"steps_per_execution": 4},
    ],
)
def test_a_deep_sigmoid_network_begins_to_learn(options: dict[str, Any]) -> None:
    model = net(keras.optimizers.Adam(0.01), 8, "sigmoid", "glorot_uniform", **options)
    monitor = GradientMonitor(None, update_freq=5, auto_init=True)
    batches: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: batches.append(b))
    history = fit(model, monitor, count, epochs=6)
    assert actions(monitor) == ["reinitialize"]
    assert history.history["accuracy"][-1] > 0.8
    # Each epoch has all of its batches; Keras 3.4 gives the first of a call, not the last.
    steps = options.get("steps_per_execution", 1)
    assert [batch // steps for batch in batches] == [*range(28 // steps)] * 6
    done = monitor.interventions[0]
    assert set(done.after) == set(done.before) == {layer.name for layer in model.layers}
    assert done.after != done.before


def test_slots_are_those_of_the_start_again() -> None:
    # Nothing builds this optimizer before the first step.
    model = net(
        keras.optimizers.SGD(0.01, momentum=0.9),
        8,
        "linear",
        keras.initializers.RandomNormal(stddev=2.0),
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), model.loss)
    monitor = GradientMonitor(None, update_freq=5, auto_clip=True, auto_init=True)
    found = fit(model, monitor, epochs=2)
    assert "reinitialize" in actions(monitor)
    assert found.history["loss"][-1] < 2.0


def test_new_weights_that_the_rate_kills_are_taken_back_with_a_lower_one() -> None:
    # From new weights, too, a few updates at this rate leave dead units: the first look after
    # them must not take those for born so.
    model = net(keras.optimizers.SGD(0.7, momentum=0.9), 6, start=keras.initializers.Constant(-1))
    monitor = GradientMonitor(None, update_freq=10, auto_init=True, auto_rollback=True)
    fit(model, monitor, epochs=2)
    assert actions(monitor)[:2] == ["reinitialize", "roll_back"]
    assert "training itself led to this" in monitor.interventions[1].reason
    assert monitor.interventions[1].step < 60


def in_front_of_a_frozen_stack(rate: float) -> Any:
    """A model that new weights do not help: what loses the signal is frozen."""
    keras.utils.set_random_seed(0)
    lost = {"trainable": False, "kernel_initializer": keras.initializers.Constant(0.01)}
    frozen = [L.Dense(24, "sigmoid", **lost) for _ in range(4)]
    model = keras.Sequential(
        [keras.Input((64,)), L.Dense(24, name="first"), *frozen, L.Dense(10, name="last")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
    return model


def test_weights_that_did_not_help_are_taken_back() -> None:
    # At this rate nothing else changes the weights.
    model = in_front_of_a_frozen_stack(0.0)
    before, between = state(model), []
    seen = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: between.append(model.get_weights()[0])
    )
    init = Reinitialization(attempts=1)
    flags = {"auto_init": init, "auto_rollback": True, "auto_lr": True, "auto_clip": True}
    monitor = GradientMonitor(None, update_freq=20, **flags)
    fit(model, monitor, seen, epochs=10)
    assert monitor.verdict == "vanishing"
    assert actions(monitor) == ["reinitialize", "take_back_weights"]
    assert "took the new weights back" in monitor.interventions[1].sentence()
    first, last = (act.step for act in monitor.interventions)
    changed = [not np.array_equal(kernel, before[0]) for kernel in between]
    assert changed == [first < step < last for step in range(len(changed))]
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_with_the_first_weights_the_rate_is_the_users_again() -> None:
    model = in_front_of_a_frozen_stack(0.1)

    @dataclasses.dataclass(frozen=True)
    class Lowers(LearningRateControl):
        def decide(
            self, state: RateState, observation: Observation
        ) -> tuple[RateState, Intervention | None]:
            if observation.step != 60:
                return state, None
            return dataclasses.replace(state, factor=0.25), Intervention(60, "lower_rate", "test")

    flags = {"auto_init": Reinitialization(attempts=1), "auto_rollback": True}
    monitor = GradientMonitor(None, update_freq=20, auto_lr=Lowers(), **flags)
    factors: dict[int, float] = {}

    def note(batch: int, logs: Any) -> None:
        factors[len(factors)] = monitor._session._watched.controls.factor.value

    fit(model, monitor, keras.callbacks.LambdaCallback(on_train_batch_end=note), epochs=10)
    (back,) = (act.step for act in monitor.interventions if act.action == "take_back_weights")
    assert factors[back - 1] == 0.25
    assert factors[back] == 1.0


@pytest.mark.parametrize("how", ["dry_run", "refused"])
def test_nothing_is_taken_back_where_nothing_was_done(how: str) -> None:
    plain, watched = (in_front_of_a_frozen_stack(0.01) for _ in range(2))
    fit(plain, epochs=10)
    init = Reinitialization(attempts=1, protect=["first", "last"] if how == "refused" else [])
    monitor = GradientMonitor(None, update_freq=20, auto_init=init, dry_run=how == "dry_run")
    fit(watched, monitor, epochs=10)
    refused = ["refuse_reinitialization"]
    assert actions(monitor) == (["reinitialize"] if how == "dry_run" else refused)
    if how == "dry_run":
        for one, other in zip(state(plain), state(watched)):
            np.testing.assert_array_equal(one, other)
    else:
        # Training went on from the first weights, at the step of the refusal.
        assert not np.array_equal(
            watched.get_weights()[0], in_front_of_a_frozen_stack(0.0).get_weights()[0]
        )


class Late(keras.Model):
    """Has no weights before its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [L.Dense(24, "sigmoid") for _ in range(8)]
        self.head = L.Dense(10)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.inner:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("eager", [False, True])
def test_a_model_that_is_built_in_its_first_step(eager: bool) -> None:
    keras.utils.set_random_seed(0)
    model = Late()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5.0), loss, run_eagerly=eager)
    starts: list[Array] = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            assert not model.built

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            starts.append(model.get_weights()[0])

    monitor = GradientMonitor(None, update_freq=1, auto_rollback=True)
    fit(model, monitor, Note(), steps=2)
    assert actions(monitor)[0] == "roll_back"
    # Before the first step they were small; after it, 5 apart from that.
    assert np.abs(starts[0]).max() < 1


def test_protected_layers_keep_their_weights() -> None:
    model = net(keras.optimizers.SGD(0.01), 8, "sigmoid", "glorot_uniform")
    kernel = model.layers[2].kernel.numpy()
    name = model.layers[2].name
    monitor = GradientMonitor(None, update_freq=5, auto_init=Reinitialization(protect=[name]))
    fit(model, monitor, steps=14)
    assert actions(monitor) == ["reinitialize"]
    assert name not in monitor.interventions[0].after
    np.testing.assert_allclose(model.layers[2].kernel.numpy(), kernel, atol=0.01)


def test_a_model_that_was_trained_before_is_not_reinitialised() -> None:
    model = net(keras.optimizers.SGD(0.01), 8, "sigmoid", "glorot_uniform")
    fit(model, steps=2)
    monitor = GradientMonitor(None, update_freq=5, auto_init=True)
    fit(model, monitor, epochs=2)
    assert actions(monitor) == ["refuse_reinitialization"]
    assert "trained before" in monitor.interventions[0].reason


def test_pretrained_layers_keep_their_weights() -> None:
    model = net(keras.optimizers.SGD(0.01), 8, "sigmoid", "glorot_uniform")
    for layer in model.layers:
        layer.bias.assign(layer.bias + 0.1)
    monitor = GradientMonitor(None, update_freq=5, auto_init=True)
    fit(model, monitor)
    assert actions(monitor) == ["refuse_reinitialization"]
    assert "pretrained" in monitor.interventions[0].reason


def test_a_dry_run_only_says_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    def make() -> Any:
        return net(keras.optimizers.Adam(3.0), 8, "sigmoid", "glorot_uniform")

    plain, watched = make(), make()
    fit(plain)
    monitor = GradientMonitor(None, update_freq=5, dry_run=True, **ALL)
    fit(watched, monitor)
    for one, other in zip(state(plain), state(watched)):
        np.testing.assert_array_equal(one, other)
    assert monitor.interventions
    assert all(intervention.dry_run for intervention in monitor.interventions)
    assert "would" in capsys.readouterr().out


def test_the_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = net(keras.optimizers.Adam(0.01), 8, "sigmoid", "glorot_uniform")
    monitor = GradientMonitor(tmp_path, update_freq=5, **ALL)
    fit(model, monitor)
    assert monitor.interventions
    lines = (tmp_path / "gradients" / "interventions.jsonl").read_text().splitlines()
    assert [Intervention.from_json(line) for line in lines] == monitor.interventions
    assert all(json.loads(line)["reason"] for line in lines)
    printed = capsys.readouterr().out
    assert printed.count("GradientMonitor: ") == len(lines)
    assert monitor.interventions[0].sentence() in printed
    assert "re-initialised" in monitor.summary(width=200)


def test_a_failure_to_reinitialise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, *args: Any, **options: Any) -> Any:
        model.layers[0].kernel.assign(model.layers[0].kernel * 0)
        raise RuntimeError("broken")

    monkeypatch.setattr(new_weights, "reinitialize", fail)
    model = net(keras.optimizers.SGD(0.01), 8, "sigmoid", "glorot_uniform")
    kernel = model.layers[0].kernel.numpy()
    monitor = GradientMonitor(None, update_freq=5, auto_init=True)
    fit(model, monitor)
    assert actions(monitor)[0] == "refuse_reinitialization"
    assert "broken" in monitor.interventions[0].reason
    np.testing.assert_allclose(model.layers[0].kernel.numpy(), kernel, atol=0.01)


@ARRAY
def test_callbacks_that_save_go_on(tmp_path: Path) -> None:
    x = X.copy()
    x[32 * 11 + 3] = np.nan
    model = net(keras.optimizers.Adam(3.0))
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    monitor = GradientMonitor(None, update_freq=5, **ALL)
    fit(model, monitor, saving, backup, x=x, epochs=2)
    assert {"roll_back", "skip"} <= set(actions(monitor))
    loaded = keras.saving.load_model(tmp_path / "2.keras")
    for one, other in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, other)
    again = net(keras.optimizers.Adam(3.0))
    history = fit(again, GradientMonitor(None, update_freq=5, **ALL), backup, epochs=3)
    assert history.epoch == [2]


def test_a_failure_of_a_policy_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(keras.optimizers.Adam(0.01))
    monitor = GradientMonitor(None, update_freq=5, auto_lr=True)

    def fail(*args: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(LearningRateControl, "decide", fail)
    with pytest.warns(UserWarning, match="broken") as caught:
        fit(model, monitor)
    assert len(caught) == 1


def test_a_custom_loop_is_guarded() -> None:
    model = net(keras.optimizers.SGD(0.1), 8, "sigmoid", "glorot_uniform")
    monitor = GradientMonitor(
        None, update_freq=2, auto_clip=NormClipping(0.01), auto_lr=True, auto_init=True
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(value, weights), weights))

    with monitor.watch(model):
        for place in range(0, 320, 32):
            train_step(X[place : place + 32], Y[place : place + 32])
            monitor.step()
    assert actions(monitor)[0] == "clip"
    assert "custom training loop" in monitor.interventions[1].reason


@pytest.mark.parametrize("flag", ["auto_clip", "auto_lr", "auto_rollback", "auto_init"])
@pytest.mark.parametrize("value", ["yes", 1.0, None, object()])
def test_a_flag_is_a_bool_or_a_policy(flag: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{flag} must be True, False or .* Received: {flag}="):
        GradientMonitor(None, **{flag: value})
