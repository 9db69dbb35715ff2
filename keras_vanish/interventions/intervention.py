"""What a policy looks at, and the record of what was done about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, get_args

from keras_vanish.diagnosis import Diagnosis, Verdict
from keras_vanish.reading import StepLog
from keras_vanish.scores import LEARNED_SHARE, learned_share

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


#: Layers' updates over their gradients differ by less where the update goes along the gradient.
_ALONG = 1.05

#: A median update ratio above this is large, and more so one after clipping.
_LET_THROUGH = 0.01

#: How many times its first update a gradient moves the weights in the end, with momentum 0.9.
_USUAL_REACH = 10

#: The most figures that a sentence gives; all are in the record.
_MOST_CHANGES = 3


@dataclass(frozen=True)
class Look:
    """What the policies are given, every `update_freq` steps.

    Attributes:
        step: How many updates the optimizer had applied.
        diagnosis: Of the last recorded update; None if none was recorded since the look
            before.
        verdict: The run's verdict so far.
        learned: Whether the run has learned anything of its input; None if that is not known.
        log: What was seen of every step since the look before.
    """

    step: int
    diagnosis: Diagnosis | None
    verdict: Verdict
    learned: bool | None
    log: StepLog

    def steps_since(self, step: int) -> int:
        """How many train steps were taken since the look before, at least 1.

        Args:
            step: Of the look before; it tells where neither losses nor norms are known.
        """
        seen = max(len(self.log.losses), len(self.log.norms))
        return seen or max(1, self.step - step)

    @property
    def update_ratio(self) -> float:
        """The median of the layers' update ratios; NaN where none is known."""
        known = self.update_ratios
        return median(known) if known else math.nan

    @property
    def update_ratios(self) -> tuple[float, ...]:
        """The update ratios of the layers where it is known, input side first."""
        if self.diagnosis is None:
            return ()
        ratios = self.diagnosis.reading.update_ratios.tolist()
        return tuple(ratio for ratio in ratios if ratio == ratio)

    def right_ratio(self, aim: float) -> float:
        """The median update ratio that is right for the run, whatever its momentum.

        A gradient moves the weights by `1 / (1 - momentum)` times its first update in the end.

        Args:
            aim: The ratio that is right up to a momentum of 0.9.
        """
        return aim * min(1.0, _USUAL_REACH * (1 - self.log.momentum))

    @property
    def share(self) -> float:
        """The share of the loss that looking at the input saves now; NaN where not known."""
        return learned_share(self.diagnosis.reading.probed) if self.diagnosis else math.nan

    @property
    def unclipped_ratio(self) -> float:
        """What `update_ratio` would have been, had the guard not clipped.

        It is known where the update went along the gradient: with plain gradient descent, and
        at the first step with momentum. Elsewhere it is `update_ratio`.
        """
        ratio = self.update_ratio
        if self.diagnosis is None or not self.log.clipped:
            return ratio
        rates = [
            layer.update_rms / layer.gradient_rms
            for layer in self.diagnosis.reading.layers
            if layer.update_rms > 0 and 0 < layer.gradient_rms < math.inf
        ]
        if not rates or max(rates) > _ALONG * min(rates) or math.isnan(self.log.rate):
            return ratio
        return max(ratio, ratio * self.log.rate / median(rates))

    @property
    def held(self) -> bool:
        """Whether the weights would have been thrown about, had the guard not clipped.

        Not where what it let through is small: clipping may be how this run is trained.
        """
        large = self.unclipped_ratio >= 1 and self.update_ratio > _LET_THROUGH
        return large and self.log.clipped > 0

    @property
    def lost(self) -> str:
        """The component that says that units are dead or saturated; empty if none does."""
        if self.diagnosis is None or self.diagnosis.verdict != "vanishing":
            return ""
        cause = self.diagnosis.cause
        return cause if cause in ("dead", "saturated") else ""

    @property
    def knows_nothing(self) -> bool:
        """Whether looking at its input saves the run nothing now; False where that is not known."""
        return self.share < LEARNED_SHARE

    @property
    def thrown(self) -> bool:
        """Whether one update changed the weights by as much as they are, as far as was seen."""
        return (
            self.diagnosis is not None
            and self.diagnosis.verdict == "exploding"
            and self.diagnosis.cause == "update"
        )


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


def check_whole(name: str, value: object, least: int) -> None:
    """Raises a ValueError unless a policy's field is a whole number, at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{name} must be a whole number, at least {least}. Received: {name}={value!r}."
        )


def check_number(name: str, value: object, above: float, below: float = math.inf) -> None:
    """Raises a ValueError unless a policy's field is a number between the two, not at them."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not above < value < below:  # type: ignore[operator]
        limits = f"above {above:g}" + (f" and below {below:g}" if below < math.inf else "")
        raise ValueError(f"{name} must be a finite number {limits}. Received: {name}={value!r}.")
