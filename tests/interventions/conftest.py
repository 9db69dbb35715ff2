"""What the tests of several policies need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vanish.diagnosis import Verdict, diagnose
from keras_vanish.interventions import Observation
from keras_vanish.records.readings import Reading
from keras_vanish.records.step_log import StepLog

# Tests of this folder and those below import what they share.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def make_observation(make_reading: Callable[..., Reading]) -> Callable[..., Observation]:
    """The factory `make_observation(step=0, losses=[...], ratio=..., rms=[...], **more)`."""

    def make(
        step: int = 0,
        losses: Sequence[float] = (),
        norms: Sequence[float] = (),
        ratio: float | Sequence[float] = 0.001,
        verdict: Verdict | None = None,
        learned: bool | None = None,
        recorded: bool = True,
        clipped: int = 0,
        skipped: int = 0,
        stalled: bool = False,
        rate: float = 0.1,
        momentum: float = 0.0,
        **reading: Any,
    ) -> Observation:
        """An observation of a run with update ratios of `ratio`; its verdict is its diagnosis's."""
        scale = reading.setdefault("weight_rms", 0.1)
        rms = reading.pop("rms", [1e-3] * 3)
        ratios = ratio if isinstance(ratio, Sequence) else [ratio] * len(rms)
        updates = np.multiply(ratios, scale)
        diagnosis = diagnose(make_reading(step=step, rms=rms, update_rms=updates, **reading))
        return Observation(
            step=step,
            diagnosis=diagnosis if recorded else None,
            verdict=verdict or diagnosis.verdict,
            learned=learned,
            log=StepLog(tuple(norms), tuple(losses), clipped, skipped, stalled, rate, momentum),
        )

    return make


@pytest.fixture(scope="session")
def make_scaled_observation(
    make_observation: Callable[..., Observation],
) -> Callable[..., Observation]:
    """The factory `make_scaled_observation(fields, scale)`: loss and gradients times `scale`.

    The rate is divided by it, so that updates are the same.
    """

    def make(fields: Mapping[str, Any], scale: float) -> Observation:
        scaled = {
            "losses": [scale * loss for loss in fields["losses"]],
            "norms": [scale * norm for norm in fields["norms"]],
            "rms": [scale * 1e-3] * 3,
            "rate": fields["rate"] / scale,
        }
        return make_observation(**{**fields, **scaled})

    return make
