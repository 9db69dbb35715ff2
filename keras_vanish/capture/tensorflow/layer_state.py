"""The state of layers, kept while their methods are replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_vanish.capture.tensorflow.private_names import loss_containers


@contextlib.contextmanager
def given_back(layers: Sequence[Any]) -> Iterator[None]:
    """After this context, layers have the attributes and the losses that they had before.

    Args:
        layers: Keras layers, whose `vars` may be written to meanwhile.
    """
    before = [(layer, dict(vars(layer))) for layer in layers]
    losses = [(own, own.copy()) for layer in layers for own in loss_containers(layer)]
    try:
        yield
    finally:
        for own, content in losses:
            own.clear()
            own.update(content) if isinstance(own, set) else own.extend(content)
        for layer, attributes in before:
            now = vars(layer)
            for key in now.keys() - attributes.keys():
                del now[key]
            now.update({k: v for k, v in attributes.items() if now.get(k, now) is not v})
