"""Progress reports of work that may take minutes."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a fit, as the console does."""

    def say(self, line: str) -> None:
        """Report a result in one line."""

    def start(self, title: str, total: int, *, brief: bool = False) -> None:
        """Begin a job of this number of units; brief: it may end in a moment."""

    def advance(self, *, by: int = 1) -> None:
        """Count units as done."""

    def stop(self) -> None:
        """End the job."""


class Silent:
    """Progress that is not reported."""

    def say(self, line: str) -> None: ...

    def start(self, title: str, total: int, *, brief: bool = False) -> None: ...

    def advance(self, *, by: int = 1) -> None: ...

    def stop(self) -> None: ...
