"""Checks of what a policy's fields are given."""

from __future__ import annotations

import math


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
