"""A backend in plain Python: what the seam asks for drives the package without a framework.

It logs what is asked of it. Whatever writes to a model has to stand within `assigning`, and what
a `fit` would do is done by hand: `FakeInstallation.call` is one call of the train function.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.capture.backend import Backend, Controls, FitHooks, GuardLog, Plan
from keras_vanish.interventions import Limits
from keras_vanish.records.bins import BINS
from keras_vanish.records.captured import Captured
from keras_vanish.records.layers import LayerInfo
from keras_vanish.records.statistics import FLOATS
from keras_vanish.rescue.training import Training

LAYERS = tuple(LayerInfo(f"dense_{i}", ("kernel",), (i,), (1000,), 32) for i in range(3))


def captured(
    update: int, rms: Sequence[float] = (1e-3, 1e-3, 1e-3), update_rms: float = 1e-4
) -> Captured:
    """An update of a healthy model of three layers, or of one with other gradients."""
    columns = {
        "rms": rms,
        "min": [-value for value in rms],
        "max": rms,
        "rms_after_clipping": rms,
        "weight_rms": [0.1] * 3,
        "update_rms": [update_rms] * 3,
        "nan_count": [0.0 if math.isfinite(value) else 1000.0 for value in rms],
    }
    floats = np.stack([columns.get(name, [0.0] * 3) for name in FLOATS], 1).astype(np.float32)
    counts = np.zeros((3, BINS), np.float32)
    counts[:, 117] = 1000.0
    return Captured(update, LAYERS, floats, counts)


class FakeModel:
    """What the package itself uses of a Keras model."""

    def __init__(self, weights: Sequence[float] = (3.0, 4.0), built: bool = True) -> None:
        self.name = "fake"
        self.built = built
        self.weights = np.array(weights)
        self.stop_training = False
        self.resets = 0
        self.saved: list[str] = []

    def reset_metrics(self) -> None:
        self.resets += 1

    def save_weights(self, path: str) -> None:
        self.saved.append(path)


class FakeOptimizer:
    """An optimizer with a rate and one velocity."""

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.9) -> None:
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocity = 1.0
        self.built = False


@dataclass(frozen=True)
class FakeGuardLog:
    norms: npt.NDArray[np.float32]
    clipped: int
    skipped: int


class FakeGuard:
    """Notes its limits; what it did is said by `did`."""

    def __init__(self) -> None:
        self.limits: list[tuple[float, float, float]] = []
        self.did()

    def did(self, norms: Sequence[float] = (), clipped: int = 0, skipped: int = 0) -> None:
        self._log = FakeGuardLog(np.array(norms, np.float32), clipped, skipped)

    def limit(self, fires_above: float, clips_to: float, reach: float) -> None:
        self.limits.append((fires_above, clips_to, reach))

    def read(self) -> GuardLog:
        log = self._log
        self.did()
        return log


class FakeFactor:
    """Notes what it was set to."""

    def __init__(self) -> None:
        self.value = 1.0
        self.assigned: list[float] = []

    def assign(self, factor: float) -> None:
        self.value = factor
        self.assigned.append(factor)


class FakeLosses:
    """The losses that a test puts into it."""

    def __init__(self) -> None:
        self.noted: list[float] = []

    def read(self) -> npt.NDArray[np.float32]:
        noted, self.noted = self.noted, []
        return np.array(noted, np.float32)


@dataclass(frozen=True)
class FakeControls:
    guard: FakeGuard | None = None
    factor: FakeFactor | None = None
    losses: FakeLosses | None = None


class FakeRecording:
    """Records the updates that `apply` makes.

    Attributes:
        awaited: Whether it is time to read; so it is after a recorded update.
        broken: What `read` raises, if anything.
    """

    def __init__(self, backend: FakeBackend, optimizer: Any, every: int | None) -> None:
        self._backend = backend
        self.optimizer = optimizer
        self._every = every
        self.traced = False
        self.layers: Sequence[LayerInfo] = ()
        self.awaited = False
        self.arms = 0
        self.broken: Exception | None = None
        self._armed = False
        self._next: int | None = None
        self._found: list[Captured] = []

    def apply(self, **columns: Any) -> None:
        """One train step applies the optimizer."""
        update = self.updates()
        self._backend.iterations[id(self.optimizer)] = update + 1
        self.traced, self.layers = True, LAYERS
        if self._armed or update == self._next:
            self._armed, self.awaited = False, True
            self._found.append(captured(update, **columns))
            self._next = None if self._every is None else update + self._every

    def arm(self) -> None:
        self.arms += 1
        self._armed = True

    def updates(self) -> int:
        return self._backend.iterations.get(id(self.optimizer), 0)

    def count(self, steps: int) -> bool:
        return self.awaited

    def read(self) -> list[Captured]:
        self._backend.log.append("read")
        if self.broken is not None:
            raise self.broken
        found, self._found, self.awaited = self._found, [], False
        return found


class FakeWatched:
    """What is built around a train step."""

    def __init__(
        self,
        backend: FakeBackend,
        optimizers: Mapping[str, Any],
        every: int | None,
        controls: FakeControls,
        gives_batches: bool,
    ) -> None:
        self.recordings = {
            name: FakeRecording(backend, optimizer, every) for name, optimizer in optimizers.items()
        }
        self.main = next(iter(optimizers)) if len(optimizers) == 1 else ""
        if "optimizer" in optimizers:
            self.main = "optimizer"
        self.controls = controls
        self.steps_per_call = backend.steps_per_call
        self.gives_batches = gives_batches

    @property
    def recording(self) -> FakeRecording:
        """The recording of the only optimizer."""
        (recording,) = self.recordings.values()
        return recording


class FakeInstallation(FakeWatched):
    """Calls the hooks as a train function does."""

    hooks: FitHooks

    def install(self, hooks: FitHooks) -> None:
        self.hooks = hooks

    def remove(self) -> None:
        self.hooks.removed()

    def call(self, steps: int | None = None, batches: Any = None, **columns: Any) -> Any:
        """One call of the train function; returns the iterator that it was given.

        Args:
            steps: How many steps it takes before the data end; None for all of them.
            batches: The iterator that Keras would call it with.
            **columns: What is recorded of an update, as `captured` takes it.
        """
        given = self.hooks.before_call(batches)
        for _ in range(self.steps_per_call if steps is None else steps):
            for recording in self.recordings.values():
                recording.apply(**columns)
        if steps is None:
            self.hooks.after_call()
        else:
            self.hooks.after_data()
        return given


class FakeLoop(FakeWatched):
    """A custom loop."""

    def open(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class FakeSnapshot:
    """A copy of the weights and the velocity."""

    def __init__(self, backend: FakeBackend, model: FakeModel, optimizer: FakeOptimizer) -> None:
        self._backend = backend
        self._model, self._optimizer = model, optimizer
        self._weights, self._velocity = model.weights.copy(), optimizer.velocity

    def restore(self) -> None:
        self._backend.may_assign("restore")
        self._model.weights[:] = self._weights
        self._optimizer.velocity = self._velocity

    def finite(self) -> bool:
        return bool(np.isfinite([*self._weights, self._velocity]).all())


@dataclass
class FakeBackend:
    """Everything that `keras_vanish.capture.backend.Backend` asks for.

    Attributes:
        log: What was asked, in order.
        iterations: How many updates each optimizer has applied, by its `id`.
        steps_per_call: Of the installations that it builds.
        controllable: Whether flags can act.
        left_out: What `limitations` gives.
        plans: What was asked to be watched.
    """

    log: list[str] = field(default_factory=list)
    iterations: dict[int, int] = field(default_factory=dict)
    steps_per_call: int = 1
    controllable: bool = True
    chief: bool = True
    left_out: list[tuple[str, str]] = field(default_factory=list)
    plans: list[tuple[Plan, Controls]] = field(default_factory=list)
    _assigning: int = 0

    def optimizers_of(self, model: Any) -> dict[str, Any]:
        return dict(getattr(model, "optimizers", {}))

    def refusal(self, model: Any) -> str | None:
        return None

    def limitations(
        self, model: Any, optimizers: Mapping[str, Any], flags: bool, probe: bool
    ) -> Iterator[tuple[str, str]]:
        yield from self.left_out

    def has_one_rate(self, optimizers: Mapping[str, Any]) -> bool:
        return len(optimizers) == 1

    def can_control(self, model: Any, optimizers: Mapping[str, Any]) -> bool:
        return self.controllable and self.has_one_rate(optimizers)

    def is_chief(self, model: Any) -> bool:
        return self.chief

    def installation(
        self, model: Any, optimizers: Mapping[str, Any], plan: Plan, controls: Controls
    ) -> FakeInstallation:
        self.plans.append((plan, controls))
        return FakeInstallation(self, optimizers, plan.every, built(controls), gives_batches=True)

    def loop(self, model: Any, optimizer: Any, every: int, controls: Controls) -> FakeLoop:
        optimizers = {"optimizer": optimizer}
        return FakeLoop(self, optimizers, every, built(controls), gives_batches=False)

    def release(self, model: Any) -> None:
        self.log.append("release")

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.learning_rate)

    def momentum(self, optimizer: Any) -> float:
        return float(optimizer.momentum)

    def correct_momentum(self, optimizer: Any, share: float) -> None:
        self.may_assign("correct_momentum")
        optimizer.velocity *= share

    def build_optimizer(self, model: Any, optimizer: Any) -> None:
        self.log.append("build_optimizer")
        optimizer.built = True

    def snapshot(self, model: Any, optimizer: Any) -> FakeSnapshot:
        self.log.append("snapshot")
        return FakeSnapshot(self, model, optimizer)

    @contextlib.contextmanager
    def assigning(self, model: Any) -> Iterator[None]:
        self._assigning += 1
        try:
            yield
        finally:
            self._assigning -= 1

    def weights_norm(self, model: Any) -> Callable[[], float]:
        self.log.append("weights_norm")
        return lambda: float(np.linalg.norm(model.weights))

    def may_assign(self, what: str) -> None:
        """Notes that something writes to the model."""
        assert self._assigning, f"{what} outside of `assigning`"
        self.log.append(what)


def built(controls: Controls) -> FakeControls:
    """The parts that are asked for."""
    return FakeControls(
        guard=None if controls.guard is None else FakeGuard(),
        factor=FakeFactor() if controls.rate else None,
        losses=FakeLosses() if controls.losses else None,
    )


def fake_training(
    controls: Controls | None = None,
    updates: int = 0,
    gives_batches: bool = True,
    built_before: bool = True,
) -> Training:
    """A training on the fake; its parts are those of the attributes."""
    # mypy sees here that the fake is all that the seam asks for.
    backend: Backend = FakeBackend()
    return Training(
        backend=backend,
        model=FakeModel(built=built_before),
        optimizer=FakeOptimizer(),
        controls=built(controls or Controls()),
        updates=updates,
        gives_batches=gives_batches,
    )


@dataclass
class TwiceTheLargest:
    """A clipping policy whose limits follow what it saw."""

    reach: float = math.inf
    smallest_norm: float | None = None
    seen: list[list[float]] = field(default_factory=list)

    def begin(self) -> float:
        return 0.0

    def after(self, state: float, norms: Any) -> float:
        self.seen.append(list(norms))
        return max([state, *self.seen[-1]])

    def limits(self, state: float) -> Limits:
        if not state:
            return Limits(reach=self.reach, smallest_norm=self.smallest_norm)
        return Limits(2 * state, state, self.reach, self.smallest_norm)
