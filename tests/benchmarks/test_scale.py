"""The benchmark of scale runs against the package as it is."""

from __future__ import annotations

import pytest
import scale


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ROUNDS", 1)


@pytest.mark.parametrize("with_histograms", [False, True])
def test_a_step_is_written(with_histograms: bool) -> None:
    few, many = (scale.written(layers, with_histograms)[0] for layers in (2, 20))
    assert 0 < few < many


def test_gradients_are_read() -> None:
    assert scale.read(variables=2, entries=16) > 0
