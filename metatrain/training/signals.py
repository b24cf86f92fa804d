"""Stopping on request: a signal sets a flag, which the loops look at between episodes."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Catches SIGTERM and SIGINT while active; a second signal of the kind ends the process at once.

    Nothing is saved inside the handler: files written there could be half done when the next signal comes.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)
