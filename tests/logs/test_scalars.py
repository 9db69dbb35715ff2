from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from factories import MakeReading

from keras_vanish.diagnosis import diagnose
from keras_vanish.logs.scalars import scalars
from keras_vanish.records.probed import Probed


def test_scalars(make_reading: MakeReading) -> None:
    diagnosis = diagnose(
        make_reading(
            rms=[3e-3, 4e-3],
            names=["a", "b/c"],
            gradient_norm_after_clipping=[0.3, 0.4],
            zero_fraction=[0.25, 0],
        )
    )
    found = scalars(diagnosis)
    assert found.pop("gradients/global_norm") == pytest.approx(5e-3 * math.sqrt(1000))
    assert found.pop("gradients/global_norm_after_clipping") == pytest.approx(0.5)
    assert found.pop("update_ratio/00_a") == pytest.approx(1e-3)
    assert found.pop("update_ratio/01_b/c") == pytest.approx(1e-3)
    assert found == {
        "gradients/vanishing_score": diagnosis.vanishing_score,
        "gradients/exploding_score": diagnosis.exploding_score,
        "gradient_rms/00_a": 3e-3,
        "gradient_rms/01_b/c": 4e-3,
        "zero_fraction/00_a": 0.25,
        "zero_fraction/01_b/c": 0.0,
        "components/weights": diagnosis.components["weights"],
        "components/growth": diagnosis.components["growth"],
        "components/update": diagnosis.components["update"],
    }


def test_scalars_of_the_probe(
    make_reading: MakeReading, make_probed: Callable[..., Probed]
) -> None:
    probed = make_probed(
        rms=[3e-3, 4e-3],
        names=["a", "b/c"],
        dead_fraction=[math.nan, 0.5],
        saturated_fraction=[0.25, math.nan],
        profiles={"b/c": [1e-6, 0.5, 1.0]},
    )
    found = scalars(diagnose(make_reading(probed=probed)))
    added = {
        tag: value for tag, value in found.items() if tag not in scalars(diagnose(make_reading()))
    }
    components = [tag for tag in added if tag.startswith("components/")]
    assert components == [f"components/{name}" for name in ("activations", "dead", "saturated")]
    assert {tag: added[tag] for tag in added if tag not in components} == {
        "activation_gradient_rms/00_a": 3e-3,
        "activation_gradient_rms/01_b/c": 4e-3,
        "dead_fraction/01_b/c": 0.5,
        "saturated_fraction/00_a": 0.25,
        "horizon/b/c": 1.0,
    }


def test_missing_scalars_are_left_out(make_reading: MakeReading) -> None:
    reading = make_reading(rms=[math.nan, 1.0], update_rms=[math.nan, 1e-3])
    tags = set(scalars(diagnose(reading)))
    assert "gradient_rms/01_dense_1" in tags
    assert not tags & {
        "gradient_rms/00_dense_0",
        "update_ratio/00_dense_0",
        "gradients/vanishing_score",
    }
