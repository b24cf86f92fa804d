"""Paths that users name in settings."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(name: str) -> Path:
    """Return the path of a file or folder that a setting names; `~/` is the home directory."""
    return Path(os.path.expanduser(name))  # which leaves a name like ~x.csv as it is, where Path.expanduser raises
