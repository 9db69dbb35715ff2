"""Tells whether a layer still has the weights that its initialisers gave it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_vanish.capture.tensorflow.layers import layer_paths
from keras_vanish.capture.tensorflow.private_names import KERNEL, flattened
from keras_vanish.rescue.reinitialize.kernels import sides

Array = npt.NDArray[Any]

#: For each attribute with a variable, the attribute with its initialiser.
_VARIABLES = {
    KERNEL: "kernel_initializer",
    "kernel": "kernel_initializer",
    "depthwise_kernel": "depthwise_initializer",
    "pointwise_kernel": "pointwise_initializer",
    "recurrent_kernel": "recurrent_initializer",
    "bias": "bias_initializer",
}

#: The number of standard deviations of a sample estimate that still count as chance.
_CHANCE = 5.0


def pretrained(model: Any) -> frozenset[str]:
    """Returns the names of the layers that look pretrained, as `layer_paths` names them.

    Args:
        model: A built Keras model that has not been trained by this run yet.
    """
    paths = layer_paths(model)
    return frozenset(
        paths.get(id(layer), layer.name)
        for layer in flattened(model, include_self=False)
        if looks_pretrained(layer)
    )


def looks_pretrained(layer: Any) -> bool:
    """Returns whether a layer's own weights differ from those that its initialisers would give.

    Biases and constant kernels are compared with the value of the initialiser. An orthogonal kernel
    is tested for orthogonality. For another random kernel, the mean and the standard deviation must
    agree within what chance allows for its size. Kernels with an unknown initialiser, and kernels
    that were trained too little to change these figures, are not recognised.

    Args:
        layer: A built layer that has not been trained by this run yet.
    """
    seen: set[int] = set()
    for attribute, initializer in _VARIABLES.items():
        variable = _variable(layer, attribute)
        if variable is None or id(variable) in seen:
            continue
        seen.add(id(variable))
        value = np.asarray(variable.numpy(), np.float64)
        made_by = getattr(layer, initializer, None) or getattr(layer, "depthwise_initializer", None)
        if made_by is None or value.size == 0:
            continue
        if attribute == "bias" and getattr(layer, "unit_forget_bias", False):
            if not _is_forget_bias(value, made_by):
                return True
        elif not any(_as_made(value.reshape(shape), made_by) for shape in _shapes(layer, value)):
            return True
    return False


def _variable(layer: Any, attribute: str) -> Any:
    """Returns the floating-point variable in an attribute of a layer, or None."""
    variable = vars(layer).get(attribute)
    if not hasattr(variable, "numpy") or not hasattr(variable, "assign"):
        return None
    return variable if "float" in str(variable.dtype) else None


def _is_forget_bias(value: Array, made_by: Any) -> bool:
    """Returns whether an LSTM bias is as `unit_forget_bias` makes it: ones for the forget gate."""
    units = value.shape[-1] // 4
    rest = np.concatenate([value[:units], value[2 * units :]])
    return bool(np.all(value[units : 2 * units] == 1)) and _as_made(rest, made_by)


def _shapes(layer: Any, value: Array) -> list[tuple[int, ...]]:
    """Returns the shapes with which an initialiser may have been called for a variable.

    Newer releases of Keras tell the initialiser which axes of an einsum kernel are inputs.
    """
    shapes = [value.shape]
    if getattr(layer, "equation", None) is not None and value.ndim > 1:
        inner = math.prod(value.shape[axis] for axis in sides(layer, value.shape)[0])
        shapes.append((inner, value.size // inner))
    return shapes


def _as_made(value: Array, initializer: Any) -> bool:
    """Returns whether a value agrees with its initialiser, as far as can be told."""
    kind = type(initializer).__name__
    if not np.all(np.isfinite(value)):
        return True  # These weights are broken, not trained.
    if kind in ("Zeros", "Ones", "Constant"):
        constant = {"Zeros": 0.0, "Ones": 1.0}.get(kind, getattr(initializer, "value", 0.0))
        return bool(np.allclose(value, constant, rtol=1e-2, atol=1e-6))
    if kind == "Identity":
        gain = float(getattr(initializer, "gain", 1.0))
        return bool(np.allclose(value, gain * np.eye(*value.shape), rtol=1e-2, atol=1e-6))
    if kind in ("Orthogonal", "OrthogonalInitializer"):
        return _is_orthogonal(value, float(getattr(initializer, "gain", 1.0)))
    expected = None if value.ndim < 2 else _moments(value.shape, initializer)
    if expected is None:
        return True
    mean, spread, kurtosis = expected
    size = value.size
    # Asymptotic standard deviations of the sample mean and of the sample standard deviation.
    mean_error = spread / math.sqrt(size)
    spread_error = spread * math.sqrt(max(kurtosis - 1, 0.05) / (4 * size))
    return bool(
        abs(float(np.mean(value)) - mean) <= _CHANCE * mean_error + 0.01 * spread
        and abs(float(np.std(value)) - spread) <= _CHANCE * spread_error + 0.02 * spread
    )


def _is_orthogonal(value: Array, gain: float) -> bool:
    matrix = value.reshape(-1, value.shape[-1])
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    return bool(np.allclose(gram, gain**2 * np.eye(len(gram)), atol=0.02 * gain**2))


def _moments(shape: tuple[int, ...], initializer: Any) -> tuple[float, float, float] | None:
    """Returns mean, standard deviation and kurtosis of a random initialiser; None if unknown."""
    # The standard deviation of a standard normal distribution that is truncated at ±2.
    cut = 0.87962566103423978
    kind = type(initializer).__name__
    if kind == "RandomNormal":
        return initializer.mean, initializer.stddev, 3.0
    if kind == "TruncatedNormal":
        return initializer.mean, initializer.stddev * cut, 2.37
    if kind == "RandomUniform":
        low, high = initializer.minval, initializer.maxval
        return (low + high) / 2, (high - low) / math.sqrt(12), 1.8
    scale, mode = getattr(initializer, "scale", None), getattr(initializer, "mode", None)
    if scale is None or mode is None:
        return None
    field = math.prod(shape[:-2])
    inner, outer = field * shape[-2], field * shape[-1]
    fan = {"fan_in": inner, "fan_out": outer}.get(mode, (inner + outer) / 2)
    kurtosis = {"uniform": 1.8, "truncated_normal": 2.37}.get(initializer.distribution, 3.0)
    return 0.0, math.sqrt(scale / max(1.0, fan)), kurtosis
