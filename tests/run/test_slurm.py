"""Who queues a stopped job of SLURM again. Tried on a real SLURM too: docs/scaling.md."""

import os
import signal
import subprocess
import sys
import time

import pytest

from metatrain.errors import PREEMPTION, Stopped
from metatrain.run.slurm import announce_ends_by_preemption_signal, hand_over


class Requeued(Exception):
    pass


@pytest.fixture
def submitit_handler():
    """In place of submitit's, which queues the job again and exits."""

    def requeue(*_) -> None:
        raise Requeued

    before = signal.signal(PREEMPTION, requeue)
    yield
    signal.signal(PREEMPTION, before)


@pytest.mark.usefixtures("submitit_handler")
def test_a_job_whose_time_is_over_is_left_to_submitit(monkeypatch, capsys):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with pytest.raises(Requeued):
        hand_over(Stopped(PREEMPTION, "stopped at step 3"))
    assert capsys.readouterr().err == "metatrain: stopped at step 3\n"


@pytest.mark.usefixtures("submitit_handler")
def test_what_is_no_job_of_slurm_ends_by_itself(monkeypatch):
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    hand_over(Stopped(PREEMPTION, "stopped at step 3"))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    hand_over(Stopped(PREEMPTION, "stopped at step 3"))


def test_a_job_that_is_to_be_preempted_waits_to_be_killed():
    """Its handler of SIGTERM, as submitit's, does nothing."""
    script = """
import os, signal
from metatrain.errors import Stopped
from metatrain.run.slurm import hand_over
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"passed over\\n"))
hand_over(Stopped(signal.SIGTERM, "stopped at step 3"))
"""
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm"}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "passed over\n"
        process.terminate()  # again, as SLURM does
        assert process.stdout.readline() == "passed over\n"
        time.sleep(0.2)
        assert process.poll() is None
        process.kill()


def test_submitit_gets_the_signal_at_which_a_run_saves(monkeypatch):
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL", raising=False)
    announce_ends_by_preemption_signal()
    script = "from submitit.slurm.slurm import SlurmJobEnvironment as job; print(job._usr_sig())"
    pytest.importorskip("submitit")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == str(int(PREEMPTION))
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR2")  # who has chosen keeps it
    announce_ends_by_preemption_signal()
    assert os.environ["SUBMITIT_PREEMPT_SIGNAL"] == "USR2"
