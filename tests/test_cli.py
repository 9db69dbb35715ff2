from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from event_files import write
from factories import MakeReading

from keras_vanish.cli import main
from keras_vanish.diagnosis import diagnose
from keras_vanish.report import doctor
from keras_vanish.report.table import render


def damage(run: Path) -> None:
    (path,) = (run / "gradients").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def logs(tmp_path: Path, make_reading: MakeReading) -> Path:
    write(tmp_path / "a", *(make_reading(step=step, rms=[1, 1]) for step in range(3)))
    write(tmp_path / "b", *(make_reading(step=step, rms=[1e-9, 1e-8, 1, 1]) for step in range(3)))
    return tmp_path


def test_report(logs: Path, make_reading: MakeReading, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logs)]) == 0
    output = capsys.readouterr()
    healthy = [diagnose(make_reading(step=step, rms=[1, 1])) for step in range(3)]
    sick = [diagnose(make_reading(step=step, rms=[1e-9, 1e-8, 1, 1])) for step in range(3)]
    expected = [
        render(healthy, "healthy", title="a"),
        render(sick, "vanishing", title="b"),
    ]
    assert output.out == "".join(text + "\n" for text in expected)
    assert output.err == ""


def test_report_of_one_run(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logs / "a")]) == 0
    assert capsys.readouterr().out.startswith(".\nHealthy. ")


def test_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("keras-vanish: There is no such folder. Received: ")
    assert output.out == ""


def test_a_damaged_run_does_not_hide_the_others(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(logs / "a")
    assert main(["report", str(logs)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("keras-vanish: The event file cannot be read: the checksum")
    assert output.out.startswith("b\nVanishing. ")


def test_doctor(logs: Path, make_reading: MakeReading, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(logs)]) == 1
    output = capsys.readouterr()
    healthy = [diagnose(make_reading(step=step, rms=[1, 1])) for step in range(3)]
    sick = [diagnose(make_reading(step=step, rms=[1e-9, 1e-8, 1, 1])) for step in range(3)]
    expected = [doctor.render(healthy, title="a"), doctor.render(sick, title="b")]
    assert output.out == "".join(text + "\n" for text in expected)
    assert output.err == ""


@pytest.mark.parametrize(
    ("rms", "columns", "status"),
    [
        ([1.0, 1.0], {}, 0),
        ([1e-9, 1e-8, 1.0, 1.0], {}, 1),
        ([1.0, 1.0], {"update_rms": 1.0}, 1),
        ([1.0, 1.0], {"inf_count": 1.0}, 1),
        # One layer: nothing is known, and so nothing found.
        ([1.0], {}, 0),
    ],
)
def test_the_exit_status_of_doctor(
    rms: list[float],
    columns: dict[str, float],
    status: int,
    tmp_path: Path,
    make_reading: MakeReading,
) -> None:
    write(tmp_path, *(make_reading(step=step, rms=rms, **columns) for step in range(3)))
    assert main(["doctor", str(tmp_path)]) == status


def test_a_cured_run_is_not_ill(tmp_path: Path, make_reading: MakeReading) -> None:
    sick = (make_reading(step=step, rms=[1e-9, 1e-8, 1]) for step in range(3))
    cured = (make_reading(step=step, rms=[1, 1, 1]) for step in range(3, 6))
    write(tmp_path, *sick, *cured)
    assert main(["doctor", str(tmp_path)]) == 0


def test_doctor_as_json(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(logs / "a")
    assert main(["doctor", "--json", str(logs)]) == 2
    output = capsys.readouterr()
    told = json.loads(output.out)
    assert told["status"] == 2
    assert told["runs"]["a"]["error"].startswith("The event file cannot be read: the checksum")
    assert told["runs"]["b"]["verdict"] == "vanishing"
    assert output.err.startswith("keras-vanish: The event file cannot be read: the checksum")


def test_a_damaged_run_outweighs_an_ill_one(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(logs / "a")
    assert main(["doctor", str(logs)]) == 2
    assert capsys.readouterr().out.startswith("b\nVanishing. ")


def test_doctor_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", str(tmp_path / "nowhere")]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("keras-vanish: There is no such folder. Received: ")
    assert output.out == ""


def test_color_on_a_terminal_only(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["report", str(logs)])
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["report", str(logs)])
    assert "\x1b[1;31mVanishing" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_a_terminal_that_lacks_characters(
    command: str, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    main([command, str(logs)])
    sys.stdout.flush()
    printed = buffer.getvalue()
    assert b"?" not in printed
    assert (b"0.00 > 0.00" if command == "report" else b"\n# from 1e0") in printed


def test_nobody_reads_to_the_end(logs: Path) -> None:
    code = "import sys; from keras_vanish.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "doctor", str(logs)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2.3 of {name}")
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == "keras-vanish 1.2.3 of keras-vanish\n"


def test_version_of_a_source_tree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "keras-vanish (not installed)\n"


@pytest.mark.parametrize("arguments", [[], ["report"], ["doctor"], ["demo", "x"], ["nonsense"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: keras-vanish" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_the_command_does_not_import_tensorflow(command: str, logs: Path) -> None:
    code = (
        "import sys; from keras_vanish.cli import main; "
        f"status = main([{command!r}, {str(logs)!r}]); "
        "print(status, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, encoding="utf8"
    )
    assert done.stdout.splitlines()[-1:] == [f"{int(command == 'doctor')} False False"], done.stderr
