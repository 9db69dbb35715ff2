"""One fit on a backend in plain Python: what is built for it, and who is asked when."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend, FakeInstallation, FakeModel, FakeOptimizer, TwiceTheLargest

from keras_vanish import read
from keras_vanish.capture.backend import Controls, GuardSettings, Plan
from keras_vanish.history import History
from keras_vanish.interventions import Intervention, Observation, RatePolicy
from keras_vanish.logs import state as saved
from keras_vanish.rescue.rescue import Rescue
from keras_vanish.run import Run
from keras_vanish.session import Session, installation_for, loop_for

VANISHING = (1e-12, 1e-11, 1e-3)


class HalveAtEachLook(RatePolicy):
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def begin(self) -> float:
        return 1.0

    def factor(self, state: float) -> float:
        return state

    def decide(self, state: float, observation: Observation) -> tuple[float, Intervention | None]:
        self.seen.append(observation)
        return state / 2, Intervention(observation.step, "lower_rate", "test")


class Fits:
    """A model that is trained by hand, with a history that outlives a fit."""

    def __init__(
        self,
        log_dir: Path | None = None,
        every: int | None = 1,
        rate: Any = None,
        optimizers: tuple[str, ...] = ("optimizer",),
        updates: int = 0,
        told: Callable[[Any], Any] | None = None,
        **backend: Any,
    ) -> None:
        self.backend = FakeBackend(**backend)
        self.model = FakeModel()
        self.optimizers = {name: FakeOptimizer() for name in optimizers}
        for optimizer in self.optimizers.values():
            self.backend.iterations[id(optimizer)] = updates
        self.history = History(None if log_dir is None else str(log_dir), True, told)
        self.rescue = Rescue(None, rate, None, None)
        self.every = every

    def begin(self) -> tuple[Session, FakeInstallation]:
        plan = Plan(self.every, False, None)
        installed: Any = installation_for(
            self.backend, self.model, self.optimizers, plan, self.rescue
        )
        session = Session(
            self.backend,
            self.model,
            self.optimizers,
            installed,
            self.history,
            self.rescue,
            self.every,
        )
        installed.install(session)
        return session, installed

    @property
    def steps(self) -> list[int]:
        return [diagnosis.step for diagnosis in self.history.diagnoses]


def called(installed: FakeInstallation, calls: int, **columns: Any) -> None:
    for _ in range(calls):
        installed.call(**columns)


def trained(fits: Fits, calls: int, **columns: Any) -> tuple[Session, FakeInstallation]:
    """One fit of so many calls of the train function."""
    session, installed = fits.begin()
    called(installed, calls, **columns)
    return session, installed


# One recorded step.


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes who is asked, in order."""
    asked: list[str] = []

    def noting(owner: type, method: str, name: str) -> None:
        original = getattr(owner, method)

        def noted(*args: Any, **options: Any) -> Any:
            asked.append(name)
            return original(*args, **options)

        monkeypatch.setattr(owner, method, noted)

    noting(Run, "diagnosed", "diagnose")
    noting(Rescue, "look", "policies")
    noting(Run, "write", "write")
    noting(Run, "write_interventions", "note")
    noting(Run, "save", "save")
    return asked


def test_a_recorded_step_goes_its_way_once(order: list[str], tmp_path: Path) -> None:
    fits = Fits(tmp_path, rate=HalveAtEachLook(), log=order, told=lambda d: order.append("told"))
    trained(fits, 1)
    assert order == [
        *("build_optimizer", "read", "diagnose", "policies", "correct_momentum"),
        *("write", "told", "note", "save"),
    ]


def test_a_step_that_is_not_recorded_is_counted_only(order: list[str]) -> None:
    fits = Fits(every=10, rate=HalveAtEachLook(), log=order)
    _, installed = trained(fits, 1)
    order.clear()
    for _ in range(9):
        installed.call()
    assert order == []
    installed.call()
    assert order[:2] == ["read", "diagnose"]
    assert fits.steps == [0, 10]


def test_several_recorded_updates_of_one_call(order: list[str], tmp_path: Path) -> None:
    policy = HalveAtEachLook()
    fits = Fits(tmp_path, rate=policy, steps_per_call=3, log=order)
    _, installed = trained(fits, 1)
    assert order == [
        *("build_optimizer", "read"),
        *("diagnose", "write", "diagnose", "write"),
        *("diagnose", "policies", "correct_momentum", "write", "note", "save"),
    ]
    # The policies see the last one, and their numbers stand beside it.
    assert [look.step for look in policy.seen] == [2]
    assert policy.seen[0].diagnosis is fits.history.diagnoses[-1]
    installed.remove()
    assert [d.step for d in read(tmp_path)] == fits.steps == [0, 1, 2]


def test_the_policies_are_asked_where_nothing_was_recorded() -> None:
    policy = HalveAtEachLook()
    fits = Fits(every=10, rate=policy)
    _, installed = fits.begin()
    installed.call()
    installed.recording.awaited = True
    installed.call()
    assert [(look.step, look.diagnosis is None) for look in policy.seen] == [(0, False), (1, True)]
    assert fits.steps == [0]


def test_a_session_without_flags_saves_no_policies(tmp_path: Path) -> None:
    for rate, known in ((None, b'"policies":{}'), (HalveAtEachLook(), b'"rate"')):
        folder = tmp_path / str(rate is None)
        trained(Fits(folder, rate=rate), 1)
        assert known in (folder / "gradients" / saved.NAME).read_bytes()


# Failures.


def test_a_failure_of_reading_is_one_warning_and_training_goes_on() -> None:
    fits = Fits()
    _, installed = trained(fits, 1)
    installed.recording.broken = ZeroDivisionError("device")
    with pytest.warns(UserWarning, match="could not read what was recorded") as caught:
        called(installed, 2)
    assert len(caught) == 1
    assert "ZeroDivisionError('device'). Training goes on." in str(caught[0].message)
    installed.recording.broken = None
    installed.call()
    assert fits.steps == [0, 1, 2, 3]


def test_a_failure_of_a_policy_is_one_warning_and_the_reading_stays() -> None:
    class Fails(HalveAtEachLook):
        def decide(self, state: float, observation: Observation) -> Any:
            raise RuntimeError("broken")

    fits = Fits(rate=Fails())
    with pytest.warns(UserWarning, match="broken") as caught:
        trained(fits, 3)
    assert len(caught) == 1
    assert fits.steps == [0, 1, 2]


# Which steps are recorded.


def by_epochs(
    fits: Fits, *epochs: int, known: bool = True, per_call: int = 1
) -> tuple[Session, FakeInstallation]:
    session, installed = fits.begin()
    for steps in epochs:
        length = steps if known else None
        session.begin_epoch(length)
        for batch in range(0, steps, per_call):
            session.begin_batch(batch, length)
            installed.call(None if batch + per_call <= steps else steps - batch)
        session.end_epoch()
    return session, installed


def test_by_epoch_the_last_step_is_recorded() -> None:
    fits = Fits(every=None)
    by_epochs(fits, 4, 4)
    assert fits.steps == [3, 7]


def test_by_epoch_of_unknown_length_the_first_step_is_recorded_until_it_is_known() -> None:
    fits = Fits(every=None)
    session, _ = by_epochs(fits, 4, 4, known=False)
    assert fits.steps == [0, 7]
    assert session.epoch_steps == 4


def test_by_epoch_where_a_call_takes_several_steps() -> None:
    fits = Fits(every=None, steps_per_call=3)
    by_epochs(fits, 6, 7, per_call=3)
    # The first step of the call in which the last one of the epoch is.
    assert fits.steps == [3, 12]


@pytest.mark.parametrize("every", [1, 5])
def test_by_number_no_epoch_counts(every: int) -> None:
    fits = Fits(every=every)
    _, installed = by_epochs(fits, 4, 4)
    assert fits.steps == list(range(0, 8, every))
    assert installed.recording.arms == 1


@pytest.mark.parametrize("per_call", [1, 3])
def test_the_end_of_the_data_within_a_call(per_call: int) -> None:
    fits = Fits(steps_per_call=per_call)
    _, installed = fits.begin()
    installed.call()
    installed.recording.awaited = True
    installed.call(steps=per_call - 1)
    # With one step a call, the end comes before any step, and nothing is read.
    assert fits.backend.log.count("read") == (1 if per_call == 1 else 2)
    assert len(fits.steps) == 2 * per_call - 1


# Over fits.


def test_the_axis_goes_on_in_the_next_fit() -> None:
    fits = Fits()
    for _ in range(2):
        trained(fits, 3)[1].remove()
    assert fits.steps == [0, 1, 2, 3, 4, 5]
    # A model that was compiled anew.
    fits.optimizers = {"optimizer": FakeOptimizer()}
    trained(fits, 2)
    assert fits.steps[6:] == [6, 7]


def test_the_state_is_seen_at_the_first_call_and_not_before() -> None:
    # Another callback may restore a model when the training begins.
    fits = Fits(rate=HalveAtEachLook())
    _, installed = fits.begin()
    assert "build_optimizer" not in fits.backend.log
    fits.backend.iterations[id(fits.optimizers["optimizer"])] = 40
    installed.call()
    assert fits.steps == [40]
    assert fits.backend.log.count("build_optimizer") == 1
    installed.call()
    assert fits.backend.log.count("build_optimizer") == 1


def test_what_flags_knew_is_taken_up(tmp_path: Path) -> None:
    trained(Fits(tmp_path, rate=HalveAtEachLook()), 3)[1].remove()
    fits = Fits(tmp_path, rate=HalveAtEachLook(), updates=3)
    assert trained(fits, 1)[1].controls.factor.value == 0.0625  # type: ignore[union-attr]
    assert fits.steps == [0, 1, 2, 3]
    assert len(fits.history.interventions) == 4
    # It was taken up before the first step.
    assert fits.optimizers["optimizer"].velocity == 0.5


def test_where_there_is_nothing_to_take_up_flags_begin_anew(tmp_path: Path) -> None:
    fits = Fits(tmp_path, rate=HalveAtEachLook(), updates=3)
    _, installed = trained(fits, 1)
    assert installed.controls.factor.value == 0.5  # type: ignore[union-attr]
    assert fits.steps == [3]


def test_what_flags_knew_and_is_damaged_is_one_warning(tmp_path: Path) -> None:
    trained(Fits(tmp_path, rate=HalveAtEachLook()), 3)[1].remove()
    path = tmp_path / "gradients" / saved.NAME
    path.write_text(path.read_text().replace('"rollback_factor":1.0', '"rollback_factor":-1.0'))
    fits = Fits(tmp_path, rate=HalveAtEachLook(), updates=3)
    with pytest.warns(UserWarning, match="could not take up what the flags knew") as caught:
        _, installed = trained(fits, 1)
    assert len(caught) == 1
    assert installed.controls.factor.value == 0.5  # type: ignore[union-attr]
    # The readings are none the worse.
    assert fits.steps == [0, 1, 2, 3]


@pytest.mark.parametrize("spoiled", ["{", '{"version":99}'])
def test_a_state_that_is_damaged_is_one_warning(spoiled: str, tmp_path: Path) -> None:
    trained(Fits(tmp_path), 3)[1].remove()
    (tmp_path / "gradients" / saved.NAME).write_text(spoiled)
    fits = Fits(tmp_path, updates=3)
    with pytest.warns(UserWarning, match="could not take up the run") as caught:
        trained(fits, 2)
    assert len(caught) == 1
    assert fits.steps == [3, 4]


# Several optimizers.


def test_each_optimizer_has_a_run_of_its_own(tmp_path: Path) -> None:
    fits = Fits(tmp_path, optimizers=("d_optimizer", "g_optimizer"))
    session, installed = trained(fits, 1, rms=VANISHING)
    installed.recordings["d_optimizer"].apply()
    installed.call()
    installed.remove()
    found = [(d.optimizer, d.step) for d in fits.history.diagnoses]
    assert found == [
        ("d_optimizer", 0),
        ("g_optimizer", 0),
        # In the order of their updates.
        ("d_optimizer", 1),
        ("g_optimizer", 1),
        ("d_optimizer", 2),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d_optimizer", "g_optimizer"]
    assert fits.history.verdicts.keys() == {"d_optimizer", "g_optimizer"}


def test_scores_are_the_worst_of_the_last_ones() -> None:
    fits = Fits(optimizers=("d_optimizer", "g_optimizer"))
    session, installed = fits.begin()
    assert all(math.isnan(score) for score in session.scores())
    installed.call(rms=VANISHING)
    sick = session.scores()
    for recording in (installed.recordings["d_optimizer"],):
        recording.apply()
    session.after_call()
    assert session.scores() == sick
    assert sick[0] == max(d.vanishing_score for d in fits.history.diagnoses)
    installed.call()
    assert session.scores()[0] < sick[0]


@pytest.mark.parametrize("applied", [("optimizer",), ("critic",), ("optimizer", "critic")])
def test_the_compiled_optimizer_alone_has_no_name(applied: tuple[str, ...]) -> None:
    fits = Fits(optimizers=("optimizer", "critic"))
    session, installed = fits.begin()
    session.before_call(None)
    for name in applied:
        installed.recordings[name].apply()
    session.after_call()
    expected = [""] if applied == ("optimizer",) else list(applied)
    assert [d.optimizer for d in fits.history.diagnoses] == expected


# What is built, and what is left out.


def test_what_the_flags_ask_for_is_built() -> None:
    backend, model, optimizers = FakeBackend(), FakeModel(), {"optimizer": FakeOptimizer()}
    flags = Rescue(TwiceTheLargest(), HalveAtEachLook(), None, None)
    wanted = Controls(GuardSettings(True, None), rate=True, losses=True)
    for controllable, controls in ((True, wanted), (False, Controls())):
        backend.controllable = controllable
        installation_for(backend, model, optimizers, Plan(5, True, 100), flags)
        assert backend.plans.pop() == (Plan(5, True, 100), controls)
        loop: Any = loop_for(backend, model, optimizers["optimizer"], 5, flags)
        assert (loop.controls.guard is not None) == controllable
    backend.controllable = True
    installation_for(backend, model, optimizers, Plan(5, True, 100), Rescue(None, None, None, None))
    assert backend.plans.pop()[1] == Controls()


def test_flags_that_cannot_act_are_not_asked() -> None:
    policy = HalveAtEachLook()
    fits = Fits(rate=policy, controllable=False)
    _, installed = trained(fits, 2)
    assert policy.seen == []
    assert fits.steps == [0, 1]
    assert installed.call(batches="theirs") == "theirs"


def test_what_is_left_out_is_said_once() -> None:
    fits = Fits(
        rate=HalveAtEachLook(),
        optimizers=("d_optimizer", "g_optimizer"),
        left_out=[("strategy", "It is left out.")],
    )

    def begin_twice() -> None:
        for _ in range(2):
            session, _ = fits.begin()
            session.warn_of_limitations(probe=True)

    with pytest.warns(UserWarning, match="flags|weights only|left out") as caught:
        begin_twice()
    flags, probe, strategy = (str(warning.message) for warning in caught)
    assert "they do nothing in this fit" in flags
    assert "Received: a model that holds d_optimizer, g_optimizer. Readings go on." in flags
    assert "shows the gradients of weights only" in probe
    assert strategy == "It is left out."


def end_epochs(session: Session, count: int) -> None:
    for _ in range(count):
        session.end_epoch()


def test_an_optimizer_that_is_never_applied_is_one_warning() -> None:
    fits = Fits()
    with pytest.warns(UserWarning, match="saw no gradient") as caught:
        end_epochs(fits.begin()[0], 2)
    assert len(caught) == 1
    assert "Received: FakeModel, FakeOptimizer." in str(caught[0].message)


def test_a_custom_loop() -> None:
    fits = Fits(rate=HalveAtEachLook())
    loop: Any = loop_for(fits.backend, fits.model, fits.optimizers["optimizer"], 2, fits.rescue)
    session = Session(
        fits.backend, fits.model, fits.optimizers, loop, fits.history, fits.rescue, every=2
    )
    session.begin_steps()
    with loop.open():
        for _ in range(5):
            loop.recording.apply()
            session.after_call()
    session.warn_if_untraced()
    session.removed()
    assert fits.steps == [0, 2, 4]
    assert loop.controls.factor.value == 0.125


def test_a_custom_loop_that_applies_nothing_is_a_warning() -> None:
    fits = Fits()
    session, _ = fits.begin()
    with pytest.warns(UserWarning, match="was traced before it. Received: FakeOptimizer."):
        session.warn_if_untraced()


def test_the_end_lets_go_of_the_training_and_closes_the_files(tmp_path: Path) -> None:
    fits = Fits(tmp_path, rate=HalveAtEachLook())
    _, installed = trained(fits, 1)
    installed.remove()
    assert fits.rescue._training is None
    trained(fits, 1)[1].remove()
    files = [p for p in (tmp_path / "gradients").iterdir() if "tfevents" in p.name]
    assert len(files) == 2


def test_a_process_that_is_not_the_chief_writes_nothing(tmp_path: Path) -> None:
    fits = Fits(tmp_path, chief=False)
    trained(fits, 2)
    assert fits.steps == [0, 1]
    assert list(tmp_path.iterdir()) == []
