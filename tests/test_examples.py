"""The examples, run as a user runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

import keras_vanish
from keras_vanish.diagnosis import verdict_of
from keras_vanish.logs.run_folders import runs

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

#: The verdict on each run that an example leaves; `.` is its log directory itself.
VERDICTS = {
    "custom_loop": {".": "healthy"},
    "deep_cnn": {".": "healthy"},
    "deep_sigmoid_rescued": {"rescued": "healthy", "untouched": "vanishing"},
    "demo": {"healthy": "healthy", "vanishing": "vanishing"},
    "encoder_decoder": {".": "healthy"},
    "multi_worker": {".": "healthy"},
    "nan_rescued": {"rescued": "healthy", "untouched": "nonfinite"},
    "quickstart": {".": "healthy"},
    "rnn_time_series": {".": "healthy"},
    "transfer_learning": {".": "healthy"},
}

#: Those that train for minutes on two cores.
SLOW = ("deep_cnn", "encoder_decoder", "rnn_time_series", "transfer_learning")


def run(name: str, log_dir: Path) -> str:
    """What an example prints; its warnings are checked for ours."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--logdir", log_dir],
        cwd=log_dir.parent,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "GradientMonitor" not in result.stderr
    return result.stdout


def accuracies(printed: str) -> list[int]:
    return [int(percent) for percent in re.findall(r"Accuracy.*: (\d+)%", printed)]


def check_runs(name: str, printed: str, log_dir: Path) -> None:
    verdicts = {}
    for run_name, directory in runs(log_dir).items():
        history = keras_vanish.read(directory)
        verdicts[run_name] = verdict_of(history)
        assert len(history) >= 10
        assert f"Recorded {len(history)} steps: " in printed
    assert verdicts == VERDICTS[name]
    printed_verdicts = {verdict.lower() for verdict in re.findall(r"^([A-Z]\w+)\. ", printed, re.M)}
    assert printed_verdicts == set(VERDICTS[name].values())
    assert f"tensorboard --logdir {log_dir}\n" in printed


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(VERDICTS)


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW))
        for name, found in sorted(VERDICTS.items())
        if set(found) == {"."}
    ],
)
def test_an_example_learns_and_is_healthy(name: str, tmp_path: Path) -> None:
    log_dir = tmp_path / "logs"
    printed = run(name, log_dir)
    check_runs(name, printed, log_dir)
    assert all(percent >= 80 for percent in accuracies(printed)[-1:])


@pytest.mark.parametrize(
    "name", [pytest.param("deep_sigmoid_rescued", marks=pytest.mark.soak), "nan_rescued"]
)
def test_a_flag_rescues_a_run(name: str, tmp_path: Path) -> None:
    log_dir = tmp_path / "logs"
    printed = run(name, log_dir)
    check_runs(name, printed, log_dir)
    untouched, rescued = accuracies(printed)
    assert untouched <= 30
    assert rescued >= 95
    journal = log_dir / "rescued" / "gradients" / "interventions.jsonl"
    assert f": {journal}\n" in printed
    assert printed.count("GradientMonitor: ") == len(journal.read_text().splitlines())


def test_the_demo_vanishes_and_does_not(tmp_path: Path) -> None:
    log_dir = tmp_path / "logs"
    earlier = log_dir / "healthy" / "gradients" / "events.out.tfevents.1.earlier"
    others = log_dir / "healthy" / "notes.txt", log_dir / "mine" / earlier.name
    for path in (earlier, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    printed = run("demo", log_dir)

    check_runs("demo", printed, log_dir)
    vanishing, healthy = accuracies(printed)
    assert vanishing <= 30
    assert healthy >= 80
    for name in ("vanishing", "healthy"):
        assert any((log_dir / name / "train").glob("events.out.tfevents.*"))
    assert not earlier.exists()
    assert all(path.exists() for path in others)
    command = re.search(r"^ +(\S*tensorboard) --logdir", printed, re.M)
    assert command is not None
    assert (tmp_path / command[1]).is_file()
