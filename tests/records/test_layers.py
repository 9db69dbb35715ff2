from __future__ import annotations

from keras_vanish.records.layers import LayerInfo, layout

EARLY = LayerInfo("early", ("kernel", "bias"), (3, 1), (30, 5), 5)
LATE = LayerInfo("late", ("kernel",), (0,), (15,), 3)


def test_variables_follow_each_other_in_the_order_of_the_layers() -> None:
    found = layout((LATE, EARLY))
    assert found.layers == ("late", "early", "early")
    assert found.variables == ("kernel", "kernel", "bias")
    assert found.sizes == (15, 30, 5)
    assert found.indices.tolist() == [0, 3, 1]
    assert found.starts.tolist() == [0, 1]


def test_the_layout_of_the_same_layers_is_kept() -> None:
    assert layout((EARLY, LATE)) is layout((EARLY, LATE))
