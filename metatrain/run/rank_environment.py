"""Ranks of a run in environment variables: those of torchrun, which the launcher of this package sets too.

Imports nothing heavy, because a launcher does not need torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

STORE = "METATRAIN_STORE"  # rendezvous file of processes on one machine; without it, MASTER_ADDR and MASTER_PORT are used


def number_of_ranks() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    """Return True in the process with rank 0, the only one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def environment(folder: Path, rank: int, size: int) -> Mapping[str, str]:
    """Return the environment of one of `size` processes on this machine, which connect through a file in `folder`."""
    found = {
        **os.environ,
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        STORE: str(folder / "store"),
    }
    if sys.platform == "linux":
        found.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the name of the host may not resolve
    return found
