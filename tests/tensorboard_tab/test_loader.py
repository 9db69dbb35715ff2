"""TensorBoard finds the tab, keeps its data, and is never broken by it."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest
from processes import run_python
from repository import setup_cfg
from tensorboard.plugins.base_plugin import TBContext

from keras_vanish.tensorboard_tab.loader import SAMPLES, GradientFlowLoader

ROOT = Path(__file__).parents[2]


def test_the_entry_point_is_the_loader() -> None:
    (line,) = setup_cfg()["options.entry_points"]["tensorboard_plugins"].split("\n")[1:]
    name, _, path = line.partition(" = ")
    module, _, attribute = path.partition(":")
    assert name == "gradient_flow"
    assert getattr(importlib.import_module(module), attribute) is GradientFlowLoader


def test_the_page_is_in_the_wheel() -> None:
    assert setup_cfg()["options.package_data"]["keras_vanish.tensorboard_tab"] == "static/*"


@pytest.mark.parametrize("given", [{}, {"images": 0}, None, ""])
def test_enough_samples_are_kept(given: object) -> None:
    flags = argparse.Namespace(samples_per_plugin=given)
    GradientFlowLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {**dict(given or {}), "gradient_flow": SAMPLES}


@pytest.mark.parametrize("wanted", [0, 5, 100_000])
def test_the_users_own_flag_wins(wanted: int) -> None:
    flags = argparse.Namespace(samples_per_plugin={"gradient_flow": wanted})
    GradientFlowLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {"gradient_flow": wanted}


def test_without_a_data_provider_there_is_no_tab() -> None:
    assert GradientFlowLoader().load(TBContext(data_provider=None)) is None


IMPORTS = """
import sys
before = {'keras', 'tensorflow', 'rich', 'h5py'}
from keras_vanish.tensorboard_tab.loader import GradientFlowLoader
import keras_vanish.tensorboard_tab.plugin
print(*sorted(before & {*sys.modules}))
"""


def test_neither_tensorflow_nor_keras_is_imported() -> None:
    # TensorBoard itself imports TensorFlow where it is installed, on first use.
    done = run_python(IMPORTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
