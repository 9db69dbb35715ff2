"""What several tests of diagnosis need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_vanish.diagnosis import diagnose
from keras_vanish.records.probed import Probed
from keras_vanish.records.readings import Reading

# Tests of this folder and those below import what they share.
sys.path.insert(0, str(Path(__file__).parent))

from diagnosis_helpers import NOT_LEARNED  # noqa: E402


@pytest.fixture(scope="session")
def falling() -> Callable[..., list[float]]:
    """The factory `falling(layers, decades, lowest=1e-9)`."""

    def make(layers: int, decades: float, lowest: float = 1e-9) -> list[float]:
        """RMS that falls by `decades` in all, the same at each layer, towards the input."""
        return [lowest * 10 ** (decades * i / (layers - 1)) for i in range(layers)]

    return make


@pytest.fixture(scope="session")
def close() -> Callable[..., Any]:
    """The comparison `close(*values)`: equal but for rounding, and NaN equals NaN."""
    return lambda *values: pytest.approx(
        values if len(values) > 1 else values[0], abs=1e-9, nan_ok=True
    )


@pytest.fixture(scope="session")
def outcome(
    make_reading: Callable[..., Reading], make_probed: Callable[..., Probed]
) -> Callable[..., tuple[str, str, tuple[str, ...]]]:
    """The function `outcome(rms=[...], seen=[...], names=[...], probed={...}, **columns)`."""

    def of(
        rms: Any = (1.0,) * 5,
        seen: Any = (1.0,) * 5,
        names: Any = ("a", "b", "c", "d", "e"),
        probed: dict[str, Any] | None = None,
        **columns: Any,
    ) -> tuple[str, str, tuple[str, ...]]:
        """Verdict, cause and blame for one reading of a run that has not learned anything.

        Args:
            rms: RMS of the gradient of each layer's weights.
            seen: RMS of the gradient of each probed layer's output.
            names: The probed layers.
            probed: Further columns of what the probe saw.
            **columns: Further columns of the reading.
        """
        saw = make_probed(seen, list(names), **(probed or {}))
        found = diagnose(make_reading(rms=rms, probed=saw, **columns), NOT_LEARNED)
        return found.verdict, found.cause, found.blame

    return of
