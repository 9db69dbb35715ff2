from __future__ import annotations

import dataclasses

from keras_vanish.records.activations import ACTIVATION_COLUMNS, ActivationReading
from keras_vanish.records.readings import LayerReading
from keras_vanish.records.statistics import COLUMNS


def test_rows_are_in_the_order_of_the_fields() -> None:
    # A record is made from a row by position.
    names = [field.name for field in dataclasses.fields(ActivationReading)]
    assert names == ["name", "depth", *ACTIVATION_COLUMNS]
    names = [field.name for field in dataclasses.fields(LayerReading)]
    assert names == [*COLUMNS, "name", "depth", "units"]
