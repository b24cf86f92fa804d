"""Runs of a grid that are jobs of SLURM, by Hydra's launcher and submitit: who queues a stopped one again."""

from __future__ import annotations

import os
import signal
import sys

from metatrain.errors import PREEMPTION, Stopped


def announce_ends_by_preemption_signal() -> None:
    """Have SLURM send, before a job's time is over, the signal at which a run saves; submitit's own choice means nothing to a run.

    For submitit, which reads this when it is imported, and for the jobs, which inherit it.
    """
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", PREEMPTION.name.removeprefix("SIG"))


def hand_over(stop: Stopped) -> None:
    """Leave a run that has been stopped, and saved, to SLURM, if it is a job of such a grid.

    When its time is over, submitit queues the job again. At SIGTERM the job is to be preempted or was cancelled, which is for
    SLURM to know: it queues a preempted job again if that lives until it is killed, and takes one that ends by itself for done.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    print(f"metatrain: {stop}", file=sys.stderr, flush=True)
    signal.raise_signal(stop.signal_number)  # to submitit, whose handlers are in place again
    while True:
        signal.pause()
