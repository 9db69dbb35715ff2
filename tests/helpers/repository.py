"""What stands in files of the repository."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def setup_cfg() -> configparser.ConfigParser:
    """What `setup.cfg` says."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config
