from __future__ import annotations

import pytest
from diagnosis_helpers import Outcome


@pytest.mark.smoke
def test_the_first_output_on_the_way_forward_is_to_blame(outcome: Outcome) -> None:
    probed = {"output_nonfinite_count": [0, 2, 0, 5], "gradient_nonfinite_count": [7, 7, 1, 0]}
    seen = {"rms": [1.0] * 3, "seen": [1.0] * 4, "names": "abcd", "probed": probed}
    assert outcome(**seen, nan_count=1.0) == ("nonfinite", "output", ("b",))
    # Training had none: the probe alone gives no verdict.
    assert outcome(**seen, nan_count=0.0)[0] == "healthy"
