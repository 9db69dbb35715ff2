from __future__ import annotations

from collections.abc import Callable

import pytest

Falling = Callable[..., list[float]]
Outcome = Callable[..., tuple[str, str, tuple[str, ...]]]


@pytest.mark.smoke
def test_starved_outputs_are_to_blame(falling: Falling, outcome: Outcome) -> None:
    low = falling(5, 4.0)
    assert outcome(seen=low) == ("vanishing", "activations", ("a", "b", "c"))
    # Of two, the worse one.
    assert outcome(low, seen=falling(5, 6.0))[1] == "activations"
