"""The policy of `auto_rollback`."""

from keras_vanish.interventions.rollback.policy import Rollback
from keras_vanish.interventions.rollback.state import Decision, RollbackState

__all__ = ["Decision", "Rollback", "RollbackState"]
