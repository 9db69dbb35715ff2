"""What the demo trains is in tests/test_examples.py; here, what it says where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import run_python

from keras_vanish import cli

ROOT = Path(__file__).parents[1]

DEMO = """
from keras_vanish.cli import main
sys.exit(main(["demo"]))
"""


@pytest.mark.parametrize(
    ("module", "begins", "extra"),
    [
        ("sklearn", "The demo trains on the digits of scikit-learn.", "examples"),
        ("tensorflow", "keras_vanish.GradientMonitor needs TensorFlow.", "tensorflow"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    module: str, begins: str, extra: str, without: Callable[[str], str], tmp_path: Path
) -> None:
    done = run_python(without(module) + DEMO, cwd=tmp_path)
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"keras-vanish: {begins} Received: ")
    assert f"no module named {module!r}" in message
    assert f'"keras-vanish[{extra}]"' in message
    assert not list(tmp_path.iterdir())


def test_where_the_logs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_vanish import demo

    called: list[Path] = []
    monkeypatch.setattr(demo, "run", called.append)
    assert cli.main(["demo", "--log-dir", "elsewhere"]) == 0
    assert cli.main(["demo"]) == 0
    assert called == [Path("elsewhere"), Path("logs")]
