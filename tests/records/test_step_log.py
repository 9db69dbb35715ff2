from __future__ import annotations

import math

from keras_vanish.records.step_log import StepLog


def test_a_log_of_nothing_knows_nothing() -> None:
    log = StepLog()
    assert (log.norms, log.losses, log.clipped, log.skipped) == ((), (), 0, 0)
    assert not log.stalled
    assert math.isnan(log.rate)
    assert log.momentum == 0.0
