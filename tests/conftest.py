"""What several test modules need."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from keras_vanish.reading import COLUMNS, Reading

with warnings.catch_warnings():
    # What TensorBoard vendors warns about itself when it is imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorboard.plugin_util  # noqa: F401


def _make_reading(
    step: int = 0,
    rms: Sequence[float] = (1e-3, 1e-3, 1e-3),
    names: Sequence[str] | None = None,
    units: int = 32,
    wall_time: float | None = None,
    **columns: float | Sequence[float],
) -> Reading:
    """A reading of a healthy model, one layer for each gradient RMS.

    Args:
        step: The step.
        rms: Gradient RMS of each layer, input side first.
        names: Names of the layers; `dense_0`, `dense_1`, ... by default.
        units: Width of every layer.
        wall_time: Seconds since 1970; by default one second a step.
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
    )


@pytest.fixture(scope="session")
def make_reading() -> Callable[..., Reading]:
    """The factory `make_reading(step=0, rms=[...], **columns)`."""
    return _make_reading
