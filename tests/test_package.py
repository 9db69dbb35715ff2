"""The package as a whole: what importing it loads, its public names, its metadata."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import run_python
from repository import setup_cfg

import keras_vanish

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "keras_vanish"

if TYPE_CHECKING:
    # What a type checker must see; mypy checks this file.
    typed_monitor = keras_vanish.GradientMonitor("logs")
    typed_history: list[keras_vanish.Diagnosis] = typed_monitor.history
    typed_read: list[keras_vanish.Diagnosis] = list(keras_vanish.read("logs"))
    typed_reading: keras_vanish.Reading = typed_read[0].reading
    typed_layers: tuple[keras_vanish.LayerReading, ...] = typed_reading.layers
    wrong: int = typed_read[0].verdict  # type: ignore[assignment]
    misspelt = keras_vanish.GradientMonitr  # type: ignore[attr-defined]


def frameworks_loaded_by(statement: str) -> set[str]:
    result = run_python(
        f"{statement}\nimport sys\nprint(*{{'keras', 'tensorflow'}} & {{*sys.modules}})"
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.smoke
@pytest.mark.parametrize(
    "statement",
    [
        "import keras_vanish",
        "import keras_vanish; dir(keras_vanish)",
        "from keras_vanish import Diagnosis, LayerReading, Reading",
        "from keras_vanish import read",
        "import keras_vanish.cli",
    ],
)
def test_reading_a_log_does_not_load_tensorflow(statement: str) -> None:
    assert frameworks_loaded_by(statement) == set()


@pytest.mark.smoke
def test_the_check_above_can_fail() -> None:
    loaded = frameworks_loaded_by("from keras_vanish import GradientMonitor")
    assert loaded == {"keras", "tensorflow"}


@pytest.mark.parametrize("name", keras_vanish.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(keras_vanish, name).__name__ == name


def test_public_names_are_listed() -> None:
    assert set(keras_vanish.__all__) == set(keras_vanish._MODULES)
    assert dir(keras_vanish) == keras_vanish.__all__


def test_unknown_names_are_attribute_errors() -> None:
    name = "GradientMonitr"
    with pytest.raises(AttributeError, match="'keras_vanish' has no attribute 'GradientMonitr'"):
        getattr(keras_vanish, name)


IMPORT = "from keras_vanish import GradientMonitor"


def test_missing_tensorflow_names_the_extras(without: Callable[[str], str]) -> None:
    result = run_python(without("tensorflow") + IMPORT)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith("ImportError: keras_vanish.GradientMonitor needs TensorFlow.")
    assert "Received: an environment in which there is no module named 'tensorflow'." in message
    config = setup_cfg()
    for extra in ("tensorflow", "tensorflow-cpu", "gpu"):
        assert f'"keras-vanish[{extra}]"' in message
        assert "tensorflow" in config["options.extras_require"][extra]


def test_other_missing_modules_are_not_blamed_on_tensorflow(
    without: Callable[[str], str],
) -> None:
    result = run_python(without("numpy") + IMPORT)
    message = result.stderr.splitlines()[-1]
    assert message == "ModuleNotFoundError: No module named 'numpy'"


def test_tensorflow_is_never_a_hard_dependency() -> None:
    required = setup_cfg()["options"]["install_requires"].split()
    assert required
    assert not [name for name in required if name.startswith("tensorflow")]


def test_no_fact_stands_in_both_setup_cfg_and_pyproject() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    tables = re.findall(r"^\[+([a-z-]+(?:\.[a-z-]+)?)", pyproject, re.MULTILINE)
    assert set(tables) == {"build-system", "tool.mypy", "tool.pytest", "tool.ruff"}
    assert re.findall(r"^requires = (.*)", pyproject, re.MULTILINE) == ['["setuptools>=77"]']
    # Both would repeat `python_requires`.
    assert "python_version" not in pyproject
    assert "target-version" not in pyproject
    sections = {section.partition(".")[0] for section in setup_cfg().sections()}
    assert sections == {"metadata", "options"}


def test_py_typed_is_shipped() -> None:
    assert (SOURCE / "py.typed").is_file()
    assert "py.typed" in setup_cfg()["options.package_data"]["keras_vanish"]
