"""The record of what was done to a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Action = Literal[
    "clip",
    "skip",
    "lower_rate",
    "raise_rate",
    "restore_rate",
    "take_back_rate",
    "roll_back",
    "stop",
    "reinitialize",
    "take_back_weights",
    "refuse_reinitialization",
]

#: What was done, and what would be.
_WORDS: dict[Action, tuple[str, str]] = {
    "clip": ("clipped the gradient", "would clip the gradient"),
    "skip": ("skipped the update", "would skip the update"),
    "lower_rate": ("lowered the learning rate", "would lower the learning rate"),
    "raise_rate": ("raised the learning rate", "would raise the learning rate"),
    "restore_rate": ("restored the learning rate", "would restore the learning rate"),
    "take_back_rate": ("took the learning rate back", "would take the learning rate back"),
    "roll_back": ("rolled back", "would roll back"),
    "stop": ("stopped the training", "would stop the training"),
    "reinitialize": ("re-initialised the weights", "would re-initialise the weights"),
    "take_back_weights": ("took the new weights back", "would take the new weights back"),
    "refuse_reinitialization": ("did not re-initialise", "would not re-initialise"),
}


#: The most figures that a sentence gives; all are in the record.
_MOST_CHANGES = 3


@dataclass(frozen=True)
class Intervention:
    """One act on a run, or with `dry_run` one that was only considered.

    Attributes:
        step: How many updates the optimizer had applied.
        action: What was done.
        reason: Why, in plain words, with the figures that led to it.
        before: Figures before the act, by name; NaN where one is not known.
        after: The same after it.
        dry_run: Whether nothing was done.
    """

    step: int
    action: Action
    reason: str
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(
                f"Not an action of an intervention. Received: action={self.action!r}. "
                f"Choose one of {', '.join(get_args(Action))}."
            )
        for name in ("before", "after"):
            # The one NaN: what misses the same compares equal.
            figures = {
                key: math.nan if value != value else float(value)
                for key, value in getattr(self, name).items()
            }
            object.__setattr__(self, name, figures)

    def sentence(self) -> str:
        """One line for the user: what was done, the figures that changed, and why."""
        changes = [
            f"{self._label(name)} {self.before[name]:.3g} → {value:.3g}"
            for name, value in self.after.items()
            if name in self.before and value != self.before[name] and value == value
        ]
        if len(changes) > _MOST_CHANGES:
            rest = len(changes) - _MOST_CHANGES
            changes = [*changes[:_MOST_CHANGES], f"and {rest} more"]
        figures = f" ({', '.join(changes)})" if changes else ""
        return f"Step {self.step}: {_WORDS[self.action][self.dry_run]}{figures}: {self.reason}"

    def _label(self, name: str) -> str:
        # New weights have the figures of layers, whose names stay as they are.
        return name if self.action == "reinitialize" else name.replace("_", " ")

    def to_json(self) -> str:
        """One line of strict JSON: NaN becomes null, infinities become strings."""
        values: dict[str, Any] = {
            "step": self.step,
            "action": self.action,
            "reason": self.reason,
            "before": {name: _plain(value) for name, value in self.before.items()},
            "after": {name: _plain(value) for name, value in self.after.items()},
            "dry_run": self.dry_run,
        }
        return json.dumps(values, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Intervention:
        """The intervention that `to_json` wrote.

        Raises:
            ValueError: If the line is not one of `to_json`.
        """
        try:
            values = json.loads(line)
            for name, kind in (("step", int), ("reason", str), ("dry_run", bool)):
                if type(values.get(name)) is not kind:
                    raise TypeError(f"{name} is no {kind.__name__}")
            for name in ("before", "after"):
                values[name] = {
                    key: math.nan if value is None else float(value)
                    for key, value in values[name].items()
                }
            return cls(**values)
        except (
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"Not the line of an intervention: {_short(str(error))}. Received: "
                f"{_short(repr(line))}. Give a line of interventions.jsonl."
            ) from error


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"


def _plain(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else repr(value)
