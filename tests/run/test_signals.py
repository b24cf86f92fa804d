import os
import signal
import subprocess
import sys

import pytest

from metatrain.errors import PREEMPTION, Stopped
from metatrain.run.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, PREEMPTION])
def test_a_signal_sets_a_flag(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop and stop.signal_number == number
    assert signal.getsignal(number) is before


def test_a_scheduler_may_repeat_itself_and_the_first_counts():
    with StopRequest() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, PREEMPTION):
            os.kill(os.getpid(), number)
        assert stop.signal_number == signal.SIGTERM


def test_the_second_ctrl_c_ends_the_process_at_once():
    script = "import os, signal\nfrom metatrain.run.signals import StopRequest\nwith StopRequest():\n    for _ in 'ab': os.kill(os.getpid(), signal.SIGINT)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 130


def test_exit_codes():
    assert [Stopped(number, "x").exit_code for number in (signal.SIGTERM, signal.SIGINT, PREEMPTION)] == [143, 130, 75]
