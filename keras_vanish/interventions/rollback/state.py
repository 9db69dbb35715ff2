"""What `Rollback` keeps of a run, and what it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from keras_vanish.diagnosis.loss_trend import LossTrend
from keras_vanish.interventions.intervention import Intervention


@dataclass(frozen=True)
class Decision:
    """What to do after a look, in this order.

    Attributes:
        restore: Take the run back to the last good state.
        stop: Stop the training.
        keep: This is a good state: copy it.
        factor: What to multiply the learning rate by, after restoring.
        intervention: The record of it; None where nothing was done but keeping.
    """

    keep: bool = False
    restore: bool = False
    stop: bool = False
    factor: float = 1.0
    intervention: Intervention | None = None


@dataclass(frozen=True)
class RollbackState:
    """What `Rollback` keeps from look to look.

    Attributes:
        trend: Where the loss is going.
        restores: How often the run was taken back, since the last long calm.
        step: Of the look before.
        since: Steps since the run was taken back.
        barren: How often in a row it was taken back and no finite loss came after.
        kept: Steps since a state was kept.
        skipped: How many of the last updates in a row were skipped.
        stalled: For how many steps no update was applied.
        stopped: Whether the training was stopped.
        ratio: The largest median update ratio at looks without trouble since the run was taken
            back; NaN before one.
        born: What was wrong with the units at the first reading; None before it.
        looks: How many looks there were.
        worse: For how many steps gradients have exploded, with the loss well above its first level.
        forgotten: For how many steps they have, and nothing is known any more of what was learned.
    """

    trend: LossTrend = field(default_factory=LossTrend)
    restores: int = 0
    step: int = 0
    since: int = 0
    barren: int = 0
    kept: float = math.inf
    skipped: int = 0
    stalled: int = 0
    stopped: bool = False
    ratio: float = math.nan
    born: str | None = None
    looks: int = 0
    worse: int = 0
    forgotten: int = 0
