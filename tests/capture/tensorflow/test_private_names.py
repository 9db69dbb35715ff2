"""The private names of Keras and TensorFlow: which there are, and that they stand in one file."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import pytest
import tensorflow as tf

import keras_vanish
from keras_vanish.capture.tensorflow import private_names

SOURCE = Path(__file__).parents[3] / "keras_vanish"
ONE_FILE = Path("capture/tensorflow/private_names.py")
MODULES = ("keras.src", "tensorflow.python", "tensorflow.compiler")

# The two pairs of releases in which every name was looked up.
OLDEST = {"keras": (3, 4, 1), "tensorflow": (2, 16, 2)}
NEWEST = {"keras": (3, 15, 1), "tensorflow": (2, 21, 0)}


class Private(NamedTuple):
    """A private name.

    Attributes:
        name: An attribute, or a module and what is imported from it.
        owner: Makes an object that has the attribute.
        library: Whose name it is.
        oldest: Whether the oldest pair has it.
        newest: Whether the newest pair has it.
    """

    name: str
    owner: Callable[[], Any]
    library: str = "keras"
    oldest: bool = True
    newest: bool = True

    def required(self) -> bool:
        """Whether the installed release must have it; in between, it must if both pairs do."""
        version = keras.__version__ if self.library == "keras" else tf.__version__
        installed = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        if installed >= NEWEST[self.library]:
            return self.newest
        if installed <= OLDEST[self.library]:
            return self.oldest
        return self.oldest and self.newest


@functools.cache
def dense() -> Any:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    return layer


@functools.cache
def convolution() -> Any:
    layer = keras.layers.Conv2D(2, 2)
    layer.build((None, 4, 4, 1))
    return layer


@functools.cache
def einsum() -> Any:
    layer = keras.layers.EinsumDense("ab,bc->ac", output_shape=3)
    layer.build((None, 2))
    return layer


def model() -> Any:
    return keras.Sequential([dense()])


@functools.cache
def multi_head() -> Any:
    layer = keras.layers.MultiHeadAttention(1, 2)
    layer(keras.ops.ones((1, 2, 2)), keras.ops.ones((1, 2, 2)))
    return layer


@functools.cache
def grouped() -> Any:
    layer = keras.layers.GroupQueryAttention(2, 1, 1)
    layer(keras.ops.ones((1, 2, 2)), keras.ops.ones((1, 2, 2)))
    return layer


@functools.cache
def built(kind: type, **arguments: Any) -> Any:
    optimizer = kind(**arguments)
    optimizer.build(dense().trainable_variables)
    return optimizer


def sgd() -> Any:
    return built(keras.optimizers.SGD, momentum=0.9)


def rmsprop() -> Any:
    return built(keras.optimizers.RMSprop)


def accumulating() -> Any:
    return built(keras.optimizers.SGD, gradient_accumulation_steps=2)


def mirrored() -> Any:
    return tf.distribute.MirroredStrategy(["CPU:0"]).extended


def module(name: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(name)


L = keras.layers

TABLE = [
    # Layers and models
    Private("_flatten_layers", model),
    Private("_clear_losses", model),
    Private("_losses", dense),
    Private("_loss_ids", dense),
    Private("_non_trainable_variables", dense),
    Private("_layers", dense),
    Private("_call_has_training_arg", dense),
    Private("_call_has_training_arg", lambda: L.LSTMCell(2)),
    Private("_kernel", dense),
    Private("_kernel", convolution),
    Private("_kernel", einsum),
    Private("_self_setattr_tracking", model, "tensorflow"),
    # Attention
    Private("_query_dense", multi_head),
    Private("_query_dense", grouped),
    Private("_key_dense", multi_head),
    Private("_key_dense", grouped),
    Private("_value_dense", multi_head),
    Private("_value_dense", grouped),
    Private("_attention_axes", multi_head),
    Private("_compute_attention", multi_head),
    Private("_compute_attention", grouped),
    Private("_masked_softmax", multi_head),
    Private("_masked_softmax", grouped),
    Private("_apply_scores", L.Attention),
    Private("_apply_scores", L.AdditiveAttention),
    Private("_flash_attention", multi_head, oldest=False),
    Private("_flash_attention", grouped, oldest=False),
    Private("_return_attention_scores", grouped, oldest=False),
    # Losses and loops
    Private("unscale_loss_for_distribution", module("keras.src.losses.loss"), oldest=False),
    Private("rnn", module("keras.src.backend")),
    # Optimizers
    Private("_distribution_strategy", sgd),
    Private("_trainable_variables", sgd),
    Private("_clip_gradients", sgd),
    Private("_accumulated_gradients", accumulating),
    Private("_get_variable_index", sgd),
    Private("_get_current_learning_rate", sgd),
    Private("_all_reduce_sum_gradients", sgd),
    Private("_iterations", sgd, oldest=False),
    Private("_learning_rate", sgd),
    Private("_momentums", rmsprop),
    # Tensors, variables and graphs
    Private("_numpy", lambda: tf.constant(1.0), "tensorflow"),
    Private(
        "ResourceVariable", module("tensorflow.python.ops.resource_variable_ops"), "tensorflow"
    ),
    Private(
        "xla_optimization_barrier",
        module("tensorflow.compiler.tf2xla.ops.gen_xla_ops"),
        "tensorflow",
    ),
    Private("get", module("tensorflow.python.framework.op_def_registry"), "tensorflow"),
    Private(
        "is_op_determinism_enabled", module("tensorflow.python.framework.config"), "tensorflow"
    ),
    # Distribution strategies
    Private("_in_multi_worker_mode", mirrored, "tensorflow"),
    Private("_replica_id", tf.distribute.get_replica_context, "tensorflow"),
]

#: A callback of ours inherits these from Keras's and leaves them out of its copies.
INHERITED = {"_model": keras.callbacks.Callback}

ATTRIBUTES = {entry.name for entry in TABLE if entry.name.startswith("_")}


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_the_installed_release_has_it(entry: Private) -> None:
    assert hasattr(entry.owner(), entry.name) or not entry.required()


@pytest.mark.parametrize("name", INHERITED)
def test_the_installed_release_has_what_is_inherited(name: str) -> None:
    assert name in vars(INHERITED[name]())


def test_the_table_has_every_private_name_that_the_file_uses() -> None:
    tree = ast.parse((SOURCE / ONE_FILE).read_text())
    used = {name for name in private_in(tree) if not name.startswith(MODULES)}
    # The names of the file itself: `_unscaled` calls what it found, `_self_` begins several.
    assert used - {"_unscaled", "_TRACKING", "_self_"} == ATTRIBUTES - {"_self_setattr_tracking"}
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(MODULES)
        for alias in node.names
    }
    assert imported == {
        *("backend", "loss", "gen_xla_ops", "op_def_registry", "resource_variable_ops"),
        "is_op_determinism_enabled",
    }


def private_in(tree: ast.AST) -> Iterator[str]:
    """Every private attribute and string, and every private module, that a file mentions.

    An attribute of `self` is the package's own where the file assigns or defines it.
    """
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    own = set(_defined(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not (of_self and node.attr in own):
                yield node.attr
        elif isinstance(node, ast.JoinedStr):
            # f"_{role}_dense" is private, f"{of}_rms" is not.
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
            text = "".join(map(str, parts))
            if _private(text):
                yield text
        elif isinstance(node, ast.Constant) and id(node) not in inside and _private(node.value):
            yield node.value
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            yield from (name for name in names if name.startswith(MODULES))


def _private(text: object) -> bool:
    """Whether it is a name of more than an underscore, and no dunder."""
    if not isinstance(text, str) or not text.isidentifier():
        return False
    return text.startswith("_") and text.strip("_") != "" and not text.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    """What a file gives a name to: functions, classes, variables and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr


@functools.cache
def package_names() -> frozenset[str]:
    """What the package defines, and the attribute under which a graph keeps its constants."""
    trees = [ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")]
    return frozenset(name for tree in trees for name in _defined(tree)) | {
        "_keras_vanish_constants"
    }


def foreign(code: str) -> list[str]:
    """The private names in a piece of the package that are not the package's own."""
    found = private_in(ast.parse(code))
    return sorted({n for n in found if n in ATTRIBUTES or n not in package_names()})


@pytest.mark.parametrize(
    "path",
    [p.relative_to(SOURCE) for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / ONE_FILE],
    ids=str,
)
def test_no_other_file_uses_a_private_name(path: Path) -> None:
    assert foreign((SOURCE / path).read_text()) == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("layer._losses.clear()", ["_losses"]),
        ("getattr(layer, '_build_shapes_dict', None)", ["_build_shapes_dict"]),
        ("getattr(layer, f'_{role}_dense')", ["_x_dense"]),
        ("vars(layer)['_apply_scores'] = f", ["_apply_scores"]),
        # Keras has a name that the package has, too.
        ("class Capture:\n def f(self, layer): self._layers = layer._layers", ["_layers"]),
        ("class Callback:\n def f(self): return self._losses", ["_losses"]),
        ("from keras.src import backend", ["keras.src.backend"]),
        ("def f():\n import tensorflow.python.ops as ops", ["tensorflow.python.ops"]),
        ("from tensorflow.compiler.xla import x", ["tensorflow.compiler.xla.x"]),
        ("class Capture:\n def f(self): self._layers = []\n def g(self): self._layers", []),
        ("vars(layer)['call'] = f\nf'{of}_rms'\n'__name__'\n'_'", []),
    ],
)
def test_the_check_can_fail(code: str, names: list[str]) -> None:
    assert foreign(code) == names


def test_the_file_is_where_the_check_takes_it_to_be() -> None:
    assert Path(private_names.__file__) == SOURCE / ONE_FILE
    assert Path(keras_vanish.__file__).parent == SOURCE
