import os
import signal

from metatrain.training.signals import StopRequest


def test_a_signal_sets_a_flag_and_the_second_would_end_the_process():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.signal_number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) not in (signal.SIG_DFL, signal.default_int_handler)
    assert signal.getsignal(signal.SIGTERM) is before
