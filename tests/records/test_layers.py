"""How the variables of layers are laid out."""

from __future__ import annotations

import pytest

from keras_vanish.records.layers import LayerInfo, layout


@pytest.mark.smoke
def test_the_variables_of_layers_follow_each_other() -> None:
    early = LayerInfo("early", ("kernel", "bias"), (3, 1), (30, 5), 5)
    late = LayerInfo("late", ("kernel",), (0,), (15,), 3)
    found = layout((early, late))
    assert found.layers == ("early", "early", "late")
    assert found.variables == ("kernel", "bias", "kernel")
    assert found.sizes == (30, 5, 15)
    assert found.indices.tolist() == [3, 1, 0]
    assert found.starts.tolist() == [0, 2]
