"""The evidence for an illness: one reading, and whether the run had learned anything by then."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from keras_vanish.diagnosis.profiles import Profile, activation_profile, weight_profile
from keras_vanish.diagnosis.progress import LearningProgress
from keras_vanish.records.activations import ActivationReading
from keras_vanish.records.readings import LayerReading, Reading
from keras_vanish.records.recurrent import RecurrentReading


@dataclass(frozen=True)
class Evidence:
    """One reading, with the quantities that several illnesses need; each is computed once.

    Attributes:
        reading: The reading.
        progress: Whether the run had learned anything up to and with this reading.
    """

    reading: Reading
    progress: LearningProgress = field(default_factory=LearningProgress)

    @cached_property
    def layers(self) -> tuple[LayerReading, ...]:
        """One record a layer, input side first."""
        return self.reading.layers

    @cached_property
    def activations(self) -> tuple[ActivationReading, ...]:
        """One record a probed layer, in the order of the forward pass; empty without the probe."""
        return self.reading.activations

    @cached_property
    def timesteps(self) -> dict[str, RecurrentReading]:
        """By recurrent layer, its gradient through time; empty without the probe."""
        return self.reading.timesteps

    @cached_property
    def weight_profile(self) -> Profile:
        """How loud the loss is at each layer, by the gradients of weights."""
        return weight_profile(self.layers)

    @cached_property
    def activation_profile(self) -> Profile:
        """How loud the loss is at each layer, by the gradients of the layers' outputs."""
        return activation_profile(self.layers, self.activations)
