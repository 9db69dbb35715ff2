"""The ways in which Keras runs a train step, and what `compile` is given for each."""

from __future__ import annotations

from typing import Any

MODES = ("eager", "graph", "xla")

COMPILED: dict[str, dict[str, Any]] = {
    "graph": {},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}
