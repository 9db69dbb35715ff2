"""What a monitor keeps over all of its fits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend, FakeOptimizer, FakeRecording, captured

from keras_vanish import Diagnosis, read
from keras_vanish.diagnosis import diagnose
from keras_vanish.history import History
from keras_vanish.interventions import Intervention
from keras_vanish.logs.event_writer import EventWriter
from keras_vanish.logs.state import Past, State
from keras_vanish.run import Run

HEALTHY, VANISHING = (1e-3,) * 3, (1e-12, 1e-11, 1e-3)
EXPLODING = {"rms": HEALTHY, "update_rms": 1e3}


def begun(history: History, key: str = "", name: str = "", writes: bool = True) -> Run:
    run = history.run(key, writes)
    run.attach(FakeRecording(FakeBackend(), FakeOptimizer(), 1))
    run.settle(name)
    run.begin_fit()
    return run


def recorded(history: History, run: Run, *updates: int, **columns: Any) -> list[Diagnosis]:
    found = []
    for update in updates:
        seen = captured(update, **columns)
        found.append(history.diagnosed(run, seen))
        history.write(run, found[-1], seen, {})
    return found


def test_a_run_is_known_by_its_key() -> None:
    history = History(None, True, None)
    main, other = history.run("", writes=True), history.run("critic", writes=True)
    assert history.run("", writes=False) is main
    assert history.run("critic", writes=True) is other
    assert history.is_main(main)
    assert not history.is_main(other)


def test_a_process_that_is_not_the_chief_writes_nothing(tmp_path: Path) -> None:
    history = History(str(tmp_path), True, None)
    recorded(history, begun(history, writes=False), 0)
    assert list(tmp_path.iterdir()) == []
    assert len(history.diagnoses) == 1


def test_the_verdict_of_several_optimizers_is_the_worst() -> None:
    history = History(None, True, None)
    assert (history.verdict, history.verdicts) == ("unknown", {})
    runs = {name: begun(history, name, name) for name in ("a", "b", "c", "unread")}
    recorded(history, runs["a"], 0, 1, rms=HEALTHY)
    assert history.verdict == "healthy"
    recorded(history, runs["b"], 0, 1, rms=VANISHING)
    assert history.verdict == "vanishing"
    recorded(history, runs["c"], 0, 1, **EXPLODING)
    assert history.verdict == "exploding"
    assert history.verdicts == {"a": "healthy", "b": "vanishing", "c": "exploding"}
    # One that is healthy again does not hide another.
    recorded(history, runs["c"], 2, 3, 4, rms=HEALTHY)
    assert history.verdict == "vanishing"


def test_everything_is_kept_in_order_and_told() -> None:
    told: list[Diagnosis] = []
    history = History(None, True, told.append)
    runs = [begun(history, name, name) for name in ("a", "b")]
    found = [recorded(history, run, update)[0] for update in (0, 1) for run in runs]
    assert history.diagnoses == told == found
    assert [diagnosis.optimizer for diagnosis in told] == ["a", "b", "a", "b"]


def test_a_failure_of_on_diagnosis_is_one_warning_and_history_goes_on(tmp_path: Path) -> None:
    calls: list[int] = []

    def fail(diagnosis: Diagnosis) -> None:
        calls.append(diagnosis.step)
        raise ZeroDivisionError("alert")

    history = History(str(tmp_path), True, fail)
    run = begun(history)
    with pytest.warns(UserWarning, match="on_diagnosis raised ZeroDivisionError") as caught:
        recorded(history, run, 0, 1, 2)
    assert len(caught) == 1
    assert calls == [0, 1, 2]
    history.close()
    assert [d.step for d in read(tmp_path)] == [0, 1, 2]


def test_what_ends_a_program_ends_it_there_too() -> None:
    def stop(diagnosis: Diagnosis) -> None:
        raise KeyboardInterrupt

    history = History(None, True, stop)
    with pytest.raises(KeyboardInterrupt):
        recorded(history, begun(history), 0)
    assert len(history.diagnoses) == 1


def test_a_write_that_fails_is_one_warning_and_history_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: EventWriter, *args: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(EventWriter, "write", full)
    told: list[Diagnosis] = []
    history = History(str(tmp_path), True, told.append)
    run = begun(history)
    run.resume()
    with pytest.warns(UserWarning, match="could not write to log_dir=.*no space") as caught:
        recorded(history, run, 0, 1, 2)
    assert len(caught) == 1
    assert [d.step for d in history.diagnoses] == [d.step for d in told] == [0, 1, 2]


def test_a_warning_is_given_once_a_subject() -> None:
    history = History(None, True, None)

    def warn_of(*told: tuple[str, str]) -> None:
        for about, message in told:
            history.warn(about, message)

    with pytest.warns(UserWarning, match="first|second|again") as caught:
        warn_of(("a", "first"), ("b", "second"), ("a", "again"))
    assert [str(warning.message) for warning in caught] == ["first", "second"]


def test_what_an_earlier_process_left_stands_first(make_reading: Any) -> None:
    history = History(None, True, None)
    # Of another optimizer's run, which this process has read already.
    history.diagnoses += [diagnose(make_reading(step=5, wall_time=50.0))]
    history.interventions += [Intervention(5, "clip", "now")]
    past = [diagnose(make_reading(step=step, wall_time=time)) for step, time in ((1, 10), (2, 60))]
    history.take_up(Past(State(0.0), past, [Intervention(1, "clip", "before")]))
    assert [d.step for d in history.diagnoses] == [1, 5, 2]
    assert [act.reason for act in history.interventions] == ["before", "now"]


def test_interventions_are_kept_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(str(tmp_path), True, None)
    run = begun(history)
    done = [Intervention(3, "clip", "one"), Intervention(3, "lower_rate", "two")]
    history.note(run, [])
    assert not (tmp_path / "gradients").exists()
    history.note(run, done)
    assert history.interventions == done
    printed = capsys.readouterr().out
    assert printed == "".join(f"\nGradientMonitor: {act.sentence()}\n" for act in done)
    lines = (tmp_path / "gradients" / "interventions.jsonl").read_text().splitlines()
    assert [Intervention.from_json(line) for line in lines] == done
    history.close()


@pytest.mark.parametrize("error", [OSError("closed"), ValueError("I/O on a closed file")])
def test_a_terminal_that_is_closed_stops_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("builtins.print", closed)
    history = History(None, True, None)
    history.note(begun(history), [Intervention(3, "clip", "one")])
    assert len(history.interventions) == 1


def test_files_are_closed_and_begun_anew(tmp_path: Path) -> None:
    history = History(str(tmp_path), True, None)
    run = begun(history)
    recorded(history, run, 0)
    history.close()
    history.close()
    recorded(history, run, 1)
    history.close()
    files = [path for path in (tmp_path / "gradients").iterdir() if "tfevents" in path.name]
    assert len(files) == 2
    assert [d.step for d in read(tmp_path)] == [0, 1]


def test_it_moves_with_all_of_its_runs(tmp_path: Path) -> None:
    history = History(str(tmp_path / "a"), True, None)
    runs = [begun(history, name, name) for name in ("x", "y")]
    history.move(str(tmp_path / "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for run in [*runs, begun(history, "z", "z")]:
            recorded(history, run, 0)
    history.close()
    assert not (tmp_path / "a").exists()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["x", "y", "z"]
