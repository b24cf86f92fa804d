"""Processes that share an evaluation, as the protocol sees them."""

from __future__ import annotations

from typing import Any, Protocol


class Workers(Protocol):
    """Processes that share the episodes of an evaluation; each has the same arms and tasks."""

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in the order of their ranks; each value must be JSON-serialisable."""


class SingleProcess:
    """A single process, which shares nothing."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]
