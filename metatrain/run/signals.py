"""Stopping on request: a signal sets a flag, which the loops look at between episodes."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from metatrain.errors import PREEMPTION


class StopRequest:
    """Catches SIGTERM, SIGINT and the notice of preemption (SIGUSR1) while active.

    Nothing is saved inside the handler: files written there could be half done when the next signal comes. A second SIGINT
    ends the process at once, for who is in a hurry; schedulers may repeat the others, which changes nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals to no other, in a notebook's server for example
            for number in (signal.SIGTERM, signal.SIGINT, PREEMPTION):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.signal_number:
            os._exit(128 + number)
        self.signal_number = self.signal_number or number
