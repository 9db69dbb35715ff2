"""Train steps that apply several optimizers: each is read, and told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from digit_images import digits
from fits import assert_identical

from keras_vanish import GradientMonitor, read
from keras_vanish.capture.tensorflow.optimizers import optimizers_of
from keras_vanish.logs.run_folders import runs

L = keras.layers
Array = npt.NDArray[Any]

QUIET: dict[str, Any] = {"update_freq": 2, "probe": False}


class GAN(keras.Model):
    """Two networks, trained one after the other in each step."""

    def __init__(self, critic_steps: int = 1) -> None:
        super().__init__()
        self.discriminator = keras.Sequential(
            [
                keras.Input((64,)),
                L.Dense(12, activation="relu", name="see"),
                L.Dense(1, name="judge"),
            ],
            name="discriminator",
        )
        self.generator = keras.Sequential(
            [
                keras.Input((4,)),
                L.Dense(12, activation="tanh", name="mix"),
                L.Dense(64, name="draw"),
            ],
            name="generator",
        )
        self.critic_steps = critic_steps
        self.seeds = keras.random.SeedGenerator(3)

    def compile(self, d_optimizer: Any, g_optimizer: Any, **options: Any) -> None:
        super().compile(**options)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def train_step(self, real: tf.Tensor) -> dict[str, tf.Tensor]:
        for _ in range(self.critic_steps):
            d_loss, gradients = self.d_gradients(real, self.noise(real))
            self.d_optimizer.apply_gradients(zip(gradients, self.discriminator.trainable_variables))
        g_loss, gradients = self.g_gradients(self.noise(real))
        self.g_optimizer.apply_gradients(zip(gradients, self.generator.trainable_variables))
        return {"d_loss": d_loss, "g_loss": g_loss}

    def noise(self, real: tf.Tensor) -> tf.Tensor:
        return keras.random.normal((tf.shape(real)[0], 4), seed=self.seeds)

    def d_gradients(self, real: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            fake = self.discriminator(self.generator(noise))
            loss = tf.reduce_mean(tf.nn.softplus(fake))
            loss += tf.reduce_mean(tf.nn.softplus(-self.discriminator(real)))
        return loss, tape.gradient(loss, self.discriminator.trainable_variables)

    def g_gradients(self, noise: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            fake = self.discriminator(self.generator(noise))
            loss = tf.reduce_mean(tf.nn.softplus(-fake))
        return loss, tape.gradient(loss, self.generator.trainable_variables)


def gan(critic_steps: int = 1, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = GAN(critic_steps)
    options.setdefault("jit_compile", False)
    options.setdefault("d_optimizer", keras.optimizers.Adam(0.01))
    options.setdefault("g_optimizer", keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1))
    model.compile(**options)
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 1) -> Any:
    x = digits(48)[0]
    return model.fit(
        x, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def of(monitor: GradientMonitor, name: str) -> list[Any]:
    return [diagnosis for diagnosis in monitor.history if diagnosis.optimizer == name]


LAYERS = {
    "d_optimizer": ("discriminator/see", "discriminator/judge"),
    "g_optimizer": ("generator/mix", "generator/draw"),
}


@pytest.mark.parametrize(
    "mode",
    [
        {"steps_per_execution": 3},
        {"run_eagerly": True},
        pytest.param({"jit_compile": True, "critic_steps": 2}, marks=pytest.mark.soak),
    ],
)
def test_both_optimizers_of_a_gan_are_read_and_nothing_is_changed(
    mode: dict[str, Any], tmp_path: Path
) -> None:
    plain, model, reference = gan(**mode), gan(**mode), gan()
    fit(plain)
    monitor = GradientMonitor(tmp_path, **QUIET)
    logs = fit(model, monitor).history
    theirs, ours = (
        [
            variable.numpy()
            for part in (each, each.d_optimizer, each.g_optimizer)
            for variable in part.variables
        ]
        for each in (plain, model)
    )
    assert_identical(theirs, ours)
    assert list(runs(tmp_path)) == sorted(path.name for path in tmp_path.iterdir()) == [*LAYERS]
    for name, layers in LAYERS.items():
        assert of(monitor, name)[0].reading.names == layers
        assert read(tmp_path / name) == of(monitor, name)
    last = [of(monitor, name)[-1] for name in LAYERS]
    assert logs["exploding_score"] == [max(d.exploding_score for d in last)]
    assert not hasattr(model.train_function, "remove")
    if "critic_steps" not in mode:
        assert [d.step for d in monitor.history] == [0, 0, 2, 2, 4, 4]
        check_first(monitor, reference)


def check_first(monitor: GradientMonitor, reference: GAN) -> None:
    """Compares the first readings with what tapes say."""
    real = tf.constant(digits(8)[0])
    _, d_gradients = reference.d_gradients(real, reference.noise(real))
    variables = reference.discriminator.trainable_variables
    reference.d_optimizer.apply_gradients(zip(d_gradients, variables))
    _, g_gradients = reference.g_gradients(reference.noise(real))
    for name, gradients in (("d_optimizer", d_gradients), ("g_optimizer", g_gradients)):
        norms = [tf.linalg.global_norm(gradients[i : i + 2]).numpy() for i in (0, 2)]
        first = of(monitor, name)[0].reading
        np.testing.assert_allclose([n.gradient_norm for n in first.layers], norms, rtol=1e-4)


def test_verdicts_and_summary_tell_each_optimizer() -> None:
    model = gan(g_optimizer=keras.optimizers.SGD(1e30), run_eagerly=True)
    monitor = GradientMonitor(None, update_freq=1, probe=False)
    assert (monitor.verdict, monitor.verdicts) == ("unknown", {})
    fit(model, monitor)
    assert set(monitor.verdicts) == {"d_optimizer", "g_optimizer"}
    assert monitor.verdict == "nonfinite"
    assert monitor.verdict in monitor.verdicts.values()
    summary = monitor.summary(width=100)
    assert summary.index("d_optimizer\n") < summary.index("discriminator/see")
    assert summary.index("g_optimizer\n") < summary.index("generator/mix")


def test_steps_of_each_optimizer_go_on_over_fits(tmp_path: Path) -> None:
    monitor = GradientMonitor(tmp_path, update_freq=4, probe=False)
    model = gan()
    fit(model, monitor)
    fit(model, monitor)
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1))
    fit(model, monitor)
    for name in ("d_optimizer", "g_optimizer"):
        assert [d.step for d in of(monitor, name)] == [0, 4, 6, 10, 11, 15]
        assert read(tmp_path / name) == of(monitor, name)


def test_a_gan_is_read_at_the_end_of_each_epoch() -> None:
    monitor = GradientMonitor(None, update_freq="epoch", probe=False)
    fit(gan(run_eagerly=True), monitor, epochs=2)
    for name in ("d_optimizer", "g_optimizer"):
        assert [d.step for d in of(monitor, name)] == [5, 11]


def test_the_compiled_optimizer_has_the_name_that_the_model_gives_it() -> None:
    class Compiled(GAN):
        def compile(self, d_optimizer: Any, g_optimizer: Any, **options: Any) -> None:
            super().compile(d_optimizer, g_optimizer, optimizer=g_optimizer, **options)

    keras.utils.set_random_seed(0)
    model = Compiled()
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1), run_eagerly=True)
    monitor = GradientMonitor(None, **QUIET)
    fit(model, monitor)
    assert sorted(monitor.verdicts) == ["d_optimizer", "g_optimizer"]


class Student(keras.Sequential):
    """A train step of its own, which applies the compiled optimizer."""

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return {"loss": loss}


def student(kind: Callable[..., Any], part: Any) -> Any:
    model = kind([keras.Input((64,)), part, L.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def part() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(5)], name="part")
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("kind", [Student, keras.Sequential])
def test_an_optimizer_that_is_never_applied_has_no_run(kind: Any, tmp_path: Path) -> None:
    model = student(kind, part())
    x = digits(48)[0]
    monitor = GradientMonitor(tmp_path, **QUIET)
    model.fit(x, x[:, :3], batch_size=8, verbose=0, callbacks=[monitor])
    assert list(runs(tmp_path)) == ["."]
    assert [d.optimizer for d in monitor.history] == [""] * 3
    assert monitor.verdicts == {"": monitor.verdict}
    assert read(tmp_path) == monitor.history


@pytest.mark.parametrize("kind", [Student, keras.Sequential])
def test_flags_act_beside_the_optimizer_of_what_is_not_trained(kind: Any) -> None:
    below = part()
    below.trainable = False
    model = student(kind, below)
    x = digits(48)[0] * 1e30
    monitor = GradientMonitor(None, auto_clip=True, probe=False, update_freq=1)
    model.fit(x, x[:, :3], batch_size=8, verbose=0, callbacks=[monitor])
    assert [act.action for act in monitor.interventions][:1] == ["skip"]


def test_with_several_optimizers_flags_and_probe_are_one_warning_each() -> None:
    monitor = GradientMonitor(None, update_freq=2, auto_clip=True, auto_rollback=True)
    plain, model = gan(run_eagerly=True), gan(run_eagerly=True)
    fit(plain, epochs=2)
    with pytest.warns(UserWarning, match="GradientMonitor") as caught:
        [fit(model, monitor) for _ in range(2)]
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert "do nothing in this fit" in said[0]
    assert "Received: a model that holds optimizer, d_optimizer, g_optimizer." in said[0]
    assert "Set probe=False" in said[1]
    assert monitor.interventions == []
    assert len(monitor.history) == 12
    assert_identical(plain.get_weights(), model.get_weights())


def test_optimizers_are_found_in_lists_dicts_and_layers() -> None:
    sgd = keras.optimizers.SGD
    model = gan()
    model.optimizers = [sgd(), sgd()]
    model.by_task = {"up/../down": sgd(), "Up_.._down": sgd()}
    model._private = model.optimizers[1]
    model.generator.compile(sgd())
    model.generator.layers[0].own = sgd()
    model.discriminator.trainable = False
    model.discriminator.compile(sgd())
    assert list(optimizers_of(model)) == [
        "optimizer",
        "d_optimizer",
        "g_optimizer",
        "_private",
        "optimizers.0",
        "by_task.up_.._down",
        "by_task.Up_.._down_1",
        "generator.optimizer",
        "generator_mix.own",
    ]
