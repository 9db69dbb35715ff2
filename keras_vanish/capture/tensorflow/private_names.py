"""Everything that the package uses of Keras and TensorFlow and that is not public there.

No other file of the package uses a private name. Each function says in public terms what it
does, so that a new release which renames something is mended here alone.
`tests/capture/tensorflow/test_private_names.py` lists the names and the releases that have them.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras.src import backend as keras_backend
from keras.src.losses import loss as loss_module
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.config import is_op_determinism_enabled
from tensorflow.python.ops import resource_variable_ops

from keras_vanish.capture.tensorflow.attributes import replaced

# --- Layers and models ---------------------------------------------------------------------------

#: The attribute that holds the kernel of `Dense`, `EinsumDense` and convolutions. Their public
#: `kernel` may be the sum of this variable and an adapter.
KERNEL = "_kernel"

# TensorFlow keeps what it knows of a tracked object in attributes that begin like this.
_TRACKING = "_self_"


def flattened(layer: Any, include_self: bool = True, recursive: bool = True) -> Iterator[Any]:
    """Gives the layers that a layer or a model is made of, each once.

    Args:
        layer: A Keras layer or model.
        include_self: Whether the layer itself comes first.
        recursive: Whether the layers within its layers come as well.
    """
    found: Iterator[Any] = layer._flatten_layers(include_self=include_self, recursive=recursive)
    return found


def has_layers(layer: Any) -> bool:
    """Tells whether a layer holds other layers."""
    return bool(layer._layers)


def own_non_trainable_variables(layer: Any) -> list[Any]:
    """Gives the variables of the layer itself that training never updates by a gradient.

    Unlike the public `non_trainable_variables`, the list has neither the frozen weights nor the
    variables of the layers within.
    """
    found: list[Any] = layer._non_trainable_variables
    return found


def loss_containers(layer: Any) -> tuple[list[Any], set[Any]]:
    """Gives the containers in which a layer keeps what `add_loss` was given, and their `id`s."""
    return layer._losses, layer._loss_ids


def clear_losses(model: Any) -> None:
    """Removes what `add_loss` was given, from a model and all its layers."""
    model._clear_losses()


def takes_training(layer: Any) -> bool:
    """Tells whether the `call` of a layer, a model or a recurrent cell takes `training`."""
    return bool(getattr(layer, "_call_has_training_arg", False))


def own_kernel(layer: Any) -> Any:
    """Gives the variable that a layer's kernel is stored in, without its adapters."""
    return getattr(layer, KERNEL, None) if hasattr(layer, KERNEL) else layer.kernel


def is_for_tracking(attribute: str) -> bool:
    """Tells whether TensorFlow has set the attribute of this name, for checkpoints."""
    return attribute.startswith(_TRACKING)


# --- Attention -----------------------------------------------------------------------------------


def query_projection(layer: Any) -> Any:
    """Gives the layer that computes the queries of a `MultiHeadAttention`, or a grouped one."""
    return layer._query_dense


def key_projection(layer: Any) -> Any:
    """Gives the layer that computes the keys of a `MultiHeadAttention`, or a grouped one."""
    return layer._key_dense


def value_projection(layer: Any) -> Any:
    """Gives the layer that computes the values of a `MultiHeadAttention`, or a grouped one."""
    return layer._value_dense


def key_axes(layer: Any) -> int:
    """Gives the number of axes of keys that a `MultiHeadAttention`, or a grouped one, has."""
    return len(getattr(layer, "_attention_axes", None) or (1,))


def wrap_softmax(layer: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replaces what makes weights of scores in a `MultiHeadAttention`, or a grouped one.

    The replacement stays until `given_back` takes it away.

    Args:
        layer: The layer.
        wrap: Takes the function that is called with `(scores, attention_mask=None)` and returns
            weights, and gives the one that is called instead.
    """
    vars(layer)["_masked_softmax"] = wrap(layer._masked_softmax)


def wrap_scores(layer: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replaces what applies scores to values in a `keras.layers.Attention`.

    The replacement stays until `given_back` takes it away.

    Args:
        layer: The layer.
        wrap: Takes the function that is called with `(scores, value, scores_mask=None,
            training=False)`, and gives the one that is called instead.
    """
    vars(layer)["_apply_scores"] = wrap(layer._apply_scores)


def compute_weights_explicitly(layer: Any) -> None:
    """Makes attention compute its weights where a fused kernel would hide them.

    Nothing changes if the layer was told to use flash attention. The replacement stays until
    `given_back` takes it away.

    Args:
        layer: A `MultiHeadAttention` or `GroupQueryAttention`.
    """
    compute = layer._compute_attention
    parameters = inspect.signature(compute)

    def computing(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        if getattr(layer, "_flash_attention", False):
            return compute(*args, **kwargs)
        if "return_attention_scores" in parameters.parameters:
            bound.arguments["return_attention_scores"] = True
            return compute(*bound.args, **bound.kwargs)
        attributes = vars(layer)  # GroupQueryAttention keeps its wish as an attribute.
        asked = attributes.get("_return_attention_scores")
        if asked is not None:
            attributes["_return_attention_scores"] = True
        try:
            return compute(*args, **kwargs)
        finally:
            if asked is not None:
                attributes["_return_attention_scores"] = asked

    vars(layer)["_compute_attention"] = computing


# --- Losses and loops ----------------------------------------------------------------------------

# From version 3.8 on, Keras divides the loss by the number of replicas.
_unscaled = getattr(loss_module, "unscale_loss_for_distribution", lambda loss: loss)


def loss_for_all_replicas(loss: Any) -> Any:
    """Multiplies a loss by what Keras has divided it by for the replicas of a strategy."""
    return _unscaled(loss)


def rnn(step: Callable[..., Any], inputs: Any, initial_states: Any, **options: Any) -> Any:
    """Runs Keras's loop over the time steps of a recurrent layer.

    Args:
        step: Takes one step's inputs and the states; gives an output and the new states.
        inputs: Tensors of shape `[batch, time, ...]`, possibly nested.
        initial_states: The states before the first step.
        options: What a `keras.layers.RNN` is made with (`go_backwards`, `unroll`,
            `zero_output_for_mask`), and `mask`, `input_length` and `return_all_outputs`.

    Returns:
        The last output, all outputs and the last states.
    """
    return keras_backend.rnn(step, inputs, initial_states, **options)


# --- Optimizers ----------------------------------------------------------------------------------


def strategy_of(optimizer: Any) -> Any:
    """Gives the `tf.distribute.Strategy` under which an optimizer was made."""
    return optimizer._distribution_strategy


def variables_to_train(optimizer: Any) -> Sequence[Any]:
    """Gives the variables that an optimizer was built for."""
    found: Sequence[Any] = optimizer._trainable_variables
    return found


def clipped_by(optimizer: Any, gradients: Sequence[Any]) -> list[Any]:
    """Clips gradients as an optimizer's `clipnorm`, `global_clipnorm` or `clipvalue` says."""
    clipped: list[Any] = optimizer._clip_gradients(gradients)
    return clipped


def accumulator(optimizer: Any, variable: Any) -> Any:
    """Gives the Keras variable in which a variable's gradients are accumulated.

    Args:
        optimizer: A built optimizer with `gradient_accumulation_steps`.
        variable: A Keras variable that it trains.
    """
    return optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]


def call_counter(optimizer: Any) -> Any:
    """Gives the Keras variable that counts the calls of `apply` of an innermost optimizer."""
    # `iterations` itself counts updates from Keras 3.6 on, and calls before.
    counter = getattr(optimizer, "_iterations", None)
    return optimizer.iterations if counter is None else counter


def counter_and_rate(optimizer: Any) -> Iterator[Any]:
    """Gives the variables of an optimizer's count of steps and its rate, and None for others."""
    for name in ("_iterations", "iterations", "_learning_rate"):
        yield vars(optimizer).get(name)


def velocities(optimizer: Any) -> Iterator[Any]:
    """Gives the variables in which `SGD` and `RMSprop` add up multiples of the gradients."""
    for name in ("momentums", "_momentums"):
        yield from getattr(optimizer, name, None) or ()


def current_rate(optimizer: Any) -> Callable[[], Any]:
    """Gives the function that an optimizer asks for the learning rate of an update."""
    found: Callable[[], Any] = optimizer._get_current_learning_rate
    return found


def current_rate_replaced(
    optimizer: Any, function: Callable[[], Any]
) -> contextlib.AbstractContextManager[None]:
    """Within this context, an optimizer asks another function for its learning rate."""
    return replaced(optimizer, "_get_current_learning_rate", function)


def sum_over_replicas(optimizer: Any) -> Callable[[Sequence[tuple[Any, Any]]], Any]:
    """Gives the function by which an optimizer sums gradients over all replicas.

    The function takes and returns pairs of a gradient, or None, and its `tf.Variable`.
    """
    found: Callable[[Sequence[tuple[Any, Any]]], Any] = optimizer._all_reduce_sum_gradients
    return found


def sum_over_replicas_replaced(
    optimizer: Any, function: Callable[[Sequence[tuple[Any, Any]]], Any]
) -> contextlib.AbstractContextManager[None]:
    """Within this context, an optimizer sums gradients over all replicas by another function."""
    return replaced(optimizer, "_all_reduce_sum_gradients", function)


# --- Tensors, variables and graphs ---------------------------------------------------------------


def holds_numbers(tensor: Any) -> bool:
    """Tells whether a tensor is eager: its numbers are there, and it belongs to no graph."""
    return hasattr(tensor, "_numpy")


def resource_variable(initial_value: tf.Tensor) -> Any:
    """Makes a variable of which no `tf.function` is told, and that is not trained."""
    return resource_variable_ops.ResourceVariable(initial_value, trainable=False)


def xla_barrier(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gives the same tensors, behind a barrier across which XLA neither fuses nor shares."""
    return list(gen_xla_ops.xla_optimization_barrier(input=list(tensors)))


def operation_definition(name: str) -> Any:
    """Gives the `OpDef` of an operation, such as `MatMul`; None if the name is not known."""
    return op_def_registry.get(name)


def is_deterministic() -> bool:
    """Tells whether `tf.config.experimental.enable_op_determinism` was called."""
    return bool(is_op_determinism_enabled())


# --- Distribution strategies ---------------------------------------------------------------------


def runs_in_several_processes(strategy: Any) -> bool:
    """Tells whether a mirrored strategy has replicas in more than one process."""
    return bool(strategy.extended._in_multi_worker_mode())


def replica_number(context: Any) -> Any:
    """Gives the number of a replica among those of its process.

    The public number counts the replicas of all processes, and is a tensor.
    """
    return context._replica_id
