"""The types of the factories that `tests/conftest.py` has as fixtures."""

from __future__ import annotations

from collections.abc import Callable

from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading

MakeReading = Callable[..., Reading]
MakeProbed = Callable[..., Probed]
