"""Validation of the fields of a policy."""

from __future__ import annotations

import math


def check_whole(name: str, value: object, least: int) -> None:
    """Raises a ValueError unless `value` is a whole number of at least `least`.

    Args:
        name: The name of the field, for the message.
        value: The value that the field received.
        least: The smallest value that is allowed.

    Raises:
        ValueError: If `value` is not an int, is a bool, or is less than `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{name} must be a whole number, at least {least}. Received: {name}={value!r}."
        )


def check_number(name: str, value: object, above: float, below: float = math.inf) -> None:
    """Raises a ValueError unless `value` is a number strictly between `above` and `below`.

    Args:
        name: The name of the field, for the message.
        value: The value that the field received.
        above: The exclusive lower bound.
        below: The exclusive upper bound.

    Raises:
        ValueError: If `value` is not an int or a float, is a bool, or is out of bounds.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not above < value < below:  # type: ignore[operator]
        limits = f"above {above:g}" + (f" and below {below:g}" if below < math.inf else "")
        raise ValueError(f"{name} must be a finite number {limits}. Received: {name}={value!r}.")
