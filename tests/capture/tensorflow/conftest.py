"""What the tests of this folder and those below share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# Modules of this folder are imported by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def mirrored() -> Any:
    """A mirrored strategy with one replica: the package looks at many more things under it."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0"])
