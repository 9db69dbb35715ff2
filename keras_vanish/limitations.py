"""What a user asks for and a training does not support, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keras_vanish.capture.backend import Backend


def limitations(
    backend: Backend,
    model: Any,
    optimizers: Mapping[str, Any],
    flags: bool,
    probe: bool,
    gives_batches: bool,
) -> Iterator[tuple[str, str]]:
    """Gives a subject and a message for each request that is not met.

    Args:
        backend: The framework that trains the model.
        model: The Keras model.
        optimizers: The model's optimizers, by the attribute that holds each.
        flags: Whether any flag `auto_*` is on.
        probe: Whether the user wants activations to be measured.
        gives_batches: Whether the training hands its batches over: `fit` does, a custom loop
            does not.
    """
    if not backend.has_one_rate(optimizers):
        yield from _of_several(optimizers, flags, probe)
    yield from backend.limitations(model, optimizers, flags, probe and gives_batches)


def _of_several(
    optimizers: Mapping[str, Any], flags: bool, probe: bool
) -> Iterator[tuple[str, str]]:
    names = ", ".join(optimizers)
    if len(optimizers) == 1:
        names = f"a {type(optimizers[names]).__name__}"
    if flags:
        yield (
            "flags",
            "GradientMonitor's flags auto_* act on the run of one optimizer, with one learning "
            "rate: they do nothing in this fit."
            f" Received: a model that holds {names}. Readings go on.",
        )
    if probe and len(optimizers) > 1:
        yield (
            "probe",
            "GradientMonitor probes the batch of one optimizer's loss: with several it shows "
            f"the gradients of weights only. Received: a model that holds {names}. Set "
            "probe=False to say that this is meant.",
        )
