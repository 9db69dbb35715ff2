"""The training that the flags act on."""

from __future__ import annotations

from typing import Any

import pytest
from fake_backend import fake_training


def test_a_snapshot_is_of_the_model_and_its_optimizer() -> None:
    training: Any = fake_training()
    snapshot = training.snapshot()
    training.model.weights[:] = 0.0
    training.optimizer.velocity = 0.0
    training.restore(snapshot)
    assert training.model.weights.tolist() == [3.0, 4.0]
    assert training.optimizer.velocity == 1.0


def test_metrics_begin_anew_with_an_earlier_state() -> None:
    training: Any = fake_training()
    training.restore(training.snapshot())
    assert training.model.resets == 1


def test_a_state_is_assigned_where_the_backend_allows_it() -> None:
    training: Any = fake_training()
    snapshot = training.snapshot()
    with pytest.raises(AssertionError, match="restore outside of `assigning`"):
        snapshot.restore()
    training.restore(snapshot)
    assert training.backend.log == ["snapshot", "restore"]
