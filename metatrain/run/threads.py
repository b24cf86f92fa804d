"""Number of CPU threads."""

from __future__ import annotations

import os

from metatrain.errors import UserError
from metatrain.run.config import HardwareConfig


def threads_of(config: HardwareConfig, processes: int = 1) -> int:
    """Return the number of CPU threads of each of a number of processes on this machine.

    Raises:
        UserError: `hardware.threads` is out of range.
    """
    threads = max(1, _available(processes) // processes) if config.threads is None else config.threads
    if threads < 1:
        raise UserError(f"hardware.threads={threads} must be 1 or more")
    return threads


def _available(processes: int) -> int:
    """Return OMP_NUM_THREADS, or the number of cores that this process may use.

    With several processes, OMP_NUM_THREADS is ignored, because torchrun always sets it to 1.
    """
    requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if processes == 1 and requested.isdecimal() and int(requested) > 0:
        return int(requested)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
