"""Watches the gradients of a Keras model while it trains.

Importing this package imports neither TensorFlow nor Keras: the public names are loaded
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vanish.diagnosis import Diagnosis
    from keras_vanish.logs.events import read
    from keras_vanish.monitor import GradientMonitor
    from keras_vanish.records.activations import ActivationReading
    from keras_vanish.records.probed import Probed
    from keras_vanish.records.readings import LayerReading, Reading
    from keras_vanish.records.recurrent import RecurrentReading
    from keras_vanish.records.statistics import Statistics

__all__ = [
    "ActivationReading",
    "Diagnosis",
    "GradientMonitor",
    "LayerReading",
    "Probed",
    "Reading",
    "RecurrentReading",
    "Statistics",
    "read",
]

_MODULES = {
    "ActivationReading": "records.activations",
    "Diagnosis": "diagnosis.diagnosis",
    "GradientMonitor": "monitor",
    "LayerReading": "records.readings",
    "Probed": "records.probed",
    "Reading": "records.readings",
    "RecurrentReading": "records.recurrent",
    "Statistics": "records.statistics",
    "read": "logs.events",
}


def _load(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(
            f"{__name__}.{name} needs TensorFlow. Received: an environment in which there is "
            "no module named 'tensorflow'. Install it under the name that suits the machine: "
            'pip install "keras-vanish[tensorflow]", "keras-vanish[tensorflow-cpu]" (smaller, '
            'no GPU) or "keras-vanish[gpu]" (with the CUDA libraries).'
        ) from error
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


if not TYPE_CHECKING:
    # Type checkers take names that they do not find from a module's `__getattr__`, and
    # would not notice a misspelt one.
    __getattr__ = _load
