"""Runs of a grid as SLURM jobs (Hydra's submitit launcher): requeue after a timeout or preemption."""

from __future__ import annotations

import os
import signal
import sys

from metatrain.errors import PREEMPTION, Stopped


def announce_ends_by_preemption_signal() -> None:
    """Make SLURM send the signal at which a run saves shortly before a job's time limit; submitit's default is a different signal.

    The environment variable is read by submitit when it is imported, and inherited by the jobs.
    """
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", PREEMPTION.name.removeprefix("SIG"))


def hand_over(stop: Stopped) -> None:
    """Hand a stopped and saved run over to SLURM, if it is a job of such a grid; return otherwise.

    At the time limit, submitit requeues the job. At SIGTERM, the job is preempted or cancelled: SLURM requeues a preempted job only if
    it is still running when it is killed, so this process waits.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    print(f"metatrain: {stop}", file=sys.stderr, flush=True)
    signal.raise_signal(stop.signal_number)  # to the handlers of submitit, which are installed again
    while True:
        signal.pause()
