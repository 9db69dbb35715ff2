"""What several test modules need."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from keras_vanish.records.activations import ACTIVATION_COLUMNS
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading
from keras_vanish.records.statistics import COLUMNS

# What several tests share and is no fixture, and the backend in plain Python.
for folder in ("helpers", "fakes"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

with warnings.catch_warnings():
    # What TensorBoard vendors warns about itself when it is imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorboard.plugin_util  # noqa: F401

# Nothing is asserted about time, by Hypothesis neither.
settings.register_profile("any_time", deadline=None)
settings.load_profile("any_time")


def _make_reading(
    step: int = 0,
    rms: Sequence[float] = (1e-3, 1e-3, 1e-3),
    names: Sequence[str] | None = None,
    units: int = 32,
    wall_time: float | None = None,
    probed: Probed | None = None,
    **columns: float | Sequence[float],
) -> Reading:
    """A reading of a healthy model, one layer for each gradient RMS.

    Args:
        step: The step.
        rms: Gradient RMS of each layer, input side first.
        names: Names of the layers; `dense_0`, `dense_1`, ... by default.
        units: Width of every layer.
        wall_time: Seconds since 1970; by default one second a step.
        probed: What the probe saw; see `make_probed`.
        **columns: Values for other columns of `Statistics`: one for all layers, or one a
            layer.
    """
    values = {name: np.zeros(len(rms)) for name in COLUMNS}
    values["size"] += 1000.0
    values["gradient_rms"] = np.array(rms, np.float64)
    values["gradient_norm"] = values["gradient_rms"] * np.sqrt(1000.0)
    values["gradient_norm_after_clipping"] = values["gradient_norm"]
    values["gradient_min"] = -values["gradient_rms"]
    values["gradient_max"] = values["gradient_rms"]
    values["weight_rms"] += 0.1
    values["update_rms"] += 1e-4
    unknown = set(columns) - set(COLUMNS)
    assert not unknown, unknown
    values.update({name: np.broadcast_to(value, len(rms)) for name, value in columns.items()})
    return Reading(
        step=step,
        wall_time=1.7e9 + step if wall_time is None else wall_time,
        names=tuple(names or (f"dense_{i}" for i in range(len(rms)))),
        units=(units,) * len(rms),
        table=np.stack([values[name] for name in COLUMNS], 1).astype(np.float64),
        probed=probed,
    )


def _make_probed(
    rms: Sequence[float] = (1e-3, 1e-3, 1e-3),
    names: Sequence[str] | None = None,
    loss: float = 1.0,
    shuffled_loss: float = 2.0,
    profiles: Mapping[str, Sequence[float]] | None = None,
    **columns: float | Sequence[float],
) -> Probed:
    """What the probe saw of a healthy model, one layer for each gradient RMS.

    Args:
        rms: RMS of the gradient with respect to each layer's output, in the order of the
            forward pass.
        names: Names of the layers; `dense_0`, `dense_1`, ... by default.
        loss: The loss.
        shuffled_loss: The loss with the inputs of other samples.
        profiles: RMS of dL/dh_t by recurrent layer.
        **columns: Values for other `ACTIVATION_COLUMNS`: one for all layers, or one a layer.
            What does not apply to every layer is NaN by default.
    """
    values = {name: np.full(len(rms), np.nan) for name in ACTIVATION_COLUMNS}
    values["size"] = np.full(len(rms), 32.0)
    values["gradient_rms"] = np.array(rms, np.float64)
    values["output_rms"] = np.ones(len(rms))
    values["gradient_nonfinite_count"] = values["output_nonfinite_count"] = np.zeros(len(rms))
    unknown = set(columns) - set(ACTIVATION_COLUMNS)
    assert not unknown, unknown
    values.update({name: np.broadcast_to(value, len(rms)) for name, value in columns.items()})
    return Probed(
        loss=loss,
        shuffled_loss=shuffled_loss,
        names=tuple(names or (f"dense_{i}" for i in range(len(rms)))),
        table=np.stack([values[name] for name in ACTIVATION_COLUMNS], 1).astype(np.float64),
        profiles={name: np.array(profile, float) for name, profile in (profiles or {}).items()},
    )


@pytest.fixture(scope="session")
def make_reading() -> Callable[..., Reading]:
    """The factory `make_reading(step=0, rms=[...], **columns)`."""
    return _make_reading


@pytest.fixture(scope="session")
def make_probed() -> Callable[..., Probed]:
    """The factory `make_probed(rms=[...], profiles={...}, **columns)`."""
    return _make_probed


_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="session")
def without() -> Callable[[str], str]:
    """The beginning of a program in which a module cannot be imported: `without("numpy")`."""
    return lambda module: _WITHOUT.format(module=module)


# Many tests need no TensorFlow, and start faster without.


@pytest.fixture
def op_determinism() -> Iterator[None]:
    """TensorFlow's op determinism, for one test."""
    from tensorflow.python.framework import config

    config.enable_op_determinism()
    yield
    config.disable_op_determinism()


@pytest.fixture
def cpu() -> Iterator[None]:
    """Runs a test that asks for the last bits on a CPU: a GPU rounds them otherwise."""
    import tensorflow as tf

    with tf.device("CPU"):
        yield
