from __future__ import annotations

import pytest
from diagnosis_helpers import Falling, Outcome


@pytest.mark.smoke
def test_starved_outputs_are_to_blame(falling: Falling, outcome: Outcome) -> None:
    low = falling(5, 4.0)
    assert outcome(seen=low) == ("vanishing", "activations", ("a", "b", "c"))
    # Of two, the worse one.
    assert outcome(low, seen=falling(5, 6.0))[1] == "activations"
