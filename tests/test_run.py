"""One optimizer's run: its step axis, its name, and what an earlier process left."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend, FakeOptimizer, FakeRecording, captured

from keras_vanish import read
from keras_vanish.interventions import Intervention
from keras_vanish.logs import file_system
from keras_vanish.logs import state as saved
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.run import Run

Warned = list[tuple[str, str]]
VANISHING = (1e-12, 1e-11, 1e-3)


def made(
    log_dir: Path | None, updates: int = 0, name: str | None = "", histograms: bool = True
) -> tuple[Run, Warned]:
    """A run of an optimizer that has applied some updates, in a `fit` that begins."""
    warned: Warned = []
    run = Run(
        None if log_dir is None else str(log_dir), histograms, lambda *told: warned.append(told)
    )
    run.attach(recording(updates))
    if name is not None:
        run.settle(name)
    run.begin_fit()
    return run, warned


def recording(updates: int = 0) -> FakeRecording:
    backend, optimizer = FakeBackend(), FakeOptimizer()
    backend.iterations[id(optimizer)] = updates
    return FakeRecording(backend, optimizer, every=1)


def recorded(run: Run, *updates: int, **columns: Any) -> list[int]:
    """Diagnoses and writes updates, and saves the state; gives their steps."""
    steps = []
    for update in updates:
        seen = captured(update, **columns)
        diagnosis = run.diagnosed(seen)
        run.write(diagnosis, seen, {})
        run.save({})
        steps.append(diagnosis.step)
    return steps


# The step axis.


def test_updates_that_nobody_saw_count_too() -> None:
    run, _ = made(None, updates=40)
    assert recorded(run, 40, 45) == [40, 45]


def test_the_axis_goes_on_over_fits_of_new_optimizers() -> None:
    run, _ = made(None)
    assert recorded(run, 0, 5) == [0, 5]
    # A model that was compiled anew: its optimizer begins at 0.
    run.attach(recording())
    run.settle("")
    assert run.begin_fit() == 0
    assert recorded(run, 0, 5) == [6, 11]
    # The same goes on by itself: the axis moves by what it takes to go on, and by no more.
    again = recording(updates=6)
    run.attach(again)
    run.settle("")
    assert run.begin_fit() == 6
    assert recorded(run, 6) == [12]
    run.attach(recording(updates=50))
    run.settle("")
    run.begin_fit()
    assert recorded(run, 50) == [50]


def test_the_axis_is_set_where_the_first_step_begins() -> None:
    # Between the start of a `fit` and its first step a callback may restore the optimizer.
    backend, optimizer = FakeBackend(), FakeOptimizer()
    run = Run(None, True, lambda about, message: None)
    run.attach(FakeRecording(backend, optimizer, 1))
    run.settle("")
    run.begin_fit()
    recorded(run, 0, 9)
    backend.iterations[id(optimizer)] = 4
    run.begin_fit()
    assert run.step(4) == 10


# Its name.


def test_a_run_is_named_once_it_is_known_what_is_applied() -> None:
    run, _ = made(None, name=None)
    assert (run.name, run.settled) == (None, False)
    run.settle("generator")
    assert (run.name, run.settled) == ("generator", True)
    assert run.diagnosed(captured(0)).optimizer == "generator"
    # The next fit finds out anew, unless it is the same recording.
    run.attach(run.recording)
    assert run.settled
    run.attach(recording())
    assert not run.settled


def test_under_the_same_name_it_goes_on() -> None:
    run, _ = made(None)
    recorded(run, 0, 1, rms=VANISHING)
    run.settle("")
    assert run.last is not None
    assert run.verdict == "vanishing"


def test_under_another_name_it_begins_anew(tmp_path: Path) -> None:
    run, _ = made(tmp_path)
    run.resume()
    recorded(run, 0, 1, rms=VANISHING)
    state = (tmp_path / "gradients" / saved.NAME).read_bytes()
    run.settle("generator")
    assert run.last is None
    assert run.verdict == "unknown"
    assert recorded(run, 0) == [0]
    assert [d.step for d in read(tmp_path / "generator")] == [0]
    # What is saved from now on is of the other folder, and of a run that begins there.
    run.save({"clip": {}})
    assert not (tmp_path / "generator" / "gradients" / saved.NAME).exists()
    run.resume()
    run.save({"clip": {}})
    assert (tmp_path / "gradients" / saved.NAME).read_bytes() == state
    assert b"clip" in (tmp_path / "generator" / "gradients" / saved.NAME).read_bytes()


def test_the_verdict_follows_readings_that_agree() -> None:
    run, _ = made(None)
    verdicts = []
    for update, rms in enumerate([(1e-3,) * 3] * 2 + [VANISHING] * 3):
        recorded(run, update, rms=rms)
        verdicts.append(run.verdict)
    assert verdicts == ["unknown", "healthy", "healthy", "healthy", "vanishing"]


# What an earlier process left.


def test_a_run_is_resumed(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    assert first.resume() is None
    recorded(first, 0, 5, rms=VANISHING)
    first.write_interventions([Intervention(5, "lower_rate", "test")])
    first.save({"policies": 1})
    first.close()
    second, warned = made(tmp_path, updates=8)
    past = second.resume()
    assert past is not None
    assert [d.step for d in past.history] == [0, 5]
    assert [act.reason for act in past.interventions] == ["test"]
    assert past.state.policies == {"policies": 1}
    assert second.verdict == first.verdict == "vanishing"
    assert second.last == first.last
    # The eighth update is the ninth: those after the last reading were lost.
    assert recorded(second, 8) == [8]
    assert warned == []


def test_a_model_that_was_compiled_anew_goes_on_after_the_last_reading(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    first.resume()
    recorded(first, 0, 30)
    first.close()
    second, _ = made(tmp_path, updates=8)
    assert second.resume() is not None
    assert recorded(second, 8) == [31]


@pytest.mark.parametrize("why", ["fresh", "empty", "asked before", "no directory"])
def test_where_there_is_nothing_to_resume(why: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if why != "empty":
        first, _ = made(folder)
        first.resume()
        recorded(first, 0)
        first.close()
    run, warned = made(
        None if why == "no directory" else folder, updates=0 if why == "fresh" else 8
    )
    if why == "asked before":
        assert run.resume() is not None
    assert run.resume() is None
    assert warned == []


@pytest.mark.parametrize("spoiled", [b"{", b'{"version": 99}', b"[]"])
def test_a_damaged_state_is_one_warning_and_a_new_run(spoiled: bytes, tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    first.resume()
    recorded(first, 0, 5)
    first.close()
    (tmp_path / "gradients" / saved.NAME).write_bytes(spoiled)
    run, warned = made(tmp_path, updates=8)
    assert run.resume() is None
    ((about, message),) = warned
    assert about == "resume"
    assert f"could not take up the run in {str(tmp_path / 'gradients')!r}, and begins" in message
    assert message.endswith("Training goes on.")
    assert run.last is None
    # It goes on with a file of its own, which a third process can take up.
    assert recorded(run, 8) == [8]
    run.close()
    third, warned = made(tmp_path, updates=9)
    past = third.resume()
    assert past is not None
    assert [d.step for d in past.history] == [8]
    assert warned == []


def test_damage_is_not_read_again(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    first.resume()
    recorded(first, 0)
    first.close()
    (tmp_path / "gradients" / saved.NAME).write_bytes(b"{")
    run, warned = made(tmp_path, updates=8)
    for _ in range(2):
        run.resume()
    assert len(warned) == 1


# Writing.


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether writing fails from now on."""
    write, whole = EventWriter.write, file_system.write_whole
    fails = False

    def broken(what: Callable[..., None]) -> Callable[..., None]:
        def writing(*args: Any, **options: Any) -> None:
            if fails:
                raise OSError("no space")
            what(*args, **options)

        return writing

    monkeypatch.setattr(EventWriter, "write", broken(write))
    monkeypatch.setattr(file_system, "write_whole", broken(whole))

    def switch(on: bool) -> None:
        nonlocal fails
        fails = on

    return switch


def test_a_write_that_fails_is_told_and_the_run_goes_on(
    failing: Callable[[bool], None], tmp_path: Path
) -> None:
    run, warned = made(tmp_path)
    run.resume()
    recorded(run, 0)
    failing(True)
    recorded(run, 1)
    # Of the history and of the state.
    assert [about for about, _ in warned] == ["writing", "writing"]
    assert f"could not write to log_dir={str(tmp_path)!r}: OSError('no space')" in warned[0][1]
    failing(False)
    recorded(run, 2)
    assert len(warned) == 2
    run.close()
    assert [d.step for d in read(tmp_path)] == [0, 2]
    assert run.last is not None
    assert run.last.step == 2


def test_a_state_is_written_where_it_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(file_system, "write_whole", lambda path, data: written.append(data))
    run, _ = made(tmp_path)
    run.save({})
    assert written == []  # Before `resume`, nothing is known of the folder.
    run.resume()
    for known in ({}, {}, {"clip": 1}, {"clip": 1}, {}):
        run.save(known)
    assert len(written) == 3


def test_without_a_directory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, warned = made(None)
    run.resume()
    recorded(run, 0)
    run.write_interventions([Intervention(0, "clip", "test")])
    run.close()
    assert list(tmp_path.iterdir()) == []
    assert warned == []


@pytest.mark.parametrize("histograms", [False, True])
def test_histograms_are_written_where_they_are_wanted(
    histograms: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(EventWriter, "write", lambda self, *args: seen.append(args))
    run, _ = made(tmp_path, histograms=histograms)
    diagnosis = run.diagnosed(captured(0))
    run.write(diagnosis, captured(0), {"gradients/learning_rate": 0.5})
    ((written, drawn, verdict, numbers),) = seen
    assert written is diagnosis
    assert (verdict, numbers) == ("unknown", {"gradients/learning_rate": 0.5})
    assert (drawn is not None) == histograms
    if histograms:
        assert drawn.counts.sum() == 3000


def test_it_moves_to_another_directory(tmp_path: Path) -> None:
    run, _ = made(tmp_path / "a")
    run.resume()
    recorded(run, 0)
    run.move(str(tmp_path / "b"))
    run.resume()
    recorded(run, 1)
    run.close()
    assert [d.step for d in read(tmp_path / "a")] == [0]
    assert [d.step for d in read(tmp_path / "b")] == [1]
    silent, _ = made(None)
    silent.move(str(tmp_path / "c"))
    recorded(silent, 0)
    assert not (tmp_path / "c").exists()


def test_a_copy_takes_part_in_another_fit(tmp_path: Path) -> None:
    run, _ = made(tmp_path)
    recorded(run, 0, 1, rms=VANISHING)
    twin = copy.copy(run)
    assert not twin.settled
    with pytest.raises(AssertionError):
        _ = twin.recording
    assert twin.verdict == "vanishing"
    run.close()
