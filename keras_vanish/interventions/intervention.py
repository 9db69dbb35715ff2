"""The record of one intervention in a run."""

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

#: The words for each action: for a real run, and for a dry run.
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


#: The largest number of changed figures that a sentence names. The record holds all of them.
_MOST_CHANGES = 3


@dataclass(frozen=True)
class Intervention:
    """One action that a policy took on a run, or only considered with `dry_run`.

    Attributes:
        step: The number of updates that the optimizer had applied.
        action: The action, such as `"clip"` or `"lower_rate"`.
        reason: Why the policy acted, in plain words and with the figures that led to it.
        before: Figures before the action, by name. Unknown figures are NaN.
        after: The same figures after the action.
        dry_run: Whether the action was only announced and not carried out.

    Raises:
        ValueError: If `action` is unknown.
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
            # Every NaN becomes the same object, so that records with the same gaps compare equal.
            figures = {
                key: math.nan if value != value else float(value)
                for key, value in getattr(self, name).items()
            }
            object.__setattr__(self, name, figures)

    def sentence(self) -> str:
        """Returns one line for the user: the action, the figures that changed, and the reason."""
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
        # The figures of a re-initialisation are named after layers. Those names stay as they are.
        return name if self.action == "reinitialize" else name.replace("_", " ")

    def to_json(self) -> str:
        """Returns one line of strict JSON. NaN becomes null; infinities become strings."""
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
        """Returns the intervention that `to_json` wrote.

        Args:
            line: A line of `interventions.jsonl`.

        Raises:
            ValueError: If `to_json` cannot have written the line.
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
