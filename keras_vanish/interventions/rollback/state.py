"""The state and the decisions of `Rollback`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from keras_vanish.diagnosis.loss_trend import LossTrend
from keras_vanish.interventions.intervention import Intervention


@dataclass(frozen=True)
class Decision:
    """The actions to take after an observation, in this order.

    Attributes:
        restore: Whether to take the run back to the last good state.
        stop: Whether to stop the training.
        keep: Whether to keep a copy of the present, good state.
        factor: The factor on the learning rate after restoring.
        intervention: The record of the action; None if no more than a copy is made.
    """

    keep: bool = False
    restore: bool = False
    stop: bool = False
    factor: float = 1.0
    intervention: Intervention | None = None


@dataclass(frozen=True)
class RollbackState:
    """The state that `Rollback` keeps between two observations.

    Attributes:
        trend: The trend of the loss.
        restores: The number of rollbacks since the last long calm.
        step: The step of the previous observation.
        since: The number of steps since the last rollback.
        barren: The number of rollbacks in a row that no finite loss followed.
        kept: The number of steps since a state was kept.
        skipped: The number of last updates in a row that were skipped.
        stalled: The number of steps in a row without an applied update.
        stopped: Whether the training was stopped.
        ratio: The largest median update ratio at observations without trouble since the last
            rollback; NaN before the first.
        born: How units were lost in the first diagnosis (see `Observation.lost`); None before it.
        looks: The number of observations.
        worse: The number of steps for which gradients have exploded with the loss well above its
            first level.
        forgotten: The number of steps for which gradients have exploded and the model no longer
            uses its input.
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
