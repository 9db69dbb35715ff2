"""Finds weights for a layer with a kernel from the layer's inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_vanish.capture.tensorflow.private_names import own_kernel
from keras_vanish.rescue.reinitialize.recurrent_cells import orthogonal

Array = npt.NDArray[Any]
layers = keras.layers

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
KNOWN = (
    layers.Dense,
    layers.EinsumDense,
    *_CONVOLUTIONS,
    *_TRANSPOSED,
    *_DEPTHWISE,
    *_SEPARABLE,
)


#: If trained layers compute the inputs, the spread of the pre-activations counts as at least this
#: share of their RMS. Training changes the part that all inputs have in common. The bias then no
#: longer cancels it, and the following layers saturate. The last layer is exempt, because nothing
#: follows it.
_QUIET = 0.3


#: Behind frozen layers that let next to nothing through, the last kernel becomes so large that its
#: own training has no visible effect. This happens if the spread is below this share of the RMS of
#: the pre-activations.
_FIXED = 1e-3

#: In that case, the outputs start with the spread that those of a trained classifier have.
_FINAL_SPREAD = 5.0


@dataclass(frozen=True)
class Aim:
    """The wanted distribution of a layer's pre-activations.

    Attributes:
        spread: Their standard deviation over the batch and all positions, or their RMS if they are
            not centred.
        centred: Whether the mean of each unit becomes 0.
        by_unit: Whether each unit or channel gets the spread on its own, rather than the layer as a
            whole.
        keeps_bias: Whether the present bias is added. It may encode how often each class occurs.
    """

    spread: float = 1.0
    centred: bool = False
    by_unit: bool = False
    keeps_bias: bool = False


# The aims of the last layer of a model.
_LAST = ("head", "softmax", "log_softmax")

#: The aim for each activation that follows. A sigmoid has a slope of at most a quarter. The wider
#: its inputs spread, the less it reduces the differences between samples.
AIMS = {
    "sigmoid": Aim(2.5, centred=True, by_unit=True),
    "hard_sigmoid": Aim(1.5, centred=True, by_unit=True),
    "tanh": Aim(1.0, centred=True),
    "softsign": Aim(1.0, centred=True),
    "hard_tanh": Aim(0.6, centred=True),
    "softplus": Aim(1.0, centred=True),
    "exponential": Aim(0.5, centred=True),
    "linear": Aim(1.0, centred=True),
    "branch": Aim(1.0, centred=True),
    # With this spread, all classes are nearly as likely at first.
    "softmax": Aim(0.5, centred=True, keeps_bias=True),
    "log_softmax": Aim(0.5, centred=True, keeps_bias=True),
    "head": Aim(0.3, centred=True, keeps_bias=True),
}
_OTHERWISE = Aim()


def start(
    layer: Any,
    compute: Callable[[], Any],
    aim: str,
    share: float,
    random: np.random.Generator,
    like: Any = None,
    moves: bool = False,
) -> None:
    """Sets the weights of a layer.

    The kernel is orthogonal (Saxe et al. 2014; Pennington et al. 2017). It is scaled so that the
    pre-activations have the spread that the next activation needs (Mishkin & Matas 2016), and the
    bias centres them. The scale is smaller if inputs that training changes hardly differ (see
    `_QUIET`). If the inputs do not differ over the batch, or are not finite, the kernel gets the
    spread of Glorot & Bengio (2010), and the bias is 0.

    Args:
        layer: An instance of one of the classes in `KNOWN`.
        compute: Returns the pre-activations with the layer's present weights.
        aim: A key of `AIMS`, or the name of another activation.
        share: A factor on the spread.
        random: The generator of the random draws.
        like: A variable whose value replaces a random draw; None to draw.
        moves: Whether trained layers compute the inputs of the layer.
    """
    # This function is long because its steps depend on each other in this order: draw the kernel,
    # measure what it computes, centre it, and scale it.
    wanted = AIMS.get(aim, _OTHERWISE)
    *others, kernel = kernels_of(layer)
    for other in others:  # The first half of a separable convolution.
        other.assign(_depthwise(tuple(other.shape), random))
    shape = tuple(kernel.shape)
    drawn = _drawn(layer, shape, random) if like is None else np.array(like.numpy(), np.float64)
    kernel.assign(drawn)
    bias, offset = layer.bias, None
    if bias is not None:
        if wanted.keeps_bias and np.all(np.isfinite(bias.numpy())):
            offset = tf.convert_to_tensor(bias)
        bias.assign(tf.zeros(bias.shape))
    z = tf.cast(compute(), tf.float32)
    if getattr(layer, "data_format", "") == "channels_first":
        z = tf.experimental.numpy.moveaxis(z, 1, -1)
    centre = tf.zeros([])
    if bias is not None and wanted.centred:
        centre = _mean_like(z, tuple(bias.shape))
    axes = list(range(z.shape.rank - 1))
    units = tf.sqrt(tf.reduce_mean(tf.math.square(z - centre), axes)).numpy().astype(np.float64)
    whole = math.sqrt(float(np.mean(np.square(units))))
    size = math.sqrt(float(tf.reduce_mean(tf.math.square(z))))
    least = _QUIET * size if moves and aim not in _LAST else 0.0
    if not math.isfinite(whole) or whole <= 1e-5 * size or size == 0:
        rms = math.sqrt(float(np.mean(np.square(drawn))))
        kernel.assign(drawn / rms * math.sqrt(2 / _fans(layer, shape)))
        scale = np.zeros(())
        centre = tf.zeros([])
    elif wanted.by_unit and not isinstance(layer, layers.EinsumDense):
        # A unit whose output hardly differs must not become the loudest.
        scale = share * wanted.spread / np.maximum(units, max(0.1 * whole, least))
        kernel.assign(drawn * _along_units(layer, drawn, scale))
    else:
        spread = share * wanted.spread
        if aim in _LAST and whole < _FIXED * size:
            spread = _FINAL_SPREAD
        scale = np.array(spread / max(whole, least))
        kernel.assign(drawn * scale)
    if bias is not None:
        bias.assign(np.broadcast_to(-centre.numpy() * scale, tuple(bias.shape)))
        if offset is not None:
            bias.assign_add(offset)


def kernels_of(layer: Any) -> list[Any]:
    """Returns the kernels of a layer. The last one is the one that is scaled."""
    if isinstance(layer, _SEPARABLE):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [own_kernel(layer)]


def starts_at_zero(layer: Any) -> bool:
    """Returns whether the layer is zero on purpose, such as an adapter or a gated branch."""
    zeros = type(getattr(layer, "kernel_initializer", None)).__name__ == "Zeros"
    return zeros and not np.any(kernels_of(layer)[-1].numpy())


def sides(layer: Any, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Returns the axes of a kernel that belong to the input, and those of the output."""
    axes = list(range(len(shape)))
    if isinstance(layer, _TRANSPOSED):
        return [*axes[:-2], axes[-1]], [axes[-2]]
    if isinstance(layer, _DEPTHWISE):
        return axes[:-2], axes[-2:]
    if isinstance(layer, layers.EinsumDense):
        given, computed = layer.equation.replace("...", "").split("->")
        letters = given.split(",")[1]
        outer = [n for n in axes if letters[n] in computed]
        return [n for n in axes if n not in outer], outer
    return axes[:-1], axes[-1:]


def _drawn(layer: Any, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Returns an orthogonal kernel."""
    if isinstance(layer, _DEPTHWISE):
        return _depthwise(shape, random)
    inner, outer = sides(layer, shape)
    matrix = orthogonal(
        (math.prod(shape[n] for n in inner), math.prod(shape[n] for n in outer)), random
    )
    order = [*inner, *outer]
    return np.transpose(matrix.reshape([shape[n] for n in order]), np.argsort(order))


def _depthwise(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Returns an independent random filter of length 1 for each channel."""
    entries = random.standard_normal(shape)
    axes = tuple(range(len(shape) - 2))
    return entries / np.sqrt(np.sum(np.square(entries), axes, keepdims=True))


def _fans(layer: Any, shape: tuple[int, ...]) -> int:
    """Returns the number of connections to a unit plus the number from an input."""
    inner, outer = sides(layer, shape)
    return math.prod(shape[n] for n in inner) + math.prod(shape[n] for n in outer)


def _along_units(layer: Any, kernel: Array, scale: Array) -> Array:
    """Returns the scale of each unit in a shape that broadcasts to the kernel."""
    if isinstance(layer, _TRANSPOSED):
        return scale[:, None]
    if isinstance(layer, _DEPTHWISE):
        return scale.reshape(kernel.shape[-2:])
    return scale


def _mean_like(z: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the means of `z` in the shape of a bias that is added to it."""
    lead = z.shape.rank - len(shape)
    axes = [*range(lead), *(lead + n for n, size in enumerate(shape) if size == 1)]
    return tf.reshape(tf.reduce_mean(z, axes), shape)
