"""Being told how work goes that may take minutes."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Is told how a fit goes, as the console is."""

    def say(self, line: str) -> None:
        """What was found."""

    def start(self, title: str, total: int, *, brief: bool = False) -> None:
        """A job of this number of units begins; brief: it may be over in a moment."""

    def advance(self, *, by: int = 1) -> None:
        """Units are done."""

    def stop(self) -> None:
        """There are no more."""


class Unwatched:
    """A watcher where nobody looks."""

    def say(self, line: str) -> None: ...

    def start(self, title: str, total: int, *, brief: bool = False) -> None: ...

    def advance(self, *, by: int = 1) -> None: ...

    def stop(self) -> None: ...
