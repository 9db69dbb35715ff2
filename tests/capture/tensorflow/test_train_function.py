"""The stand-in for `model.train_function`, on a model without TensorFlow and in real fits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from digit_images import digits

from keras_vanish import GradientMonitor
from keras_vanish.capture.tensorflow.train_function import TrainFunction, clear_leftover


class Model:
    """Has what `TrainFunction` uses of a Keras model; logs what is called."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.wanted = True
        self.instead: Any = None
        self.after_data: Callable[[], None] = lambda: None
        self.history: object = object()
        self.train_function: Any = None
        self.make_train_function()

    def train_step(self, data: Any) -> Any:
        self.log.append("step")
        return data

    def make_train_function(self, force: bool = False) -> None:
        if force or self.train_function is None:
            step = self.train_step
            self.train_function = lambda iterator: step(next(iterator))

    def before(self, iterator: Any) -> Any:
        return iterator if self.instead is None else self.instead

    def wrapped(self, name: str = "monitored", other: str = "") -> TrainFunction:
        def wrap(step: Callable[..., Any]) -> Callable[..., Any]:
            def monitored(data: Any) -> Any:
                self.log.append(name)
                return step(data)

            return monitored

        def wrap_other(step: Callable[..., Any]) -> Callable[..., Any]:
            def unread(data: Any) -> Any:
                self.log.append(other)
                return step(data)

            return unread

        guest = SimpleNamespace(
            wrap=wrap,
            wrap_other=wrap_other if other else lambda step: None,
            wanted=lambda: self.wanted,
            before_call=lambda batches: self.before(batches),
            after_call=lambda: self.log.append(f"after {name}"),
            after_data=lambda: self.after_data(),
            removed=lambda: self.log.append(f"removed {name}"),
        )
        return TrainFunction(self, guest)

    def fit(self, *functions: TrainFunction, data: int = 1) -> None:
        """Calls the train function as a `fit` in which these take part, or a later one."""
        if not functions:
            self.history = object()
        iterator = iter(range(data))
        for _ in range(data):
            self.train_function(iterator)


@pytest.mark.smoke
def test_a_call_runs_the_wrapped_step() -> None:
    model = Model()
    own = model.train_function
    function = model.wrapped()
    assert model.train_function is own
    function.install()
    model.fit(function, data=2)
    assert model.log == ["monitored", "step", "after monitored"] * 2
    function.remove()
    assert model.train_function is own
    assert "train_step" not in vars(model)
    assert model.log[-1] == "removed monitored"


@pytest.mark.smoke
def test_a_call_by_another_fit_runs_the_models_own_function() -> None:
    model = Model()
    own = model.train_function
    function = model.wrapped()
    function.install()
    model.fit(function)
    model.log.clear()
    model.fit()
    assert model.log == ["removed monitored", "step"]
    assert model.train_function is own


def test_a_step_that_fails_gives_the_model_its_function_back() -> None:
    model = Model()
    own = model.train_function
    for error in (ValueError, KeyboardInterrupt, SystemExit):

        def fail(data: Any, error: type[BaseException] = error) -> Any:
            raise error

        vars(model)["train_step"] = fail
        function = model.wrapped()
        function.install()
        with pytest.raises(error):
            model.train_function(iter([1]))
        assert model.train_function is own
        assert model.log[-1] == "removed monitored"
        # A train step that was the model's own stays.
        assert vars(model).pop("train_step") is fail


def test_the_end_of_the_data_is_no_failure() -> None:
    model = Model()
    function = model.wrapped()
    function.install()
    with pytest.raises(StopIteration):
        model.train_function(iter([]))
    assert model.train_function is function
    assert model.log == []


def test_batches_may_come_from_elsewhere() -> None:
    model = Model()
    function = model.wrapped()
    function.install()
    model.instead = iter(["other"])
    assert model.train_function(iter([1])) == "other"


def test_the_end_of_the_data_before_a_call_is_no_failure() -> None:
    model = Model()
    function = model.wrapped()

    def ended(iterator: Any) -> Any:
        raise StopIteration

    vars(model)["before"] = ended
    function.install()
    with pytest.raises(StopIteration):
        model.train_function(iter([1]))
    assert model.train_function is function


def test_steps_that_are_not_wanted_may_run_another_step() -> None:
    model = Model()
    own = model.train_function
    function = model.wrapped(other="unread")
    assert model.train_function is own
    function.install()
    model.wanted = False
    model.fit(function)
    assert model.log == ["unread", "step", "after monitored"]


def test_installing_again_uses_the_same_function() -> None:
    model = Model()
    function = model.wrapped()
    inner = function._wrapped
    for _ in range(2):
        function.install()
        model.fit(function)
        function.remove()
    assert function._wrapped is inner
    assert model.log == ["monitored", "step", "after monitored", "removed monitored"] * 2


def test_a_function_that_cannot_be_built_leaves_the_model_as_it_was() -> None:
    model = Model()
    own = model.train_function

    def fail(force: bool = False) -> None:
        raise MemoryError

    model.make_train_function = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        model.wrapped()
    assert model.train_function is own
    assert "train_step" not in vars(model)


def test_a_call_that_is_not_wanted_runs_the_models_own_function_and_is_counted() -> None:
    model = Model()
    function = model.wrapped()
    function.install()
    model.wanted = False
    model.fit(function)
    assert model.log == ["step", "after monitored"]
    assert model.train_function is function


def test_what_an_interrupted_fit_left_is_cleared() -> None:
    model = Model()
    own = model.train_function
    function = model.wrapped()
    function.install()
    model.fit(function)
    model.history = object()
    clear_leftover(model)
    assert model.train_function is own
    clear_leftover(model)
    assert model.train_function is own


# From here on: Keras's own fit.


class Fail(keras.callbacks.Callback):
    """Raises `error` at the start of a batch of the second epoch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._epoch == 1 and batch == 1:
            raise self._error


class FailingStep(keras.Sequential):
    error: BaseException | None = None

    def train_step(self, *args: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().train_step(*args)


DATA = digits(96)


def compiled(mode: str = "graph") -> Any:
    keras.utils.set_random_seed(0)
    model = FailingStep(
        [
            keras.Input((64,)),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        run_eagerly=mode == "eager",
        jit_compile=mode == "xla",
    )
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 2) -> Any:
    return model.fit(*DATA, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks))


class Before:
    """What must be the same after a monitored fit as before it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._optimizer_variables = len(model.optimizer.variables)
        self._optimizer_attributes = set(vars(model.optimizer))

    def check(self) -> None:
        model = self._model
        assert "apply" not in vars(model.optimizer)
        assert "train_step" not in vars(model)
        assert not isinstance(model.train_function, TrainFunction)
        for holder in (model, model.optimizer):
            for name, value in vars(holder).items():
                assert "keras_vanish" not in repr(type(value)), name
                assert "keras_vanish" not in getattr(value, "__module__", ""), name
        assert set(vars(model.optimizer)) == self._optimizer_attributes
        assert len(model.optimizer.variables) == self._optimizer_variables


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_after_fit_the_model_has_its_own_function(mode: str) -> None:
    model = compiled(mode)
    before = Before(model)
    fit(model, GradientMonitor(None, update_freq=2))
    before.check()
    own = model.train_function
    fit(model, GradientMonitor(None, update_freq=2))
    assert model.train_function is own
    before.check()


@pytest.mark.smoke
@pytest.mark.parametrize("error", [ValueError("mid-epoch"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_after_an_exception_in_a_callback_the_next_fit_is_plain(
    error: BaseException, first: bool
) -> None:
    model = compiled()
    before = Before(model)
    monitor = GradientMonitor(None, update_freq=1)
    callbacks = [monitor, Fail(error)]
    with pytest.raises(type(error)):
        fit(model, *(callbacks if first else reversed(callbacks)))
    assert "apply" not in vars(model.optimizer)
    seen = len(monitor.history)
    assert seen >= 4
    plain = fit(model)
    before.check()
    assert len(plain.history["loss"]) == 2
    assert len(monitor.history) == seen
    fit(model, monitor, epochs=1)
    before.check()
    steps = [d.step for d in monitor.history]
    assert steps == sorted(set(steps))
    assert len(steps) == seen + 3


@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize("error", [ValueError("within the step"), KeyboardInterrupt()])
def test_after_an_exception_in_the_step_the_model_has_its_own_function(
    error: BaseException, mode: str
) -> None:
    model = compiled(mode)
    before = Before(model)
    model.error = error
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.raises(type(error)):
        fit(model, monitor)
    before.check()
    model.error = None
    fit(model, monitor)
    before.check()
    assert [d.step for d in monitor.history] == list(range(6))


@pytest.mark.parametrize("leftover", [True, False])
def test_evaluate_predict_and_a_recompilation_after_an_interrupted_fit(leftover: bool) -> None:
    model = compiled()
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, Fail(KeyboardInterrupt()))
    model.evaluate(*DATA, verbose=0)
    model.predict(DATA[0], verbose=0)
    if not leftover:
        model.compile("adam", "sparse_categorical_crossentropy")
    fit(model, *([] if leftover else [monitor]))
    assert not isinstance(model.train_function, TrainFunction)


def test_train_on_batch_after_an_interrupted_fit_is_plain() -> None:
    model = compiled()
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, Fail(KeyboardInterrupt()))
    seen = len(monitor.history)
    model.train_on_batch(*DATA)
    assert not isinstance(model.train_function, TrainFunction)
    assert len(monitor.history) == seen


@pytest.mark.smoke
def test_two_monitors_at_once_are_refused_and_leave_nothing() -> None:
    model = compiled()
    before = Before(model)
    first, second = (GradientMonitor(None, update_freq=1) for _ in range(2))
    with pytest.raises(RuntimeError, match="Received: two in callbacks") as caught:
        fit(model, first, second)
    assert "on_diagnosis is called with each reading" in str(caught.value)
    fit(model, second)
    before.check()
    fit(model, first)
    before.check()
    fit(model)
    before.check()
    assert (len(first.history), len(second.history)) == (6, 6)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin"])
def test_a_fit_that_ended_before_its_first_step_leaves_nothing(hook: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError(hook)

    model = compiled()
    before = Before(model)
    monitor = GradientMonitor(None, update_freq=1)
    with pytest.raises(ValueError, match=hook):
        fit(model, monitor, keras.callbacks.LambdaCallback(**{hook: fail}))
    fit(model, monitor)
    before.check()
    assert [d.step for d in monitor.history] == list(range(6))


def test_two_monitors_in_turn() -> None:
    model = compiled()
    before = Before(model)
    first, second = (GradientMonitor(None, update_freq=1) for _ in range(2))
    for monitor in (first, second, first):
        fit(model, monitor)
        before.check()
    assert [d.step for d in first.history] == [*range(6), *range(12, 18)]
    assert [d.step for d in second.history] == list(range(6, 12))


@pytest.mark.smoke
def test_it_has_the_attributes_of_the_function_that_ran() -> None:
    model = Model()
    model.train_function.graph = "own"
    function = model.wrapped()
    function._wrapped[1].graph = "monitored"  # type: ignore[attr-defined]
    assert function.graph == "own"
    function.install()
    model.fit(function)
    assert function.graph == "monitored"
    model.wanted = False
    model.fit(function)
    assert function.graph == "own"
    assert not hasattr(function, "function_spec")
    assert not hasattr(object.__new__(TrainFunction), "graph")


def test_the_end_of_the_data_is_told_and_passed_on() -> None:
    model = Model()
    function = model.wrapped()
    model.after_data = lambda: model.log.append("end")
    function.install()
    with pytest.raises(StopIteration):
        model.train_function(iter(()))
    assert model.log == ["end"]
    assert model.train_function is function
