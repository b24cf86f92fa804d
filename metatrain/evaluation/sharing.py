"""Who takes part in an evaluation, as far as it needs to know."""

from __future__ import annotations

from typing import Any, Protocol


class Workers(Protocol):
    """Processes that share the episodes of an evaluation; each has the same arms and tasks."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, value: Any) -> list[Any]:
        """What each of them has, in their order: anything that JSON has."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]
